// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
)

// An issuance is a request for tokens of a role, with all that they depend on: the terms
// by which it is decided, and the snapshot that signs.
type issuance struct {
	terms
	snapshot *snapshot

	// Where the role and the snapshot came from.
	backend *backend
	storage logical.Storage
	mount   string
	name    string
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
	c := &caller{system: b.system, entityID: req.EntityID}
	return &issuance{
		terms:    terms{role: r, values: c.value, matcher: r.rules.Matcher(c.value), maxTTL: maxTTL, now: b.now()},
		snapshot: s,
		backend:  b, storage: req.Storage, mount: req.MountPoint, name: name,
	}, nil
}

// checkCurrent returns errChanged if the role, the configuration or the active key is not
// what the issuance was decided with. If the cache has dropped them, they are loaded, and
// may be the same.
func (i *issuance) checkCurrent(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s, err := i.backend.currentSnapshot(ctx, i.storage, i.mount)
	switch {
	case isInvalid(err), err == nil && s.settings != i.snapshot.settings:
		return errChanged
	case err != nil:
		return err
	}
	r, err := i.backend.currentRole(ctx, i.storage, i.name)
	switch {
	case isInvalid(err), err == nil && r != i.role && !r.same(i.role):
		return errChanged
	}
	return err
}

// sign signs a granted token, and returns the data of its answer.
func (i *issuance) sign(ctx context.Context, g *grant) (map[string]any, error) {
	if err := i.checkCurrent(ctx); err != nil {
		return nil, err
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
		fieldTTL:        g.ttl,
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
