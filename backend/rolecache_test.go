// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
)

// After a change, one request loads what it needs for all. Then a read needs no storage.
func TestEachEntryIsLoadedOnce(t *testing.T) {
	m := configured(t)
	reads := 0
	m.storage.failWith(func(string, string) error { reads++; return nil })
	for range 20 {
		m.wire.InvalidateKey(t.Context(), "config")
		m.wire.InvalidateKey(t.Context(), "roles/support")
		reads = 0
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { _, _ = m.inside.newIssuance(t.Context(), &logical.Request{Storage: m.storage}, "support") })
		}
		wg.Wait()
		m.creds()
		require.Equal(t, 3, reads, "the role, the configuration and the key")
		m.mustRead("config", nil)
		m.mustRead("keys/1", nil)
		require.Equal(t, 6, reads, "the configuration, the list of keys and the key")
	}
}

// The size of the roles limits the cache, not their number. What is counted is about what
// they take.
func TestRoleCacheIsBounded(t *testing.T) {
	m := configured(t)
	rooms := make([]string, room.MaxRules)
	for i := range rooms {
		rooms[i] = fmt.Sprintf("*-%060d", i)
	}
	m.mustWrite("roles/large", map[string]any{fieldAllowedRooms: rooms})
	loaded := func(name string) *role {
		r, err := loadRole(t.Context(), m.storage, name)
		require.NoError(t, err)
		return r
	}
	small, large := loaded("support"), loaded("large")
	key := func(name any) roleKey { return m.inside.roleKey(fmt.Sprint(name)) }
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	roles := newRoleCache()
	for i := range 200 {
		roles.keep(key(i), loaded("large"))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.LessOrEqual(t, roles.bytes, cachedBytes)
	require.Greater(t, roles.bytes, cachedBytes-large.size())
	require.Less(t, after.HeapAlloc, before.HeapAlloc+2*cachedBytes)

	// Many small roles fit, and a role that is read stays.
	for i := range 2048 {
		roles.keep(key(i), small)
	}
	require.Equal(t, 2048, roles.entries.Len())
	for i := range 2 * cachedBytes / large.size() {
		require.NotNil(t, roles.get(key(0)))
		roles.keep(key(i+3000), large)
	}
	require.NotNil(t, roles.get(key(0)))
	for roles.entries.Len() > 0 {
		roles.entries.RemoveOldest()
	}
	require.Zero(t, roles.bytes, "what goes is no longer counted")
}

// All mounts of the process share the cache. The name of a role counts, and a mount that
// ends leaves nothing behind.
func TestMountsShareTheRoleCache(t *testing.T) {
	m := configured(t)
	roles := m.inside.process.roles
	r := m.issuanceOf("support").role
	before, other := roles.bytes, roleKey{m.inside.state.mount + 1, strings.Repeat("n", maxRoleName)}
	for range 2 {
		roles.keep(other, r)
		require.Equal(t, before+maxRoleName+r.size(), roles.bytes)
	}
	m.wire.Cleanup(t.Context())
	require.Equal(t, []roleKey{other}, roles.entries.Keys())
	roles.drop(other)
	require.Zero(t, roles.bytes)
}
