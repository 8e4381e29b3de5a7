// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// asEntity makes the entity the caller of the mount's requests.
func (m *testMount) asEntity(entity *logical.Entity, groups ...*logical.Group) {
	m.system.EntityVal, m.system.GroupsVal, m.entityID = entity, groups, "entity-id"
}

// Vault is asked for the caller's identity only if a template needs it, and once per batch.
// If it can't say who is calling, that is a fault, not a refusal.
func TestIdentityIsAskedForOnce(t *testing.T) {
	m := configured(t)
	m.asEntity(&logical.Entity{ID: "e1", Name: "ann"}, &logical.Group{ID: "g1", Name: "g"})
	for rules, asked := range map[string][]string{
		"e*":                          nil,
		"e1,{{identity.entity.name}}": nil,
		"{{identity.entity.name}},{{identity.entity.id}}":                                        {"entity"},
		"{{identity.groups.names.g.id}},{{identity.groups.names.g.name}},{{identity.entity.id}}": {"entity", "groups"},
	} {
		m.mustWrite("roles/me", map[string]any{
			fieldAllowedRoomsTemplate: true, fieldAllowedRooms: rules, fieldDefaultRoom: "{{identity.groups.names.g.id}}",
		})
		m.system.asked = nil
		m.mustWrite("creds/me", map[string]any{fieldBatchInput: slices.Repeat([]any{map[string]any{fieldRoom: "e1"}}, 9)})
		require.Equal(t, asked, m.system.asked, rules)
		for _, silent := range asked {
			m.system.silent = silent
			for _, request := range []map[string]any{{fieldRoom: "e1"}, {}} {
				_, err := m.call(logical.ReadOperation, "creds/me", request)
				require.ErrorContains(t, err, "asking Vault for the caller's "+silent)
			}
		}
		m.system.silent = ""
	}
}

// In OpenBao, the ID of an entity or a group in a namespace ends with the namespace's ID. A
// key of a group's metadata may be called as an accessor is.
func TestTemplates(t *testing.T) {
	m := configured(t)
	m.asEntity(
		&logical.Entity{
			ID: "0b1c2d3e-aaaa.ns1", Name: "Alice", Metadata: map[string]string{"team": "Blue_1"},
			Aliases: []*logical.Alias{{
				MountAccessor: "auth_userpass_1", Name: "al",
				Metadata: map[string]string{"desk": "d-7"}, CustomMetadata: map[string]string{"floor": "3"},
			}},
		},
		&logical.Group{ID: "g-0", Name: "other"},
		&logical.Group{ID: "g-1.ns1", Name: "support", Metadata: map[string]string{
			"room": "helpdesk", "name": "red", "id": "7", "metadata.x": "deep",
		}},
		&logical.Group{ID: "g-2", Name: "support"}, // the first counts, as in Vault
	)
	for rule, room := range map[string]string{
		"{{identity.entity.id}}":                                            "0b1c2d3e-aaaa",
		"{{identity.entity.name}}":                                          "alice",
		"{{ identity.entity.name }}-*":                                      "ALICE-1",
		"Team-{{identity.entity.metadata.team}}-{{identity.entity.name}}":   "team-blue_1-alice",
		"{{identity.entity.aliases.auth_userpass_1.name}}":                  "al",
		"{{identity.entity.aliases.auth_userpass_1.metadata.desk}}":         "d-7",
		"{{identity.entity.aliases.auth_userpass_1.custom_metadata.floor}}": "3",
		"{{identity.groups.names.support.id}}":                              "g-1",
		"{{identity.groups.names.support.metadata.id}}":                     "7",
		"{{identity.groups.names.support.metadata.room}}":                   "helpdesk",
		"{{identity.groups.ids.g-1.name}}":                                  "support",
		"{{identity.groups.ids.g-1.ns1.name}}":                              "support",
		"{{identity.groups.ids.g-1.metadata.id}}":                           "7",
		"{{identity.groups.ids.g-1.metadata.name}}":                         "red",
		"{{identity.groups.ids.g-1.ns1.metadata.name}}":                     "red",
		"{{identity.groups.ids.g-1.metadata.metadata.x}}":                   "deep",
	} {
		m.mustWrite("roles/me", map[string]any{fieldAllowedRoomsTemplate: true, fieldAllowedRooms: rule})
		resp, claims := m.decide("me", map[string]any{fieldRoom: room})
		require.NoError(t, resp.Error(), rule)
		require.Equal(t, strings.ToLower(room), claims["room"], rule)
	}
}

// Without a value, a template matches nothing, and is no default room.
func TestTemplatesFailClosed(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/me", map[string]any{
		fieldAllowedRoomsTemplate: true, fieldDefaultRoom: "{{identity.entity.name}}-main",
		fieldAllowedRooms: "a-{{identity.entity.metadata.none}},b-{{identity.groups.names.other.name}},c-{{identity.entity.aliases.x.name}}," +
			"{{identity.entity.name}}-*",
	})
	refusedWith := func(want string) {
		t.Helper()
		require.Equal(t, "room is required: this role's default_room is {{identity.entity.name}}-main, and "+want,
			m.refusal("me", map[string]any{}))
		for _, room := range []string{"a-", "b-", "c-", "-x", "b-other"} {
			require.Contains(t, m.refusal("me", map[string]any{fieldRoom: room}), want, room)
		}
	}
	const noEntity = "your token has no identity entity; log in with an auth method to get one"
	refusedWith(noEntity)
	m.asEntity(&logical.Entity{ID: "1"}, &logical.Group{ID: "2", Name: "mine"})
	refusedWith("your identity has no value for it; ask for one to be set in Vault")
	m.asEntity(nil) // it no longer exists in Vault
	refusedWith(noEntity)

	// Somebody may edit the values of their own identity. None becomes a part of the rule.
	for _, value := range []string{"*", "a*", "a-b,*", "{{identity.entity.id}}", "\u212a"} {
		m.asEntity(&logical.Entity{ID: "x", Name: value})
		for _, room := range []string{"a-b", "x-y", "k-1", "*"} {
			require.NotContains(t, m.refusal("me", map[string]any{fieldRoom: room}), value+"-", room)
		}
		require.Contains(t, m.refusal("me", map[string]any{}), "your identity's value for it is not of a room's alphabet")
	}

	// With a value, the default room must be allowed, too.
	m.asEntity(&logical.Entity{Name: "bob"})
	_, claims := m.token("me", nil)
	require.Equal(t, "bob-main", claims["room"])
	m.mustWrite("roles/me", map[string]any{fieldAllowedRooms: "alice-*,lobby"})
	require.Contains(t, m.refusal("me", map[string]any{}), `room "bob-main" is not allowed`)
}
