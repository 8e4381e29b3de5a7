// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// That check agrees with creds, decide tests with each request.
func TestCheckAnswers(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/mixed", map[string]any{
		fieldAllowedRooms: "lobby,Team-{{identity.entity.name}},support-*", fieldAllowedRoomsTemplate: true, fieldAllowWildcardRoom: true,
	})
	m.asEntity(&logical.Entity{Name: "alice"})
	for room, rule := range map[string]string{
		"Lobby": "lobby", "team-alice": "team-{{identity.entity.name}}", "support-1": "support-*", "*": "allow_wildcard_room",
	} {
		require.Equal(t, rule, m.mustRead("check/mixed", map[string]any{fieldRoom: room})[fieldMatchedRule])
	}
	m.mustDelete("config")
	require.Equal(t, map[string]any{
		fieldAllowed: false, fieldReason: "this mount is not configured; write consumer_id and private_key to clanmeeting/config",
	}, m.mustRead("check/mixed", map[string]any{fieldRoom: "lobby"}))
}
