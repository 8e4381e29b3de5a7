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
