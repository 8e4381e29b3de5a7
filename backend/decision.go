// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// A terms is what a request is held against: the role and all that the answer
// depends on beside it, at one moment. It serves a whole batch.
type terms struct {
	role   *role
	signer *signer
	caller *caller
	now    time.Time
}

// A decision is a token that may be signed. creds signs it, check tells it.
type decision struct {
	*terms
	grant *grant
}

// terms of a request for the role. A mount that is not ready is the caller's
// mistake.
func (b *backend) terms(ctx context.Context, req *logical.Request, r *role) (*terms, error) {
	s, err := b.signer(ctx, req.Storage, req.MountPoint)
	if err != nil {
		return nil, err
	}
	c := &caller{system: b.System(), entityID: req.EntityID, maxTTL: b.System().MaxLeaseTTL()}
	return &terms{role: r, signer: s, caller: c, now: b.now()}, nil
}

// decide holds a request against the terms. A refusal is the caller's mistake.
func (t *terms) decide(d *framework.FieldData) (*decision, error) {
	wanted, err := parseTokenRequest(d)
	if err != nil {
		return nil, err
	}
	g, err := t.role.grant(wanted, t.caller, t.now)
	if err != nil {
		return nil, err
	}
	return &decision{terms: t, grant: g}, nil
}

// parseTokenRequest reads the parameters of a request; the framework has checked
// their types.
func parseTokenRequest(d *framework.FieldData) (tokenRequest, error) {
	ttl, _, err := durationField(d, fieldTTL)
	if err != nil {
		return tokenRequest{}, err
	}
	name, _, err := stringField(d, fieldRoom)
	if err != nil {
		return tokenRequest{}, err
	}
	wanted := tokenRequest{room: name, ttl: ttl}
	if v, ok := d.GetOk(fieldNotBefore); ok {
		start := v.(time.Time).Truncate(time.Second)
		wanted.notBefore = &start
	}
	return wanted, nil
}

// requestedRole returns the role that the path names; none is the caller's mistake.
func (b *backend) requestedRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*role, error) {
	name := d.Get(fieldName).(string)
	r, err := b.roles.get(ctx, req.Storage, name)
	if err == nil && r == nil {
		err = invalid("role %q not found", name)
	}
	return r, err
}
