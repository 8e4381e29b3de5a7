// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// countingView counts how often Vault is asked for the caller's identity.
type countingView struct {
	*logical.StaticSystemView
	entities, groups atomic.Int64
}

func (v *countingView) EntityInfo(id string) (*logical.Entity, error) {
	v.entities.Add(1)
	return v.StaticSystemView.EntityInfo(id)
}

func (v *countingView) GroupsForEntity(id string) ([]*logical.Group, error) {
	v.groups.Add(1)
	return v.StaticSystemView.GroupsForEntity(id)
}

// Vault is asked for the caller's identity only if there are templates, and once per
// batch.
func TestIdentityIsAskedForOnce(t *testing.T) {
	view := &countingView{StaticSystemView: &logical.StaticSystemView{
		EntityVal: &logical.Entity{ID: "e1", Name: "ann"}, GroupsVal: []*logical.Group{{ID: "g1", Name: "g"}},
	}}
	for _, test := range []struct {
		rules            []string
		name             string
		entities, groups int64
	}{
		{[]string{"support-*"}, "support-1", 0, 0},
		{[]string{"support-1", "{{identity.entity.name}}"}, "support-1", 0, 0},
		{[]string{"{{identity.entity.name}}", "{{identity.entity.id}}"}, "e1", 1, 0},
		{[]string{"{{identity.groups.names.g.id}}", "{{identity.entity.id}}"}, "e1", 1, 1},
		{[]string{"{{identity.groups.names.g.id}}", "{{identity.groups.names.g.name}}", "{{identity.entity.id}}"}, "e1", 1, 1},
	} {
		view.entities.Store(0)
		view.groups.Store(0)
		stored := newRole()
		stored.AllowedRooms, stored.AllowedRoomsTemplate = test.rules, true
		r, err := stored.compile()
		require.NoError(t, err)
		values := callerValues(view, "e1")
		i := &issuance{terms: terms{role: r, values: values, matcher: r.rules.Matcher(values), maxTTL: time.Hour, now: testNow}, backend: newTestMount(t).inside}
		_, _, err = i.decideAll(t.Context(), parsed(slices.Repeat([]any{map[string]any{fieldRoom: test.name}}, 100)))
		require.NoError(t, err)
		require.Equal(t, []int64{test.entities, test.groups}, []int64{view.entities.Load(), view.groups.Load()}, "%v", test.rules)
	}
}

// In OpenBao, the ID of an entity in a namespace ends with the namespace's ID.
func TestIDsWithANamespace(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/me", map[string]any{
		fieldAllowedRoomsTemplate: true, fieldDefaultRoom: "{{identity.entity.id}}",
		fieldAllowedRooms: "{{identity.entity.id}},g-{{identity.groups.names.g.id}},n-{{identity.groups.ids.0a1b.ns1.name}},m-{{identity.groups.ids.0a1b.metadata.x}}",
	})
	m.asEntity(&logical.Entity{ID: "4f5e-6d.ns1"}, &logical.Group{ID: "0a1b.ns1", Name: "g", Metadata: map[string]string{"x": "y"}})
	for _, name := range []string{"4f5e-6d", "g-0a1b", "n-g", "m-y"} {
		m.token("me", map[string]any{fieldRoom: name})
	}
	_, claims := m.token("me", nil)
	require.Equal(t, "4f5e-6d", claims["room"])
}

// asEntity makes the entity the caller of the mount's requests.
func (m *testMount) asEntity(entity *logical.Entity, groups ...*logical.Group) {
	m.system.EntityVal, m.system.GroupsVal, m.entityID = entity, groups, "entity-id"
}

func TestTemplates(t *testing.T) {
	m := configured(t)
	alice := &logical.Entity{
		ID:       "0b1c2d3e-aaaa",
		Name:     "Alice",
		Metadata: map[string]string{"team": "Blue_1", "empty": ""},
		Aliases: []*logical.Alias{{
			MountAccessor: "auth_userpass_1", Name: "al", Metadata: map[string]string{"desk": "d-7"}, CustomMetadata: map[string]string{"floor": "3"},
		}},
	}
	m.asEntity(alice, &logical.Group{ID: "g-1", Name: "support", Metadata: map[string]string{"room": "helpdesk"}})
	for _, test := range []struct{ rule, room, other string }{
		{"{{identity.entity.id}}", "0b1c2d3e-aaaa", "0b1c2d3e-aaaab"},
		{"{{identity.entity.name}}", "alice", "malice"},
		{"{{ identity.entity.name }}", "ALICE", "alices"},
		{"{{identity.entity.name}}-*", "alice-1", "alice1"},
		{"*-{{identity.entity.name}}", "x-alice", "x-alice-1"},
		{"Team-{{identity.entity.metadata.team}}", "team-blue_1", "team-blue_"},
		{"{{identity.entity.metadata.team}}-{{identity.entity.name}}-*", "blue_1-alice-", "blue_1-alice"},
		{"{{identity.entity.aliases.auth_userpass_1.name}}", "al", "all"},
		{"{{identity.entity.aliases.auth_userpass_1.metadata.desk}}", "d-7", "d-"},
		{"{{identity.entity.aliases.auth_userpass_1.custom_metadata.floor}}", "3", "33"},
		{"{{identity.groups.names.support.id}}", "g-1", "g-1-x"},
		{"{{identity.groups.names.support.metadata.room}}", "helpdesk", "helpdesks"},
		{"{{identity.groups.ids.g-1.name}}", "support", "support-1"},
	} {
		m.mustWrite("roles/me", map[string]any{fieldAllowedRoomsTemplate: true, fieldAllowedRooms: test.rule})
		_, claims := m.decide("me", map[string]any{fieldRoom: test.room})
		require.Equal(t, strings.ToLower(test.room), claims["room"], test.rule)
		require.Contains(t, m.refusal("me", map[string]any{fieldRoom: test.other}), "not allowed", test.rule)
		m.mustDelete("roles/me")
	}
}

func TestTemplatedDefaultRoom(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/me", map[string]any{
		fieldAllowedRoomsTemplate: true, fieldAllowedRooms: "{{identity.entity.name}}-*,lobby", fieldDefaultRoom: "{{identity.entity.name}}-main",
	})
	require.Equal(t, "room is required: this role's default_room is {{identity.entity.name}}-main, and your token has no identity entity; log in with an auth method to get one",
		m.refused(logical.ReadOperation, "creds/me", nil))
	m.asEntity(&logical.Entity{Name: "bob"})
	_, claims := m.token("me", nil)
	require.Equal(t, "bob-main", claims["room"])

	// The rendered room must be allowed.
	m.mustWrite("roles/me", map[string]any{fieldAllowedRooms: "alice-*,lobby"})
	require.Contains(t, m.refused(logical.ReadOperation, "creds/me", nil), `room "bob-main" is not allowed`)
	// Once templates are turned off, they stay off.
	require.Contains(t, m.refused(logical.UpdateOperation, "roles/me", map[string]any{fieldAllowedRoomsTemplate: false}), "default_room is a template")
	got := m.mustRead("roles/me", nil)
	require.Equal(t, true, got[fieldAllowedRoomsTemplate])
	require.Equal(t, "{{identity.entity.name}}-main", got[fieldDefaultRoom])
}

// An attacker who can edit their own metadata gets a literal name from it, never a
// pattern. That no value renders to one is a property that FuzzRules tests.
func TestTemplateValuesAreLiteral(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/team", map[string]any{fieldAllowedRoomsTemplate: true, fieldAllowedRooms: "team-{{identity.entity.metadata.team}},lobby"})
	m.mustWrite("roles/any", map[string]any{fieldAllowedRoomsTemplate: true, fieldAllowedRooms: "*,{{identity.entity.metadata.team}}"})
	for _, value := range []string{"", "*", "a*", "a,b", "{{identity.entity.name}}", "\u212a", "s3cr3t value"} {
		m.asEntity(&logical.Entity{Name: "eve", Metadata: map[string]string{"team": value}})
		for _, room := range []string{"team-", "team-*", "team-k", "team-eve", "team-" + value} {
			require.Contains(t, m.refusal("team", map[string]any{fieldRoom: room}), "room", "%q %q", value, room)
		}
		// The message does not show the value.
		require.Equal(t, `room "team-a" is not allowed by this role; the template team-{{identity.entity.metadata.team}} matches nothing: `+
			"your identity's value for it is not of a room's alphabet, "+room.Syntax, m.refusal("team", map[string]any{fieldRoom: "team-a"}))
		m.token("team", map[string]any{fieldRoom: "lobby"}) // the literal entries still match
		require.Contains(t, m.refusal("any", map[string]any{fieldRoom: "*"}), "not allowed", "no wildcard token")
	}
}

// Without a value, a template matches nothing.
func TestTemplatesFailClosed(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/me", map[string]any{
		fieldAllowedRoomsTemplate: true,
		fieldAllowedRooms:         "a-{{identity.entity.metadata.none}},b-{{identity.groups.names.other.name}},c-{{identity.entity.aliases.x.name}},d-{{identity.entity.name}}",
	})
	const noEntity, noValue = "your token has no identity entity", "your identity has no value for it; ask for one to be set in Vault"
	refusedWith := func(want string) {
		t.Helper()
		for _, room := range []string{"a-", "b-", "c-", "d-", "a-x", "b-other", "d-x"} {
			require.Contains(t, m.refusal("me", map[string]any{fieldRoom: room}), want, room)
		}
	}
	refusedWith(noEntity)
	m.asEntity(&logical.Entity{ID: "1"}, &logical.Group{ID: "2", Name: "mine"})
	refusedWith(noValue)
	m.system.EntityVal = nil // the entity no longer exists in Vault
	refusedWith(noEntity)
}

// absentView is a Vault that returns errors about identities.
type absentView struct{ *logical.StaticSystemView }

var errAbsent = errors.New("no answer")

func (absentView) EntityInfo(string) (*logical.Entity, error) { return nil, errAbsent }

// If Vault can't say who is calling, that is a fault, not a refusal.
func TestUnknownIdentityIsAFault(t *testing.T) {
	stored := newRole()
	stored.AllowedRoomsTemplate, stored.DefaultRoom = true, "{{identity.entity.name}}"
	stored.AllowedRooms = []string{"{{identity.entity.name}}", "other"}
	r, err := stored.compile()
	require.NoError(t, err)
	for _, name := range []string{"", "ann"} {
		values := callerValues(absentView{}, "e1")
		i := &terms{role: r, values: values, matcher: r.rules.Matcher(values)}
		_, _, err := i.grantRoom(name)
		require.ErrorIs(t, err, errAbsent)
		require.False(t, errors.As(err, new(*invalidError)))
	}
}

// A key of a group's metadata may be called as an accessor is. In OpenBao, a namespace's ID
// may stand before it.
func TestGroupMetadata(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/me", map[string]any{
		fieldAllowedRoomsTemplate: true,
		fieldAllowedRooms: "a-{{identity.groups.ids.g1.metadata.name}},b-{{identity.groups.ids.g1.metadata.id}},c-{{identity.groups.ids.g1.name}}," +
			"d-{{identity.groups.ids.g1.ns1.metadata.name}},e-{{identity.groups.ids.g1.metadata.metadata.x}},f-{{identity.groups.names.n1.metadata.id}}",
	})
	m.asEntity(&logical.Entity{ID: "e1"}, &logical.Group{ID: "g0", Name: "n0"},
		&logical.Group{ID: "g1", Name: "n1", Metadata: map[string]string{"name": "red", "id": "7", "metadata.x": "deep"}})
	for name, allowed := range map[string]bool{
		"a-red": true, "b-7": true, "c-n1": true, "d-red": true, "e-deep": true, "f-7": true, "a-n1": false, "b-g1": false,
	} {
		require.Equal(t, allowed, m.mustRead("check/me", map[string]any{fieldRoom: name})[fieldAllowed], name)
	}
}
