// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// rollback is what Vault does about every minute.
func (m *testMount) rollback() error {
	_, err := m.wire.HandleRequest(m.t.Context(), &logical.Request{Operation: logical.RollbackOperation, Storage: m.storage})
	return err
}

func (m *testMount) roleNames() []any {
	resp := m.must(m.call(logical.ListOperation, "roles/", nil))
	names, _ := resp.Data["keys"].([]any)
	return names
}

// Each run calls Vault, so that the connection to it stays open, also on a mount without
// anything to do.
func TestPeriodicCallKeepsTheConnection(t *testing.T) {
	m := newTestMount(t)
	calls := 0
	m.storage.failWith(func(string, string) error { calls++; return nil })
	require.NoError(t, m.rollback())
	require.Positive(t, calls)
}

func TestEndedRolesAreDeleted(t *testing.T) {
	m := configured(t)
	for name, ago := range map[string]time.Duration{"long-ago": 25 * time.Hour, "just-now": time.Hour, "exactly": 24 * time.Hour, "ahead": -time.Hour} {
		m.mustWrite("roles/"+name, map[string]any{fieldAllowedRooms: "a", fieldValidUntil: testNow.Add(-ago).Unix()})
	}
	require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: "roles/corrupt", Value: []byte("{")}))
	all := []any{"ahead", "corrupt", "exactly", "just-now", "long-ago", "support"}
	require.NoError(t, m.rollback())
	require.Equal(t, all, m.roleNames(), "never, by default")

	m.mustWrite("config", map[string]any{fieldDeleteEndedRolesAfter: "24h"})
	require.EqualValues(t, 86400, m.mustRead("config", nil)[fieldDeleteEndedRolesAfter])
	for _, state := range []consts.ReplicationState{consts.ReplicationPerformanceStandby, consts.ReplicationPerformanceSecondary} {
		m.system.ReplicationStateVal = state
		m.advance(2 * systemLife)
		require.NoError(t, m.rollback())
		require.Equal(t, all, m.roleNames(), "only the active node of the primary deletes")
	}

	m.system.ReplicationStateVal = consts.ReplicationPerformancePrimary
	m.advance(2 * systemLife)
	m.events.take()
	require.NoError(t, m.rollback())
	require.Equal(t, []any{"ahead", "corrupt", "just-now", "support"}, m.roleNames())
	require.Equal(t, []string{"clanmeeting/roles-delete-ended count=2 modified=true operation=roles-delete-ended path=roles/"}, m.events.take())
	require.Contains(t, m.log.String(), "deleted roles that ended: count=2")
	require.NoError(t, m.rollback())
	require.Empty(t, m.events.take())
}

// One run looks at a part of many roles, and the next one goes on.
func TestEndedRolesAreDeletedInParts(t *testing.T) {
	m := configured(t)
	m.mustWrite("config", map[string]any{fieldDeleteEndedRolesAfter: "1m"})
	r := m.issuanceOf("support").role.storedRole
	for i := range sweepRoles {
		require.NoError(t, store(t.Context(), m.storage, rolePath(fmt.Sprintf("a%06d", i)), r))
	}
	r.ValidUntil = testNow.Add(-time.Hour)
	for _, name := range []string{"a000000", "z1", "z2"} {
		require.NoError(t, store(t.Context(), m.storage, rolePath(name), r))
	}
	require.NoError(t, m.rollback())
	require.Len(t, m.roleNames(), sweepRoles-1+1+2)
	require.NoError(t, m.rollback())
	require.Len(t, m.roleNames(), sweepRoles-1+1)
	require.Zero(t, m.inside.swept, "and begins again")
}

// A role that got another end while it was looked at stays, and a fault stops nothing else.
func TestEndedRolesFaults(t *testing.T) {
	m := configured(t)
	m.mustWrite("config", map[string]any{fieldDeleteEndedRolesAfter: "1m"})
	for _, name := range []string{"a", "b", "c"} {
		m.mustWrite("roles/"+name, map[string]any{fieldAllowedRooms: "a", fieldValidUntil: testNow.Add(-time.Hour).Unix()})
	}
	reads := 0
	m.storage.failWith(func(verb, key string) error {
		if verb == "get" && key == "roles/a" {
			if reads++; reads == 2 { // somebody prolonged it after the first read, before it is locked
				r, err := loadRole(t.Context(), m.storage.Storage, "a")
				require.NoError(t, err)
				r.ValidUntil = testNow.Add(time.Hour)
				require.NoError(t, store(t.Context(), m.storage.Storage, "roles/a", r.storedRole))
			}
		}
		if verb == "delete" && key == "roles/b" {
			return errors.New("no disk")
		}
		return nil
	})
	require.ErrorContains(t, m.rollback(), "no disk")
	m.storage.failWith(nil)
	for _, left := range [][]any{{"a", "b", "c", "support"}, {"a", "b", "support"}, {"a", "support"}} {
		require.Equal(t, left, m.roleNames())
		require.NoError(t, m.rollback())
	}
	require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: "config", Value: []byte("{")}))
	require.ErrorContains(t, m.rollback(), `corrupt entry in storage: "config"`)
}
