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

// ended writes a role whose window closed some time ago.
func (m *testMount) ended(name string, ago time.Duration) {
	m.mustWrite("roles/"+name, map[string]any{fieldAllowedRooms: "a", fieldValidUntil: testNow.Add(-ago).Unix()})
}

func TestEndedRolesAreDeleted(t *testing.T) {
	m := configured(t)
	m.ended("a", 24*time.Hour)
	m.ended("b", 25*time.Hour)
	m.ended("lately", 23*time.Hour)
	m.put("roles/corrupt", "{")
	all := []any{"a", "b", "corrupt", "lately", "support"}
	require.NoError(t, m.rollback())
	require.Equal(t, all, m.roleNames(), "never, by default")

	m.mustWrite("config", map[string]any{fieldDeleteEndedRolesAfter: "24h"})
	require.EqualValues(t, 86400, m.mustRead("config", nil)[fieldDeleteEndedRolesAfter])
	m.events.take()
	for _, state := range []consts.ReplicationState{
		consts.ReplicationPerformanceStandby, consts.ReplicationPerformanceSecondary, consts.ReplicationPerformancePrimary,
	} {
		require.Equal(t, all, m.roleNames(), "only the active node of the primary deletes")
		m.system.ReplicationStateVal = state
		m.advance(2 * systemLife)
		require.NoError(t, m.rollback())
	}
	require.Equal(t, []any{"corrupt", "lately", "support"}, m.roleNames())
	require.NoError(t, m.rollback())
	require.Equal(t, []string{"clanmeeting/roles-delete-ended count=2 modified=true operation=roles-delete-ended path=roles/"}, m.events.take())
	require.Contains(t, m.log.String(), "deleted roles that ended: count=2")
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
		m.ended(name, time.Hour)
	}
	reads := 0
	m.storage.failWith(func(verb, key string) error {
		switch verb + " " + key {
		case "get roles/a":
			if reads++; reads == 2 { // somebody prolonged it after the first read, before it is locked
				r := newRole()
				r.AllowedRooms = []string{"a"}
				return store(t.Context(), m.storage.Storage, key, r)
			}
		case "delete roles/b":
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

	// Each run reads storage, which also keeps the plugin's connection to Vault open.
	m.storage.failWith(func(string, string) error { return errors.New("no disk") })
	require.ErrorContains(t, m.rollback(), `reading "config" from storage: no disk`)
}
