// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestCheckAnswers(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/mixed", map[string]any{
		fieldAllowedRooms: "lobby,Team-{{identity.entity.name}},support-*", fieldAllowedRoomsTemplate: true, fieldAllowWildcardRoom: true,
	})
	m.asEntity(&logical.Entity{Name: "alice"})
	for room, rule := range map[string]string{
		"Lobby": "lobby", "team-alice": "team-{{identity.entity.name}}", "support-1": "support-*", "*": "allow_wildcard_room",
	} {
		for _, op := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation} {
			resp := m.must(m.call(op, "check/mixed", map[string]any{fieldRoom: room, fieldTTL: "1m"}))
			require.Equal(t, map[string]any{
				fieldAllowed:     true,
				fieldMatchedRule: rule,
				fieldClaims: map[string]any{
					"aud": "clanmeeting", "context": map[string]any{}, "iss": "production", "sub": "acme", "room": strings.ToLower(room),
					"nbf": float64(testNow.Unix() - 30), "exp": float64(testNow.Unix() + 60),
				},
			}, resp.Data)
		}
	}
	resp := m.must(m.call(logical.ReadOperation, "check/mixed", map[string]any{fieldRoom: "lobby", fieldTTL: "10h"}))
	require.Len(t, resp.Warnings, 1)
	require.Contains(t, resp.Warnings[0], "capped")

	require.Equal(t, `role "nobody" not found`, m.refused(logical.ReadOperation, "check/nobody", nil))
	m.mustDelete("config")
	require.Equal(t, map[string]any{
		fieldAllowed: false, fieldReason: "this mount is not configured; write consumer_id and private_key to clanmeeting/config",
	}, m.mustRead("check/mixed", map[string]any{fieldRoom: "lobby"}))
}

// For a batch, check says whether creds would give all of it, in creds' own words.
func TestCheckOfABatch(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/leased", map[string]any{fieldAllowedRooms: "*", fieldGenerateLease: true})
	m.mustWrite("roles/lobby", map[string]any{fieldAllowedRooms: "*", fieldAllowWildcardRoom: true, fieldDefaultRoom: "*", fieldMaxTTL: "10m"})
	writes := m.storage.written()
	for _, test := range []struct {
		role string
		data map[string]any
	}{
		{"support", map[string]any{fieldBatchInput: manyItems(3)}},
		{"lobby", map[string]any{fieldBatchInput: []any{map[string]any{fieldTTL: "1h"}, map[string]any{}}}},
		{"support", map[string]any{fieldBatchInput: []any{map[string]any{fieldRoom: "billing"}, map[string]any{fieldRoom: ""}}}},
		{"lobby", map[string]any{fieldBatchInput: []any{map[string]any{fieldRoom: ""}}}},
		{"support", map[string]any{fieldBatchInput: []any{}}},
		{"support", map[string]any{fieldBatchInput: "support-1"}},
		{"support", map[string]any{fieldBatchInput: manyItems(1), fieldRoom: "support-1"}},
		{"leased", map[string]any{fieldBatchInput: manyItems(1)}},
	} {
		got, err := m.call(logical.UpdateOperation, "creds/"+test.role, test.data)
		require.NoError(t, err)
		checked := m.mustWrite("check/"+test.role, test.data)
		want := map[string]any{fieldAllowed: true}
		if got.IsError() {
			want = map[string]any{fieldAllowed: false, fieldReason: got.Error().Error()}
		}
		require.Equal(t, want, checked.Data, "%v", test)
		if !got.IsError() {
			require.Equal(t, got.Warnings, checked.Warnings)
		}
	}
	require.Contains(t, m.mustRead("check/support", map[string]any{fieldBatchInput: manyItems(1)})[fieldReason], "needs a write")
	require.Contains(t, m.refused(logical.UpdateOperation, "check/nobody", map[string]any{fieldBatchInput: manyItems(1)}), `role "nobody" not found`)
	require.Equal(t, writes, m.storage.written())
}
