// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// periodic is called by Vault about every minute. The read of storage also keeps the
// plugin's connection to Vault open: gRPC closes it after 30 minutes without a call, and
// dials again through a socket that a cleaner of temporary files may have removed.
func (b *backend) periodic(ctx context.Context, req *logical.Request) error {
	cfg, err := loadConfig(ctx, req.Storage)
	if err != nil {
		return err
	}
	if cfg.DeleteEndedRolesAfter == 0 || !b.WriteSafeReplicationState() {
		return nil
	}
	return b.deleteEndedRoles(ctx, req, b.now().Add(-cfg.DeleteEndedRolesAfter))
}

// sweepRoles is how many roles one run looks at; the next run goes on from there. It reads
// each of them from storage, which takes a second or two in all.
const sweepRoles = 10_000

// deleteEndedRoles deletes the roles whose window closed at or before a time. It holds the
// lock of one role at a time, as a write does.
func (b *backend) deleteEndedRoles(ctx context.Context, req *logical.Request, before time.Time) error {
	names, err := listRoles(ctx, req.Storage)
	if err != nil {
		return err
	}
	first := min(b.swept, len(names))
	last := min(first+sweepRoles, len(names))
	deleted := 0
	for _, name := range names[first:last] {
		var done bool
		if done, err = b.deleteIfEnded(ctx, req.Storage, name, before); done {
			deleted++
			continue
		}
		b.swept++
		if err != nil { // the next run goes on behind it
			break
		}
	}
	if b.swept >= len(names)-deleted {
		b.swept = 0
	}
	if deleted > 0 {
		b.Logger().Info("deleted roles that ended", "count", deleted, "ended_before", formatTime(before))
		b.sendEvents(ctx, &logical.Request{Path: rolePrefix}, []event{{operation: eventRolesDeleteEnded, metadata: []string{"count", strconv.Itoa(deleted)}}})
	}
	return err
}

// deleteIfEnded deletes a role, unless it was changed meanwhile. A corrupt role stays, for
// somebody to look at.
func (b *backend) deleteIfEnded(ctx context.Context, s logical.Storage, name string, before time.Time) (deleted bool, err error) {
	r, err := loadRole(ctx, s, name)
	switch {
	case errors.Is(err, errCorrupt):
		return false, nil
	case err != nil, r == nil, !r.ended(before):
		return false, err
	}
	_, err = b.changeRole(ctx, name, func(ctx context.Context) (*role, error) {
		r, err := loadRole(ctx, s, name)
		if err != nil || r == nil || !r.ended(before) {
			return r, err
		}
		deleted = true
		return nil, remove(ctx, s, rolePath(name))
	})
	return deleted && err == nil, err
}
