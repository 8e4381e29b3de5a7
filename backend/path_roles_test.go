// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
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
	for k, v := range changes {
		role[k] = v
	}
	return role
}

func TestRoleRoundTrip(t *testing.T) {
	m := newTestMount(t)
	for name, test := range map[string]struct{ write, read map[string]any }{
		"defaults":       {map[string]any{fieldAllowedRooms: "support-*"}, nil},
		"list":           {map[string]any{fieldAllowedRooms: []any{"a", "b-*"}}, map[string]any{fieldAllowedRooms: []any{"a", "b-*"}}},
		"numbers":        {map[string]any{fieldAllowedRooms: []any{4711, "b"}, fieldDefaultRoom: 4711}, map[string]any{fieldAllowedRooms: []any{"4711", "b"}, fieldDefaultRoom: "4711"}},
		"commas":         {map[string]any{fieldAllowedRooms: "b-*, a"}, map[string]any{fieldAllowedRooms: []any{"b-*", "a"}}},
		"upper case":     {map[string]any{fieldAllowedRooms: "Sales-*", fieldDefaultRoom: "SALES-1"}, map[string]any{fieldAllowedRooms: []any{"sales-*"}, fieldDefaultRoom: "sales-1"}},
		"wildcard alone": {map[string]any{fieldAllowWildcardRoom: true}, map[string]any{fieldAllowedRooms: []any{}, fieldAllowWildcardRoom: true}},
		"wildcard default": {
			map[string]any{fieldAllowWildcardRoom: true, fieldDefaultRoom: "*"},
			map[string]any{fieldAllowedRooms: []any{}, fieldAllowWildcardRoom: true, fieldDefaultRoom: "*"},
		},
		"durations as text": {
			map[string]any{fieldAllowedRooms: "support-*", fieldTTL: "5m", fieldMaxTTL: "2h", fieldNotBeforeDuration: "0", fieldMaxNotBefore: "7d"},
			map[string]any{fieldTTL: float64(300), fieldMaxTTL: float64(7200), fieldNotBeforeDuration: float64(0), fieldMaxNotBefore: float64(604800)},
		},
		"durations as numbers": {
			map[string]any{fieldAllowedRooms: "support-*", fieldTTL: 300, fieldMaxTTL: 7200, fieldNotBeforeDuration: 60, fieldMaxNotBefore: 86400},
			map[string]any{fieldTTL: float64(300), fieldMaxTTL: float64(7200), fieldNotBeforeDuration: float64(60), fieldMaxNotBefore: float64(86400)},
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
		"empty list":          {map[string]any{fieldAllowedRooms: ""}, "a role must allow something"},
		"empty entry":         {map[string]any{fieldAllowedRooms: "a,,b"}, "entry 2 of allowed_rooms"},
		"template":            {map[string]any{fieldAllowedRooms: "{{identity.entity.name}}"}, "entry 1 of allowed_rooms is a template; set allowed_rooms_template=true too"},
		"template as default": {map[string]any{fieldAllowedRooms: "a", fieldDefaultRoom: "{{identity.entity.name}}"}, "default_room is a template; set allowed_rooms_template=true too"},
		"no directive":        {map[string]any{fieldAllowedRooms: "{{identity.entity.nmae}}", fieldAllowedRoomsTemplate: true}, "entry 1 of allowed_rooms has a template that is unknown"},
		"default * beside it": {map[string]any{fieldAllowedRooms: "{{identity.entity.name}}", fieldAllowedRoomsTemplate: true, fieldDefaultRoom: "*"}, "default_room must itself be allowed"},
		"default not allowed": {map[string]any{fieldAllowedRooms: "a-*", fieldDefaultRoom: "b"}, "default_room must itself be allowed"},
		"default for all":     {map[string]any{fieldAllowedRooms: "*", fieldDefaultRoom: "*"}, "default_room must itself be allowed"},
		"default, no name":    {map[string]any{fieldAllowedRooms: "a-*", fieldDefaultRoom: "a b"}, "default_room must be one room name"},
		"default is a glob":   {map[string]any{fieldAllowedRooms: "a-*", fieldDefaultRoom: "a-*"}, "default_room must be one room name"},
		"default glob by id":  {map[string]any{fieldAllowedRooms: "{{identity.entity.id}}-*", fieldAllowedRoomsTemplate: true, fieldDefaultRoom: "{{identity.entity.id}}-*"}, "default_room must be one room name"},
		"ttl over max":        {map[string]any{fieldAllowedRooms: "a", fieldTTL: "2h"}, "ttl of 2h0m0s is over max_ttl of 1h0m0s"},
		"a fraction":          {map[string]any{fieldAllowedRooms: "a", fieldMaxNotBefore: 1.5}, "max_not_before must be in whole seconds and not negative, like 90, 90s or 15m"},
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
		"allow_wildcard_room lets this role issue":                                                            {fieldAllowWildcardRoom: true},
		"max_ttl of 24h0m1s is over 24h0m0s":                                                                  {fieldMaxTTL: 86401},
		"max_ttl of 48h0m1s is over the mount's maximum of 48h0m0s, so tokens":                                {fieldMaxTTL: 172801},
		"max_not_before of 2160h0m1s is over 90 days: a scheduled token stops working when its key is":        {fieldMaxNotBefore: 7776001},
		"valid_from is more than 90 days ahead: a token for that time stops working when its key is replaced": {fieldValidFrom: far + 1},
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

func TestLimitsOfARole(t *testing.T) {
	m := configured(t)
	long := longTemplate(room.MaxRuleLength)
	require.Len(t, long, room.MaxRuleLength)
	m.mustWrite("roles/most", map[string]any{fieldAllowedRooms: []any{long}, fieldAllowedRoomsTemplate: true, fieldDefaultRoom: long})
	tooMany := make([]any, room.MaxRules+1)
	for i := range tooMany {
		tooMany[i] = "a"
	}
	for want, data := range map[string]map[string]any{
		"entry 2 of allowed_rooms is longer than 1024 characters: {{identity.entity.metadata.kkk": {fieldAllowedRooms: []any{"a", longTemplate(900_000)}},
		"default_room is longer than 1024 characters: {{identity.entity.metadata.kkk":             {fieldDefaultRoom: longTemplate(1025)},
		"allowed_rooms has 2001 entries; 2000 are allowed":                                        {fieldAllowedRooms: tooMany},
	} {
		data[fieldAllowedRoomsTemplate] = true
		if data[fieldAllowedRooms] == nil {
			data[fieldAllowedRooms] = "a"
		}
		message := m.refused(logical.UpdateOperation, "roles/over", data)
		require.Contains(t, message, want)
		require.Less(t, len(message), 300, want)
	}
	// A text that is too long for a rule and not a template may be a private key.
	require.Equal(t, "entry 1 of allowed_rooms is longer than 1024 characters",
		m.refused(logical.UpdateOperation, "roles/over", map[string]any{fieldAllowedRooms: strings.Repeat("deadbeef", 200)}))
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
		for path, data := range map[string]map[string]any{
			"creds/support": {fieldRoom: "support-1" + end},
			"roles/support": {fieldDefaultRoom: "support-1" + end},
			"verify":        {fieldToken: "x", fieldRoom: "support-1" + end},
			"config":        {fieldDomain: "meet.example.com" + end},
			"config ":       {fieldConsumerID: "acme" + end},
			"config  ":      {fieldIssuer: "production" + end},
			"config   ":     {fieldAudience: "clanmeeting" + end},
		} {
			require.Contains(t, m.refused(logical.UpdateOperation, strings.TrimSpace(path), data), "the value ends with a line end")
		}
		item := map[string]any{fieldBatchInput: []any{map[string]any{fieldRoom: "support-1" + end}}}
		require.Contains(t, m.refused(logical.UpdateOperation, "creds/support", item), "the value ends with a line end")
	}
	m.mustWrite("roles/support", map[string]any{fieldAllowedRooms: "support-*\n"}) // a list is trimmed
	require.NotContains(t, m.refused(logical.ReadOperation, "creds/support", map[string]any{fieldRoom: "a b"}), "line end")
}
