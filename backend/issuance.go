// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
)

// An issuance is what one caller's requests for tokens of a role are decided and signed with:
// the terms, and the snapshot. A batch has one for all of its items.
type issuance struct {
	terms
	snapshot *snapshot

	backend  *backend
	roleName string
}

// newIssuance reads what a request depends on. It is the caller's mistake if the role does
// not exist, or the mount is not ready.
func (b *backend) newIssuance(ctx context.Context, req *logical.Request, name string) (*issuance, error) {
	r, err := b.currentRole(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	s, err := b.currentSnapshot(ctx, req.Storage, req.MountPoint)
	if err != nil {
		return nil, err
	}
	maxTTL, err := b.system.maxTTLFor(r)
	if err != nil {
		return nil, err
	}
	values := callerValues(b.system, req.EntityID)
	return &issuance{
		terms:    terms{role: r, values: values, matcher: r.rules.Matcher(values), maxTTL: maxTTL, now: b.now()},
		snapshot: s,
		backend:  b,
		roleName: name,
	}, nil
}

// decideOne decides a request for one token. creds and check share it.
func (b *backend) decideOne(ctx context.Context, req *logical.Request, name string, d *framework.FieldData) (*issuance, *grant, error) {
	i, err := b.newIssuance(ctx, req, name)
	if err != nil {
		return nil, nil, err
	}
	wanted, err := parseTokenRequest(d)
	if err != nil {
		return nil, nil, err
	}
	g, err := i.decide(wanted)
	return i, g, err
}

// errTooLate is a token that expired before its turn.
var errTooLate = unavailable("a token would have expired before it could be signed; ask for a longer ttl, send fewer items, or try again later")

// checkCurrent returns errChanged if the role, the configuration or the active key is not
// what the issuance was decided with, or if the cache has dropped it.
func (i *issuance) checkCurrent(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b := i.backend
	s, r := b.state.snapshot.Load(), b.process.roles.get(b.roleKey(i.roleName))
	if s == nil || s.settings != i.snapshot.settings || r == nil || r != i.role && !r.same(i.role) {
		return errChanged
	}
	return nil
}

// sign signs a granted token, and returns the data of its answer.
func (i *issuance) sign(ctx context.Context, g *grant) (map[string]any, error) {
	if err := i.checkCurrent(ctx); err != nil {
		return nil, err
	}
	ttl := g.expiration - i.backend.now().Unix()
	if ttl <= 0 { // a batch may take longer than a token lives
		return nil, errTooLate
	}
	s := i.snapshot
	token, err := s.consumer().Sign(s.key, g.room, g.notBefore, g.expiration)
	if err != nil {
		return nil, fmt.Errorf("signing with key version %d: %w", s.ActiveKey, err)
	}
	data := map[string]any{
		fieldToken:      token,
		fieldRoom:       string(g.room),
		fieldConsumerID: s.ConsumerID,
		fieldNotBefore:  g.notBefore,
		fieldExpiration: g.expiration,
		fieldTTL:        ttl,
		fieldKeyVersion: s.ActiveKey,
	}
	if s.Domain != "" {
		data[fieldDomain] = s.Domain
		if g.room != room.Every {
			// As Clan Meeting's SDK builds it.
			data[fieldMeetingURL] = "https://" + s.Domain + "/" + s.ConsumerID + "/" + string(g.room) + "?jwt=" + token
		}
	}
	return data, nil
}
