// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"math"
	"sync"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/hashicorp/vault/sdk/logical"
)

// cachedBytes limits the memory of all cached roles. Most take about 1,000 bytes.
const cachedBytes = 16 << 20

// A roleCache keeps the most recently used roles of all mounts.
type roleCache struct {
	mu      sync.Mutex
	entries *simplelru.LRU[roleKey, *role]
	bytes   int // of all entries together
}

// A roleKey names a role by the number of its mount, because a pointer to the mount would
// keep an ended one, with its private key, in memory.
type roleKey struct {
	mount int64
	name  string
}

func (b *backend) roleKey(name string) roleKey { return roleKey{b.state.mount, name} }

func newRoleCache() *roleCache {
	c := &roleCache{}
	// The number of roles is not limited, only their size.
	entries, err := simplelru.NewLRU(math.MaxInt, func(key roleKey, r *role) { c.bytes -= cachedSize(key, r) })
	if err != nil {
		panic(err) // only for a size below 1
	}
	c.entries = entries
	return c
}

func cachedSize(key roleKey, r *role) int { return len(key.name) + r.size() }

// get returns nil if the role is not cached.
func (c *roleCache) get(key roleKey) *role {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, _ := c.entries.Get(key)
	return r
}

// keep adds a role, and drops the least recently used ones if all together are too large.
func (c *roleCache) keep(key roleKey, r *role) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries.Remove(key) // or its size would count twice
	c.entries.Add(key, r)
	for c.bytes += cachedSize(key, r); c.bytes > cachedBytes; {
		c.entries.RemoveOldest()
	}
}

func (c *roleCache) drop(key roleKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries.Remove(key)
}

// dropMount drops the roles of a mount that has ended.
func (c *roleCache) dropMount(mount int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range c.entries.Keys() {
		if key.mount == mount {
			c.entries.Remove(key)
		}
	}
}

// currentRole returns a role, which it loads into the cache if necessary. It is the
// caller's mistake if there is none.
func (b *backend) currentRole(ctx context.Context, s logical.Storage, name string) (*role, error) {
	key := b.roleKey(name)
	if r := b.process.roles.get(key); r != nil {
		return r, nil
	}
	if err := b.state.roleLock(name).take(ctx); err != nil {
		return nil, err
	}
	defer b.state.roleLock(name).release()
	if r := b.process.roles.get(key); r != nil { // another request has loaded it meanwhile
		return r, nil
	}
	r, err := loadRole(ctx, s, name)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, invalid("role %q not found", room.Shorten(name))
	}
	b.process.roles.keep(key, r)
	return r, nil
}

// changeRole changes a role; write returns the role as it should be, nil if it is gone. The
// cache then drops what it has, unless that is equal. It does so even if the write failed,
// because storage may have done it all the same.
func (b *backend) changeRole(ctx context.Context, name string, write func(context.Context) (*role, error)) (r *role, err error) {
	if err := b.state.roleLock(name).take(ctx); err != nil {
		return nil, err
	}
	defer b.state.roleLock(name).release()
	ctx, cancel := finishing(ctx)
	defer cancel()
	key := b.roleKey(name)
	defer func() {
		if !isInvalid(err) && !b.process.roles.get(key).same(r) {
			b.process.roles.drop(key)
		}
	}()
	return write(ctx)
}
