// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"math"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// cachedBytes limits the memory of all cached roles. Most take about 1,000 bytes.
const cachedBytes = 16 << 20

// A roleCache keeps the most recently used roles of all mounts.
type roleCache struct {
	mu      sync.Mutex
	entries *simplelru.LRU[roleKey, *role]
	bytes   int // of all entries together
}

type roleKey struct {
	mount *backend
	name  string
}

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

// keep adds a role, and drops the least recently used ones if there are too many.
func (c *roleCache) keep(key roleKey, r *role) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries.Remove(key) // another request may have loaded it meanwhile
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
func (c *roleCache) dropMount(mount *backend) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range c.entries.Keys() {
		if key.mount == mount {
			c.entries.Remove(key)
		}
	}
}
