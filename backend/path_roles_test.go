// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"maps"
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
		"defaults": {map[string]any{fieldAllowedRooms: "support-*"}, nil},
		"every field": {
			map[string]any{
				fieldAllowedRooms: []any{4711, "Sales-*"}, fieldAllowedRoomsTemplate: true, fieldDefaultRoom: "SALES-1",
				fieldTTL: "5m", fieldMaxTTL: "2h", fieldNotBeforeDuration: "0", fieldMaxNotBefore: "7d",
				fieldGenerateLease: true, fieldValidFrom: testNow.Unix(), fieldValidUntil: "2030-01-31T11:01:00+02:00",
			},
			map[string]any{
				fieldAllowedRooms: []any{"4711", "sales-*"}, fieldAllowedRoomsTemplate: true, fieldDefaultRoom: "sales-1",
				fieldTTL: 300.0, fieldMaxTTL: 7200.0, fieldNotBeforeDuration: 0.0, fieldMaxNotBefore: 604800.0,
				fieldGenerateLease: true, fieldValidFrom: at(0), fieldValidUntil: at(60),
			},
		},
		"wildcard default": {
			map[string]any{fieldAllowWildcardRoom: true, fieldDefaultRoom: "*"},
			map[string]any{fieldAllowedRooms: []any{}, fieldAllowWildcardRoom: true, fieldDefaultRoom: "*"},
		},
		"longest": {
			map[string]any{fieldAllowedRooms: "support-*", fieldMaxTTL: "3650d", fieldMaxNotBefore: "3650d", fieldNotBeforeDuration: "24h"},
			map[string]any{fieldMaxTTL: 315_360_000.0, fieldMaxNotBefore: 315_360_000.0, fieldNotBeforeDuration: 86_400.0},
		},
	} {
		m.mustWrite("roles/a", test.write)
		require.Equal(t, roleDefaults(test.read), m.mustRead("roles/a", nil), name)
		m.mustDelete("roles/a")
	}
}

// A refused write changes nothing: neither the role support, nor a new one.
func TestRoleRefusals(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/support", map[string]any{
		fieldDefaultRoom: "support-1", fieldTTL: "5m", fieldValidFrom: at(60), fieldValidUntil: at(120),
	})
	entries := m.entries()
	const template = "{{identity.entity.name}}"
	for want, data := range map[string]map[string]any{
		"a role must allow something: set allowed_rooms":                 {fieldAllowedRooms: ""},
		"entry 2 of allowed_rooms must be":                               {fieldAllowedRooms: "a,,b", fieldDefaultRoom: ""},
		"default_room is a template; set allowed_rooms_template=true":    {fieldDefaultRoom: template},
		"default_room is longer than 1024 characters":                    {fieldDefaultRoom: longTemplate(room.MaxRuleLength + 1), fieldAllowedRoomsTemplate: true},
		`default_room must itself be allowed, by allowed_rooms or, if`:   {fieldAllowedRooms: "sales-*"},
		"default_room must itself be allowed":                            {fieldAllowedRooms: template, fieldAllowedRoomsTemplate: true, fieldDefaultRoom: "*"},
		"default_room must be one room name":                             {fieldDefaultRoom: "support-*"},
		"the value ends with a line end":                                 {fieldDefaultRoom: "support-1\n"},
		"ttl of 5m0s is over max_ttl of 4m59s; lower ttl or raise":       {fieldMaxTTL: 299},
		"valid_until must be after valid_from":                           {fieldValidUntil: at(60)},
		"whole seconds since the epoch; an empty value removes it":       {fieldValidFrom: "soon"},
		"ttl is too large; no duration is longer than 3650 days":         {fieldTTL: "9223372037"},
		"max_ttl is too large: the maximum is 3650 days":                 {fieldMaxTTL: "87600h1s"},
		"max_not_before is too large: the maximum is 3650 days":          {fieldMaxNotBefore: "3651d"},
		"not_before_duration is too large: the maximum is 1 day":         {fieldNotBeforeDuration: 86401},
		"default_room must be one string; ttl must be in whole seconds":  {fieldTTL: "x", fieldDefaultRoom: []any{"a"}},
		"for any part of a name; ttl of 2h0m0s is over max_ttl of 1h0m0": {fieldAllowedRooms: "a.b", fieldTTL: "2h"},
	} {
		message := m.refused(logical.UpdateOperation, "roles/support", data)
		require.Contains(t, message, want)
		require.Less(t, len(message), 400)
	}
	m.refused(logical.UpdateOperation, "roles/new", nil)
	require.Equal(t, entries, m.entries())

	// A stored role with a fraction of a second is corrupt.
	stored := newRole()
	stored.AllowWildcardRoom = true
	stored.NotBeforeDuration += time.Millisecond
	_, err := stored.compile()
	require.EqualError(t, err, "not_before_duration must be in whole seconds, and not negative")
}

// A write changes only the fields that it names. null means that a field was not given, and
// what a read returns can be written.
func TestWritesKeepTheRest(t *testing.T) {
	m := configured(t)
	m.mustWrite("config", map[string]any{fieldDomain: "meet.example.com", fieldAudience: "other", fieldDeleteEndedRolesAfter: "1h"})
	m.mustWrite("roles/support", map[string]any{
		fieldDefaultRoom: "support-1", fieldMaxNotBefore: "1h", fieldValidFrom: at(0), fieldValidUntil: at(60),
	})
	for path, change := range map[string]map[string]any{
		"config":        {fieldIssuer: "staging"},
		"roles/support": {fieldMaxTTL: 1800.0},
	} {
		want := m.mustRead(path, nil)
		nulls := map[string]any{}
		for name := range want {
			nulls[name] = nil
		}
		m.mustWrite(path, nulls)
		m.mustWrite(path, want)
		require.Equal(t, want, m.mustRead(path, nil))
		m.mustWrite(path, change)
		maps.Copy(want, change)
		require.Equal(t, want, m.mustRead(path, nil))
	}

	// An empty text removes a value, or restores the default. An empty duration was not given.
	m.mustWrite("roles/support", map[string]any{
		fieldDefaultRoom: "", fieldMaxTTL: 0, fieldMaxNotBefore: "", fieldTTL: "", fieldValidFrom: "", fieldValidUntil: "",
	})
	require.Equal(t, roleDefaults(map[string]any{fieldMaxNotBefore: 3600.0}), m.mustRead("roles/support", nil))
	m.mustWrite("config", map[string]any{fieldDomain: "", fieldAudience: "", fieldIssuer: ""})
	require.Subset(t, m.mustRead("config", nil), map[string]any{fieldDomain: "", fieldAudience: "clanmeeting", fieldIssuer: "production"})
}

// A ttl that was never written is 15 minutes, or max_ttl if that is less, whatever max_ttl
// becomes later.
func TestDefaultTTLFollowsMaxTTL(t *testing.T) {
	m := configured(t)
	for _, step := range []struct {
		write map[string]any
		ttl   float64
	}{
		{map[string]any{fieldMaxTTL: "10m"}, 600},
		{map[string]any{fieldMaxTTL: "1h"}, 900},
		{map[string]any{fieldMaxTTL: "5m", fieldTTL: "5m"}, 300}, // as long as max_ttl
		{map[string]any{fieldMaxTTL: "1h"}, 300},
		{map[string]any{fieldTTL: 0}, 900},
	} {
		m.mustWrite("roles/support", step.write)
		require.Equal(t, []any{step.ttl, step.ttl}, []any{m.mustRead("roles/support", nil)[fieldTTL], m.creds()[fieldTTL]}, "%v", step)
	}
}

func TestRoleWarnings(t *testing.T) {
	m := newTestMount(t)
	m.system.MaxLeaseTTLVal = longMaxTTL
	far := testNow.Add(longMaxNotBefore).Unix()
	longest := map[string]any{fieldAllowedRooms: "a", fieldMaxTTL: "24h", fieldMaxNotBefore: "90d", fieldValidFrom: far}
	require.Nil(t, m.mustWrite("roles/a", longest), "no warning")
	for want, data := range map[string]map[string]any{
		"allow_wildcard_room lets this role issue":                              {fieldAllowWildcardRoom: true},
		"max_ttl of 24h0m1s is over 24h0m0s":                                    {fieldMaxTTL: 86401},
		"max_ttl of 24h0m1s is over the mount's maximum of 24h0m0s, so tokens":  {fieldMaxTTL: 86401},
		"max_not_before of 2160h0m1s is over 90 days: a scheduled token stops":  {fieldMaxNotBefore: 7776001},
		"valid_from is more than 90 days ahead: a token for that time stops":    {fieldValidFrom: far + 1},
		"valid_until, 2030-01-31T09:00:00Z, is in the past: this role gives no": {fieldValidUntil: at(0)},
	} {
		data[fieldAllowedRooms] = "a"
		require.Contains(t, strings.Join(m.mustWrite("roles/b", data).Warnings, "\n"), want)
		m.mustDelete("roles/b")
	}
}

func TestRoleListAndDelete(t *testing.T) {
	m := newTestMount(t)
	list := func(path string) any { return m.must(m.call(logical.ListOperation, path, nil)).Data["keys"] }
	require.Nil(t, list("roles/"), "Vault answers an empty list with 404")
	for _, name := range []string{"b", "c.d-e_f", "a"} {
		m.mustWrite("roles/"+name, map[string]any{fieldAllowedRooms: "x"})
	}
	require.Equal(t, []any{"a", "b", "c.d-e_f"}, list("roles/"))
	m.mustDelete("roles/b")
	m.mustDelete("roles/b")
	require.Equal(t, []any{"a", "c.d-e_f"}, list("roles"))
	require.Nil(t, m.must(m.call(logical.ReadOperation, "roles/b", nil)), "Vault answers nil with 404")
}

func longTemplate(n int) string {
	return "{{identity.entity.metadata." + strings.Repeat("k", n-29) + "}}"
}

// A name may have 255 characters. Storage would fail at some greater length, and with two
// dots in a row, which its paths can't have.
func TestRoleNames(t *testing.T) {
	m := configured(t)
	longest := strings.Repeat("n", maxRoleName)
	m.mustWrite("roles/"+longest, map[string]any{fieldAllowedRooms: "a"})
	m.mustRead("creds/"+longest, map[string]any{fieldRoom: "a"})
	m.mustDelete("roles/" + longest)
	m.storage.failWith(func(string, string) error { return errors.New("asked for a name that it can't have") })
	tooLong := `the name of a role must have at most 255 characters; this one begins with "` + strings.Repeat("n", 80) + `…"`
	for name, want := range map[string]string{
		"a..b": "two dots in a row", longest + "n": tooLong, strings.Repeat("n", 100_000): tooLong,
	} {
		for _, path := range []string{"roles/", "creds/", "check/"} {
			for op := range m.inside.Route(path + "x").Operations {
				message := m.refused(op, path+name, map[string]any{fieldAllowedRooms: "a", fieldBatchInput: manyItems(1)})
				require.Contains(t, message, want, "%s %s", op, path)
				require.Less(t, len(message), 200)
			}
		}
	}
	require.NotContains(t, m.log.String(), "nnnn")
	require.NotContains(t, m.log.String(), "[ERROR]")
}
