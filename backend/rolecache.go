// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/vault/sdk/helper/locksutil"
	"github.com/hashicorp/vault/sdk/logical"
)

// cachedRoles is how many roles are kept parsed. Most have a few hundred bytes.
const cachedRoles = 1024

// A roleCache keeps the roles that were read last. A role in it is shared, and not
// to be changed.
type roleCache struct {
	entries *lru.Cache[string, *role]

	// locks are held, by a role's name, for writing while the role changes, and for
	// reading while it is loaded. So a role that was loaded before a change can never
	// be kept after it.
	locks []*locksutil.LockEntry
}

func newRoleCache() *roleCache {
	entries, err := lru.New[string, *role](cachedRoles)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &roleCache{entries: entries, locks: locksutil.CreateLocks()}
}

// get returns nil where there is no such role.
func (c *roleCache) get(ctx context.Context, s logical.Storage, name string) (*role, error) {
	if r, ok := c.entries.Get(name); ok {
		return r, nil
	}
	lock := locksutil.LockForKey(c.locks, name)
	lock.RLock()
	defer lock.RUnlock()
	r, err := loadRole(ctx, s, name)
	if err == nil && r != nil {
		c.entries.Add(name, r)
	}
	return r, err
}

// change runs what changes a role while nobody loads it, and forgets the role,
// whatever becomes of the change.
func (c *roleCache) change(name string, f func() error) error {
	lock := locksutil.LockForKey(c.locks, name)
	lock.Lock()
	defer lock.Unlock()
	defer c.entries.Remove(name)
	return f()
}

// forget is for a role that another node changed.
func (c *roleCache) forget(name string) {
	_ = c.change(name, func() error { return nil })
}
