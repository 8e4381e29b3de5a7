// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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
		items := make([]any, 100)
		for i := range items {
			items[i] = map[string]any{fieldRoom: test.name}
		}
		_, _, err = i.decideAll(t.Context(), parsed(items))
		require.NoError(t, err)
		require.Equal(t, []int64{test.entities, test.groups}, []int64{view.entities.Load(), view.groups.Load()}, "%v", test.rules)
	}
}

// asEntity makes the entity the caller of the mount's requests.
func (m *testMount) asEntity(entity *logical.Entity, groups ...*logical.Group) {
	m.system.EntityVal, m.system.GroupsVal, m.entityID = entity, groups, "entity-id"
}

// In OpenBao, the ID of an entity or a group in a namespace ends with the namespace's ID. A key of
// a group's metadata may be called as what else can be asked of a group.
func TestTemplates(t *testing.T) {
	m := configured(t)
	m.asEntity(&logical.Entity{
		ID: "0b1c2d3e-aaaa.ns1", Name: "Alice", Metadata: map[string]string{"team": "Blue_1"},
		Aliases: []*logical.Alias{{
			MountAccessor: "auth_userpass_1", Name: "al", Metadata: map[string]string{"desk": "d-7"}, CustomMetadata: map[string]string{"floor": "3"},
		}},
	}, &logical.Group{ID: "g-0", Name: "other"}, &logical.Group{ID: "g-1.ns1", Name: "support", Metadata: map[string]string{"name": "red", "id": "7", "metadata.x": "deep"}},
		&logical.Group{ID: "g-2", Name: "support"})
	for _, test := range []struct{ rule, room string }{
		{"{{identity.entity.id}}", "0b1c2d3e-aaaa"},
		{"{{ identity.entity.name }}", "ALICE"},
		{"{{identity.entity.name}}-*", "alice-"},
		{"*-{{identity.entity.name}}", "-alice"},
		{"Team-{{identity.entity.metadata.team}}", "team-blue_1"},
		{"{{identity.entity.metadata.team}}-{{identity.entity.name}}-*", "blue_1-alice-"},
		{"{{identity.entity.aliases.auth_userpass_1.name}}", "al"},
		{"{{identity.entity.aliases.auth_userpass_1.metadata.desk}}", "d-7"},
		{"{{identity.entity.aliases.auth_userpass_1.custom_metadata.floor}}", "3"},
		{"{{identity.groups.names.support.id}}", "g-1"}, // of two with one name the first
		{"{{identity.groups.names.support.metadata.id}}", "7"},
		{"{{identity.groups.ids.g-1.name}}", "support"},
		{"{{identity.groups.ids.g-1.ns1.name}}", "support"},
		{"{{identity.groups.ids.g-1.metadata.name}}", "red"},
		{"{{identity.groups.ids.g-1.ns1.metadata.name}}", "red"},
		{"{{identity.groups.ids.g-1.metadata.id}}", "7"},
		{"{{identity.groups.ids.g-1.metadata.metadata.x}}", "deep"},
	} {
		m.mustWrite("roles/me", map[string]any{fieldAllowedRoomsTemplate: true, fieldAllowedRooms: test.rule, fieldDefaultRoom: ""})
		_, claims := m.token("me", map[string]any{fieldRoom: test.room})
		require.Equal(t, strings.ToLower(test.room), claims["room"], test.rule)
		before, after := map[string]any{fieldRoom: "zz" + test.room}, map[string]any{fieldRoom: test.room + "zz"}
		require.Equal(t, strings.HasPrefix(test.rule, "*"), m.mustRead("check/me", before)[fieldAllowed], test.rule)
		require.Equal(t, strings.HasSuffix(test.rule, "*"), m.mustRead("check/me", after)[fieldAllowed], test.rule)
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
// pattern.
func TestTemplateValuesAreLiteral(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/team", map[string]any{fieldAllowedRoomsTemplate: true, fieldAllowedRooms: "team-{{identity.entity.metadata.team}},lobby"})
	m.mustWrite("roles/bare", map[string]any{fieldAllowedRoomsTemplate: true, fieldAllowedRooms: "{{identity.entity.metadata.team}},lobby"})
	for _, value := range []string{
		"", "*", "a*", "*,x", "a,b", "a b", " a", "a\n", "a\x00", "{{identity.entity.name}}", "{a}", "}}", "a.b", "é", "\u212a", "a/b", strings.Repeat("a", 256), "%2a", "?", "[a-z]",
	} {
		m.asEntity(&logical.Entity{Name: "eve", Metadata: map[string]string{"team": value}})
		for _, room := range []string{"team-a", "team-", "team-*", "team-x", "a", "b", "x", "k", "team-k", "team-" + strings.ToLower(value), "team-eve", "eve", strings.ToLower(value)} {
			for _, role := range []string{"team", "bare"} {
				require.Contains(t, m.refused(logical.ReadOperation, "creds/"+role, map[string]any{fieldRoom: room}), "room", "%q %q", value, room)
			}
		}
		// Literal entries of the same role still match.
		m.token("team", map[string]any{fieldRoom: "lobby"})
		require.Contains(t, m.refused(logical.ReadOperation, "creds/team", map[string]any{fieldRoom: "team-a"}),
			`room "team-a" is not allowed by this role; the template team-{{identity.entity.metadata.team}} matches nothing: your identity's value for it is not of a room's alphabet`)
	}
	m.asEntity(&logical.Entity{Metadata: map[string]string{"team": "s3cr3t value"}})
	require.NotContains(t, m.refused(logical.ReadOperation, "creds/team", map[string]any{fieldRoom: "team-a"}), "s3cr3t")

	// A value of "*" gives no wildcard token, whatever the globs say.
	m.mustWrite("roles/any", map[string]any{fieldAllowedRoomsTemplate: true, fieldAllowedRooms: "*,{{identity.entity.metadata.team}}"})
	m.asEntity(&logical.Entity{Metadata: map[string]string{"team": "*"}})
	require.Contains(t, m.refused(logical.ReadOperation, "creds/any", map[string]any{fieldRoom: "*"}), "not allowed")
}

func TestTemplatesFailClosed(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/me", map[string]any{
		fieldAllowedRoomsTemplate: true,
		fieldAllowedRooms:         "a-{{identity.entity.metadata.none}},b-{{identity.groups.names.other.name}},c-{{identity.entity.aliases.x.name}},d-{{identity.entity.name}}",
	})
	rooms := []string{"a-", "b-", "c-", "d-", "a-x", "b-other", "{{identity.entity.name}}", "d-{{identity.entity.name}}"}
	for _, room := range rooms {
		require.Contains(t, m.refused(logical.ReadOperation, "creds/me", map[string]any{fieldRoom: room}), "room")
	}
	require.Contains(t, m.refused(logical.ReadOperation, "creds/me", map[string]any{fieldRoom: "d-x"}), "your token has no identity entity")
	m.asEntity(&logical.Entity{ID: "1"}, &logical.Group{ID: "2", Name: "mine"})
	for _, room := range rooms {
		require.Contains(t, m.refused(logical.ReadOperation, "creds/me", map[string]any{fieldRoom: room}), "room")
	}
	require.Contains(t, m.refused(logical.ReadOperation, "creds/me", map[string]any{fieldRoom: "d-x"}), "your identity has no value for it; ask for one to be set in Vault")
	// The entity no longer exists in Vault.
	m.system.EntityVal = nil
	require.Contains(t, m.refused(logical.ReadOperation, "creds/me", map[string]any{fieldRoom: "d-x"}), "your token has no identity entity")
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
		_, _, err := i.grantRoom(t.Context(), name)
		require.ErrorIs(t, err, errAbsent)
		require.False(t, errors.As(err, new(*invalidError)))
	}
}
