// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
)

// Once role and signer are cached, a read needs no storage.
func TestWarmReadNeedsNoStorage(t *testing.T) {
	m := configured(t)
	m.token("support", map[string]any{fieldRoom: "support-1"})
	m.storage.failWith(func(string, string) error { return errors.New("storage is down") })
	m.token("support", map[string]any{fieldRoom: "support-2"})
	require.Equal(t, true, m.mustRead("check/support", map[string]any{fieldRoom: "support-2"})[fieldAllowed])
}

// The next read sees every kind of change to a role.
func TestRoleIsReloadedAfterEveryChange(t *testing.T) {
	m := configured(t)
	ttl := func() any { return m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})[fieldTTL] }
	require.EqualValues(t, 900, ttl())
	m.mustWrite("roles/support", map[string]any{fieldTTL: "1m"})
	require.EqualValues(t, 60, ttl())

	// A refused write changes nothing. After a failed one, the next read sees what storage
	// holds.
	m.refused(logical.UpdateOperation, "roles/support", map[string]any{fieldTTL: "10h"})
	require.EqualValues(t, 60, ttl())

	// Another node wrote the role.
	r, err := loadRole(t.Context(), m.storage, "support")
	require.NoError(t, err)
	r.TTL *= 2
	require.NoError(t, store(t.Context(), m.storage, "roles/support", r.storedRole))
	require.EqualValues(t, 60, ttl(), "not invalidated yet")
	m.wire.InvalidateKey(t.Context(), "roles/support")
	require.EqualValues(t, 120, ttl())

	m.mustDelete("roles/support")
	require.Contains(t, m.refused(logical.ReadOperation, "creds/support", nil), "not found")
	m.mustWrite("roles/support", map[string]any{fieldAllowedRooms: "support-*"})
	require.EqualValues(t, 900, ttl(), "a new role with the defaults")
}

// The size of the roles limits the cache, not their number.
func TestRoleCacheIsBounded(t *testing.T) {
	m := configured(t)
	rooms := make([]string, room.MaxRules)
	for i := range rooms {
		rooms[i] = fmt.Sprintf("*-%060d", i)
	}
	m.mustWrite("roles/large", map[string]any{fieldAllowedRooms: rooms})
	large, err := loadRole(t.Context(), m.storage, "large")
	require.NoError(t, err)
	small, err := loadRole(t.Context(), m.storage, "support")
	require.NoError(t, err)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var wg sync.WaitGroup
	for i := range 200 {
		for name, r := range map[string]*role{"large": large, "small": small} {
			name = fmt.Sprintf("%s-%d", name, i)
			require.NoError(t, store(t.Context(), m.storage, rolePath(name), r.storedRole))
			wg.Go(func() { _, _ = m.inside.currentRole(t.Context(), m.storage, name) })
		}
	}
	wg.Wait()
	for i := range 200 {
		m.wire.InvalidateKey(t.Context(), "x")
		require.NoError(t, m.storage.Delete(t.Context(), rolePath(fmt.Sprintf("large-%d", i))))
	}
	roles := m.inside.process.roles
	key := func(name string) roleKey { return m.inside.roleKey(name) }
	require.LessOrEqual(t, roles.bytes, cachedBytes)
	require.Greater(t, roles.bytes, cachedBytes-large.size())
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.Less(t, after.HeapAlloc, before.HeapAlloc+2*cachedBytes, "what is counted is about what it takes")

	// Many small roles fit, and a role that is read stays.
	roles = newRoleCache()
	for i := range 2 * 1024 {
		roles.keep(key(fmt.Sprintf("r%d", i)), small)
	}
	require.Equal(t, 2*1024, roles.entries.Len())
	roles.keep(key("support"), small)
	for range 2 * cachedBytes / large.size() {
		require.NotNil(t, roles.get(key("support")))
		roles.keep(key("large"), large)
		roles.keep(key("large-too"), large)
	}
	require.NotNil(t, roles.get(key("support")))
	roles.drop(key("large"))
	roles.drop(key("large-too"))
	roles.drop(key("none"))
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
	other := m.inside.state.mount + 1
	r := m.issuanceOf("support").role
	roles.keep(roleKey{other, "support"}, r)
	require.Same(t, r, roles.get(roleKey{other, "support"}))
	before := roles.bytes
	roles.keep(roleKey{other, strings.Repeat("n", maxRoleName)}, r)
	require.Equal(t, before+maxRoleName+r.size(), roles.bytes)
	m.wire.Cleanup(t.Context())
	require.Equal(t, 2, roles.entries.Len())
	roles.dropMount(other)
	require.Zero(t, roles.bytes)
}
