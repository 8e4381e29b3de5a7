// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func roleDefaults(changes map[string]any) map[string]any {
	role := map[string]any{
		fieldAllowedRooms:         []any{"support-*"},
		fieldAllowedRoomsTemplate: false,
		fieldDefaultRoom:          "",
		fieldAllowWildcardRoom:    false,
		fieldTTL:                  float64(900),
		fieldMaxTTL:               float64(3600),
		fieldNotBeforeDuration:    float64(30),
		fieldMaxNotBefore:         float64(0),
		fieldGenerateLease:        false,
		fieldValidFrom:            "",
		fieldValidUntil:           "",
	}
	maps.Copy(role, changes)
	return role
}

func TestRoleRoundTrip(t *testing.T) {
	m := newTestMount(t)
	for name, test := range map[string]struct{ write, read map[string]any }{
		"defaults":   {map[string]any{fieldAllowedRooms: "support-*"}, nil},
		"list":       {map[string]any{fieldAllowedRooms: []any{"a", "b-*"}}, map[string]any{fieldAllowedRooms: []any{"a", "b-*"}}},
		"numbers":    {map[string]any{fieldAllowedRooms: []any{4711, "b"}, fieldDefaultRoom: 4711}, map[string]any{fieldAllowedRooms: []any{"4711", "b"}, fieldDefaultRoom: "4711"}},
		"commas":     {map[string]any{fieldAllowedRooms: "b-*, a"}, map[string]any{fieldAllowedRooms: []any{"b-*", "a"}}},
		"upper case": {map[string]any{fieldAllowedRooms: "Sales-*", fieldDefaultRoom: "SALES-1"}, map[string]any{fieldAllowedRooms: []any{"sales-*"}, fieldDefaultRoom: "sales-1"}},
		"wildcard default": {
			map[string]any{fieldAllowWildcardRoom: true, fieldDefaultRoom: "*"},
			map[string]any{fieldAllowedRooms: []any{}, fieldAllowWildcardRoom: true, fieldDefaultRoom: "*"},
		},
		"durations as text": {
			map[string]any{fieldAllowedRooms: "support-*", fieldTTL: "5m", fieldMaxTTL: "2h", fieldNotBeforeDuration: "0", fieldMaxNotBefore: "7d"},
			map[string]any{fieldTTL: float64(300), fieldMaxTTL: float64(7200), fieldNotBeforeDuration: float64(0), fieldMaxNotBefore: float64(604800)},
		},
		"zero is the default": {map[string]any{fieldAllowedRooms: "support-*", fieldTTL: 0, fieldMaxTTL: "0s"}, nil},
		"lease":               {map[string]any{fieldAllowedRooms: "support-*", fieldGenerateLease: true}, map[string]any{fieldGenerateLease: true}},
	} {
		path := "roles/" + strings.ReplaceAll(name, " ", "-")
		m.mustWrite(path, test.write)
		require.Equal(t, roleDefaults(test.read), m.mustRead(path, nil), name)
	}
}

func TestRoleRefusals(t *testing.T) {
	m := newTestMount(t)
	for name, test := range map[string]struct {
		data map[string]any
		want string
	}{
		"nothing":             {map[string]any{}, "a role must allow something"},
		"empty entry":         {map[string]any{fieldAllowedRooms: "a,,b"}, "entry 2 of allowed_rooms"},
		"template":            {map[string]any{fieldAllowedRooms: "{{identity.entity.name}}"}, "entry 1 of allowed_rooms is a template; set allowed_rooms_template=true too"},
		"template as default": {map[string]any{fieldAllowedRooms: "a", fieldDefaultRoom: "{{identity.entity.name}}"}, "default_room is a template; set allowed_rooms_template=true too"},
		"no directive":        {map[string]any{fieldAllowedRooms: "{{identity.entity.nmae}}", fieldAllowedRoomsTemplate: true}, "entry 1 of allowed_rooms has a template that is unknown"},
		"default * beside it": {map[string]any{fieldAllowedRooms: "{{identity.entity.name}}", fieldAllowedRoomsTemplate: true, fieldDefaultRoom: "*"}, "default_room must itself be allowed"},
		"default not allowed": {map[string]any{fieldAllowedRooms: "a-*", fieldDefaultRoom: "b"}, "default_room must itself be allowed"},
		"default, no name":    {map[string]any{fieldAllowedRooms: "a-*", fieldDefaultRoom: "a b"}, "default_room must be one room name"},
		"default is a glob":   {map[string]any{fieldAllowedRooms: "a-*", fieldDefaultRoom: "a-*"}, "default_room must be one room name"},
		"ttl over max":        {map[string]any{fieldAllowedRooms: "a", fieldTTL: "2h"}, "ttl of 2h0m0s is over max_ttl of 1h0m0s"},
		"two wrong types":     {map[string]any{fieldTTL: "x", fieldDefaultRoom: []any{"a"}}, "default_room must be one string; ttl must be in whole seconds"},
		"every problem told":  {map[string]any{fieldAllowedRooms: "a.b", fieldTTL: "2h"}, `for any part of a name; ttl of 2h0m0s is over`},
	} {
		require.Contains(t, m.refused(logical.UpdateOperation, "roles/bad", test.data), test.want, name)
	}
	require.Zero(t, m.storage.written(), "a refused write must write nothing")
}

func TestRoleUpdateKeepsTheRest(t *testing.T) {
	m := newTestMount(t)
	m.mustWrite("roles/a", map[string]any{fieldAllowedRooms: "support-*", fieldTTL: "5m", fieldDefaultRoom: "support-1", fieldMaxNotBefore: "1h"})
	m.mustWrite("roles/a", map[string]any{fieldMaxTTL: "30m"})
	require.Equal(t, roleDefaults(map[string]any{
		fieldTTL: float64(300), fieldMaxTTL: float64(1800), fieldDefaultRoom: "support-1", fieldMaxNotBefore: float64(3600),
	}), m.mustRead("roles/a", nil))

	// An update is checked together with the rest of the role.
	require.Contains(t, m.refused(logical.UpdateOperation, "roles/a", map[string]any{fieldAllowedRooms: "sales-*"}), "default_room must itself be allowed")
	m.mustWrite("roles/a", map[string]any{fieldAllowedRooms: "sales-*", fieldDefaultRoom: ""})
}

func TestRoleWarnings(t *testing.T) {
	m := newTestMount(t)
	m.system.MaxLeaseTTLVal = 48 * time.Hour
	far := testNow.Add(longMaxNotBefore).Unix()
	require.Nil(t, m.mustWrite("roles/a", map[string]any{fieldAllowedRooms: "a", fieldMaxTTL: "24h", fieldMaxNotBefore: "90d", fieldValidFrom: far}))
	for want, data := range map[string]map[string]any{
		"allow_wildcard_room lets this role issue":                             {fieldAllowWildcardRoom: true},
		"max_ttl of 24h0m1s is over 24h0m0s":                                   {fieldMaxTTL: 86401},
		"max_ttl of 48h0m1s is over the mount's maximum of 48h0m0s, so tokens": {fieldMaxTTL: 172801},
		"max_not_before of 2160h0m1s is over 90 days: a scheduled token stops": {fieldMaxNotBefore: 7776001},
		"valid_from is more than 90 days ahead: a token for that time stops":   {fieldValidFrom: far + 1},
	} {
		data[fieldAllowedRooms] = "a"
		require.Contains(t, strings.Join(m.mustWrite("roles/b", data).Warnings, "\n"), want)
		m.mustDelete("roles/b")
	}
}

func TestRoleListAndDelete(t *testing.T) {
	m := newTestMount(t)
	resp := m.must(m.call(logical.ListOperation, "roles/", nil))
	require.Empty(t, resp.Data["keys"], "Vault answers an empty list with 404")
	for _, name := range []string{"b", "c.d-e_f", "a"} {
		m.mustWrite("roles/"+name, map[string]any{fieldAllowedRooms: "x"})
	}
	resp = m.must(m.call(logical.ListOperation, "roles/", nil))
	require.Equal(t, []any{"a", "b", "c.d-e_f"}, resp.Data["keys"])

	m.mustDelete("roles/b")
	m.mustDelete("roles/b")
	resp = m.must(m.call(logical.ListOperation, "roles", nil))
	require.Equal(t, []any{"a", "c.d-e_f"}, resp.Data["keys"])
	read, err := m.call(logical.ReadOperation, "roles/b", nil)
	require.NoError(t, err)
	require.Nil(t, read, "Vault answers nil with 404")
}

func TestWindowRoundTrip(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/event", map[string]any{fieldAllowedRooms: "a"})
	window := func() []any {
		role := m.mustRead("roles/event", nil)
		return []any{role[fieldValidFrom], role[fieldValidUntil]}
	}
	require.Equal(t, []any{"", ""}, window())
	for _, from := range []any{testNow.Unix(), at(0), "2030-01-31T11:00:00+02:00"} {
		require.Nil(t, m.mustWrite("roles/event", map[string]any{fieldValidFrom: from, fieldValidUntil: testNow.Unix() + 60}))
		require.Equal(t, []any{at(0), at(60)}, window(), "%v", from)
	}
	m.mustWrite("roles/event", m.mustRead("roles/event", nil)) // what is read can be written
	require.Equal(t, []any{at(0), at(60)}, window())
	m.mustWrite("roles/event", map[string]any{fieldTTL: "1m", fieldValidFrom: nil})
	require.Equal(t, []any{at(0), at(60)}, window(), "an update keeps the rest")
	m.mustWrite("roles/event", map[string]any{fieldValidFrom: "", fieldValidUntil: ""})
	require.Equal(t, []any{"", ""}, window())
	m.mustWrite("roles/event", map[string]any{fieldValidFrom: at(60), fieldValidUntil: at(120)})
	for want, data := range map[string]map[string]any{
		"valid_until must be after valid_from":  {fieldValidUntil: at(60)},
		"valid_until must be after valid_from ": {fieldValidFrom: at(120)},
		"valid_from must be RFC 3339, like 2030-01-31T09:00:00Z, or whole seconds since the epoch; an empty value removes it": {fieldValidFrom: "soon"},
		"valid_until seems to be in milliseconds; give it in seconds since the epoch":                                         {fieldValidUntil: testNow.UnixMilli()},
		"valid_from must be after 0001-01-01T00:00:00Z and, in UTC, before the year 10000":                                    {fieldValidFrom: "9999-12-31T23:59:59-23:59"},
		"valid_from must be one string": {fieldValidFrom: true},
	} {
		require.Contains(t, m.refused(logical.UpdateOperation, "roles/event", data)+" ", want)
		require.Equal(t, []any{at(60), at(120)}, window())
	}
	m.mustWrite("roles/event", map[string]any{fieldValidFrom: at(120), fieldValidUntil: at(180)}) // both move at once
	require.Equal(t, []string{"valid_until, 2030-01-31T09:00:00Z, is in the past: this role gives no tokens"},
		m.mustWrite("roles/event", map[string]any{fieldValidFrom: "", fieldValidUntil: at(0)}).Warnings)
}

// A stored role with a fraction of a second is corrupt.
func TestRoleInWholeSeconds(t *testing.T) {
	t.Parallel()
	stored := newRole()
	stored.AllowWildcardRoom = true
	_, err := stored.compile()
	require.NoError(t, err)
	stored.NotBeforeDuration += time.Millisecond
	_, err = stored.compile()
	require.ErrorContains(t, err, "not_before_duration must be in whole seconds")
}

func longTemplate(n int) string {
	return "{{identity.entity.metadata." + strings.Repeat("k", n-29) + "}}"
}

// The limits of rules are those of the package room. default_room is a rule too.
func TestLimitsOfARole(t *testing.T) {
	m := configured(t)
	long := longTemplate(room.MaxRuleLength)
	role := map[string]any{fieldAllowedRooms: []any{long}, fieldAllowedRoomsTemplate: true, fieldDefaultRoom: long}
	m.mustWrite("roles/most", role)
	role[fieldDefaultRoom] = longTemplate(room.MaxRuleLength + 1)
	message := m.refused(logical.UpdateOperation, "roles/over", role)
	require.Contains(t, message, "default_room is longer than 1024 characters: {{identity.entity.metadata.kkk")
	require.Less(t, len(message), 300)
	role[fieldAllowedRooms] = slices.Repeat([]any{"a"}, room.MaxRules+1)
	require.Contains(t, m.refused(logical.UpdateOperation, "roles/over", role), "allowed_rooms has 2001 entries; 2000 are allowed")
}

// A name may have 255 characters. Storage would fail at some greater length.
func TestLengthOfARoleName(t *testing.T) {
	m := configured(t)
	longest := strings.Repeat("n", maxRoleName)
	m.mustWrite("roles/"+longest, map[string]any{fieldAllowedRooms: "a"})
	m.mustRead("creds/"+longest, map[string]any{fieldRoom: "a"})
	m.mustDelete("roles/" + longest)
	m.storage.failWith(func(string, string) error { return errors.New("asked for a name that is too long") })
	for _, length := range []int{maxRoleName + 1, 32_720, 100_000} {
		name := strings.Repeat("n", length)
		want := `the name of a role must have at most 255 characters; this one begins with "` + strings.Repeat("n", 80) + `…"`
		for _, path := range []string{"roles/", "creds/", "check/"} {
			for op := range m.inside.Route(path + "x").Operations {
				require.Equal(t, want, m.refused(op, path+name, map[string]any{fieldAllowedRooms: "a", fieldBatchInput: manyItems(1)}), "%s %s", op, path)
			}
		}
	}
	require.NotContains(t, m.log.String(), "nnnn")
}

// A value from a file ends with a line end, which nobody sees.
func TestLineEndsAreNamed(t *testing.T) {
	m := configured(t)
	for _, end := range []string{"\n", "\r\n"} {
		require.Contains(t, m.refusal("support", map[string]any{fieldRoom: "support-1" + end}), "the value ends with a line end")
		for field, path := range map[string]string{
			fieldDefaultRoom: "roles/support", fieldRoom: "verify", fieldDomain: "config", fieldConsumerID: "config", fieldIssuer: "config", fieldAudience: "config",
		} {
			message := m.refused(logical.UpdateOperation, path, map[string]any{fieldToken: "x", field: "a" + end})
			require.Contains(t, message, "the value ends with a line end", field)
		}
	}
	m.mustWrite("roles/support", map[string]any{fieldAllowedRooms: "support-*\n"}) // a list is trimmed
	require.NotContains(t, m.refused(logical.ReadOperation, "creds/support", map[string]any{fieldRoom: "a b"}), "line end")
}
