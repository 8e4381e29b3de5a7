// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"math"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/hashicorp/vault/sdk/helper/locksutil"
	"github.com/hashicorp/vault/sdk/logical"
)

// cachedBytes limits the memory of the roles in a cache. Most take about 1,000 bytes.
const cachedBytes = 16 << 20

// A roleCache keeps the most recently used roles.
type roleCache struct {
	mu      sync.Mutex
	entries *simplelru.LRU[string, *role]
	bytes   int // of all entries together

	// locks has one lock per role name. It is held for writing while the role changes,
	// and for reading while it is loaded. So a role that was loaded before a change is
	// never kept after it.
	locks []*locksutil.LockEntry
}

func newRoleCache() *roleCache {
	c := &roleCache{locks: locksutil.CreateLocks()}
	// The number of roles is not limited, only their size.
	entries, err := simplelru.NewLRU(math.MaxInt, func(_ string, r *role) { c.bytes -= r.size() })
	if err != nil {
		panic(err) // only for a size below 1
	}
	c.entries = entries
	return c
}

// get returns nil if there is no such role.
func (c *roleCache) get(ctx context.Context, s logical.Storage, name string) (*role, error) {
	if r := c.cached(name); r != nil {
		return r, nil
	}
	lock := locksutil.LockForKey(c.locks, name)
	lock.RLock()
	defer lock.RUnlock()
	r, err := loadRole(ctx, s, name)
	if err == nil && r != nil {
		c.keep(name, r)
	}
	return r, err
}

func (c *roleCache) cached(name string) *role {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, _ := c.entries.Get(name)
	return r
}

// keep adds a role, and drops the least recently used ones if there are too many.
func (c *roleCache) keep(name string, r *role) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries.Remove(name) // another request may have loaded it meanwhile
	c.entries.Add(name, r)
	for c.bytes += r.size(); c.bytes > cachedBytes; {
		c.entries.RemoveOldest()
	}
}

func (c *roleCache) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries.Remove(name)
}

// change calls f, which changes a role, while nobody loads that role. It drops the role
// from the cache even if f fails.
func (c *roleCache) change(name string, f func() error) error {
	lock := locksutil.LockForKey(c.locks, name)
	lock.Lock()
	defer lock.Unlock()
	defer c.drop(name)
	return f()
}

// forget drops a role that another node has changed.
func (c *roleCache) forget(name string) {
	_ = c.change(name, func() error { return nil })
}
