// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// A decision is a token that may be signed. creds signs it, check tells it.
type decision struct {
	signer *signer
	grant  *grant
	now    time.Time
}

// decide holds a request against the role. A refusal is the caller's mistake.
func (b *backend) decide(ctx context.Context, req *logical.Request, d *framework.FieldData, r *role) (*decision, error) {
	s, err := b.signer(ctx, req.Storage, req.MountPoint)
	if err != nil {
		return nil, err
	}
	wanted, err := parseTokenRequest(d)
	if err != nil {
		return nil, err
	}
	now := b.now()
	g, err := r.grant(wanted, &caller{system: b.System(), entityID: req.EntityID}, now)
	if err != nil {
		return nil, err
	}
	return &decision{signer: s, grant: g, now: now}, nil
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

// requestedRole loads the role that the path names; none is the caller's mistake.
func requestedRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*role, error) {
	name := d.Get(fieldName).(string)
	r, err := loadRole(ctx, req.Storage, name)
	if err == nil && r == nil {
		err = invalid("role %q not found", name)
	}
	return r, err
}
