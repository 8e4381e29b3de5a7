// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// A warm read asks the storage for nothing.
func TestWarmReadNeedsNoStorage(t *testing.T) {
	m := configured(t)
	m.token("support", map[string]any{fieldRoom: "support-1"})
	m.storage.failWith(func(string, string) error { return errors.New("storage is down") })
	m.token("support", map[string]any{fieldRoom: "support-2"})
	require.Equal(t, true, m.mustRead("check/support", map[string]any{fieldRoom: "support-2"})[fieldAllowed])
}

// Every way of changing a role is seen by the next read.
func TestRoleIsLoadedAnewAfterEveryChange(t *testing.T) {
	m := configured(t)
	ttl := func() any { return m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})[fieldTTL] }
	require.EqualValues(t, 900, ttl())
	m.mustWrite("roles/support", map[string]any{fieldTTL: "1m"})
	require.EqualValues(t, 60, ttl())

	// A refused write changes nothing, and a failed one is seen as what storage holds.
	m.refused(logical.UpdateOperation, "roles/support", map[string]any{fieldTTL: "10h"})
	require.EqualValues(t, 60, ttl())

	// Another node wrote the role.
	r, err := loadRole(t.Context(), m.storage, "support")
	require.NoError(t, err)
	r.TTL *= 2
	require.NoError(t, store(t.Context(), m.storage, "roles/support", r))
	require.EqualValues(t, 60, ttl(), "not told yet")
	m.wire.InvalidateKey(t.Context(), "roles/support")
	require.EqualValues(t, 120, ttl())

	m.mustDelete("roles/support")
	require.Contains(t, m.refused(logical.ReadOperation, "creds/support", nil), "not found")
	m.mustWrite("roles/support", map[string]any{fieldAllowedRooms: "support-*"})
	require.EqualValues(t, 900, ttl(), "made anew, not as it was")
}

// A role that was loaded before an invalidation must not be kept after it.
func TestRoleLoadDuringInvalidationIsNotKept(t *testing.T) {
	m := configured(t)
	r, err := loadRole(t.Context(), m.storage, "support")
	require.NoError(t, err)
	reached, proceed := make(chan struct{}), make(chan struct{})
	inner := m.storage.Storage
	m.storage.Storage = &slowStorage{Storage: inner, key: "roles/support", reached: reached, proceed: proceed}

	done := make(chan error)
	go func() {
		_, err := m.call(logical.ReadOperation, "creds/support", map[string]any{fieldRoom: "support-1"})
		done <- err
	}()
	<-reached // the old role has been read, and not been kept yet
	r.TTL *= 2
	require.NoError(t, store(t.Context(), inner, "roles/support", r))
	invalidated := make(chan struct{})
	go func() {
		m.wire.InvalidateKey(t.Context(), "roles/support")
		close(invalidated)
	}()
	select {
	case <-invalidated: // it must wait for the load, or what was loaded is kept
	case <-time.After(100 * time.Millisecond):
	}
	close(proceed)
	require.NoError(t, <-done)
	<-invalidated
	require.EqualValues(t, 1800, m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})[fieldTTL])
}

func TestRoleCacheIsBounded(t *testing.T) {
	m := configured(t)
	r, err := loadRole(t.Context(), m.storage, "support")
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range cachedRoles + 100 {
		name := fmt.Sprintf("r%d", i)
		require.NoError(t, store(t.Context(), m.storage, rolePath(name), r))
		wg.Go(func() { _, _ = m.inside.roles.get(t.Context(), m.storage, name) })
	}
	wg.Wait()
	require.Equal(t, cachedRoles, m.inside.roles.entries.Len())
	for range 3 {
		m.token("r0", map[string]any{fieldRoom: "support-1"})
		m.token("r1100", map[string]any{fieldRoom: "support-1"})
	}
}
