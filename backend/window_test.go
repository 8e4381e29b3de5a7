// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// at formats the time some seconds after testNow.
func at(offset int64) string { return time.Unix(testNow.Unix()+offset, 0).UTC().Format(time.RFC3339) }

// windowed writes the role event with a window and other fields.
func (m *testMount) windowed(from, until string, others map[string]any) {
	m.t.Helper()
	data := map[string]any{fieldAllowedRooms: "*", fieldTTL: "5m", fieldValidFrom: from, fieldValidUntil: until}
	maps.Copy(data, others)
	m.mustWrite("roles/event", data)
}

// The role keeps a host from starting early, whatever the request asks for.
func TestWindow(t *testing.T) {
	m := configured(t)
	now := testNow.Unix()
	for name, test := range map[string]struct {
		from, until string
		role        map[string]any
		request     map[string]any
		nbf, exp    int64 // from now
		cut         bool
	}{
		"before it":                   {at(3600), at(7200), nil, nil, 3600, 3900, false},
		"before it, ttl named":        {at(3600), at(7200), nil, map[string]any{fieldTTL: "1m"}, 3600, 3660, false},
		"before it, open end":         {at(3600), "", nil, nil, 3600, 3900, false},
		"far before it":               {at(86400 * 400), "", nil, nil, 86400 * 400, 86400*400 + 300, false},
		"at its beginning":            {at(0), at(7200), nil, nil, 0, 300, false},
		"a second after":              {at(-1), at(7200), nil, nil, -1, 300, false},
		"backdated into it":           {at(-29), at(7200), nil, nil, -29, 300, false},
		"well in it":                  {at(-3600), at(7200), nil, nil, -30, 300, false},
		"near its end":                {at(-3600), at(299), nil, nil, -30, 299, true},
		"ends with the token":         {at(-3600), at(300), nil, nil, -30, 300, false},
		"in its last second":          {at(-3600), at(1), nil, nil, -30, 1, true},
		"a window of one second":      {at(0), at(1), nil, nil, 0, 1, true},
		"one second, ahead":           {at(60), at(61), nil, nil, 60, 61, true},
		"shorter than the backdating": {at(-5), at(5), nil, nil, -5, 5, true},
		"shorter than ttl, ahead":     {at(60), at(120), nil, nil, 60, 120, true},
		"without a beginning":         {"", at(100), nil, nil, -30, 100, true},
		"epoch seconds":               {fmt.Sprint(now + 60), fmt.Sprint(now + 120), nil, nil, 60, 120, true},
		"scheduled in it":             {at(60), at(7200), nil, map[string]any{fieldNotBefore: now + 600}, 600, 900, false},
		"scheduled at its beginning":  {at(60), at(7200), nil, map[string]any{fieldNotBefore: now + 60}, 60, 360, false},
		"scheduled in its last":       {at(60), at(7200), nil, map[string]any{fieldNotBefore: now + 7199}, 7199, 7200, true},
		"scheduled beyond max":        {at(-60), at(7200), map[string]any{fieldMaxNotBefore: 60}, map[string]any{fieldNotBefore: now + 600}, 600, 900, false},
		"max alone counts, from":      {at(-60), "", map[string]any{fieldMaxNotBefore: 600}, map[string]any{fieldNotBefore: now + 600}, 600, 900, false},
		"max alone counts, until":     {"", at(700), map[string]any{fieldMaxNotBefore: 600}, map[string]any{fieldNotBefore: now + 600}, 600, 700, true},
		"scheduled now":               {at(-60), at(7200), nil, map[string]any{fieldNotBefore: now}, 0, 300, false},
	} {
		m.windowed(test.from, test.until, test.role)
		request := map[string]any{fieldRoom: "launch"}
		for field, value := range test.request {
			request[field] = value
		}
		resp := m.must(m.call(logical.ReadOperation, "creds/event", request))
		claims := verified(t, resp.Data[fieldToken].(string), testKey(t))
		require.Equal(t, []any{json.Number(base10(now + test.nbf)), json.Number(base10(now + test.exp))}, []any{claims["nbf"], claims["exp"]}, name)
		require.EqualValues(t, test.exp, resp.Data[fieldTTL], name)
		require.Equal(t, test.cut, len(resp.Warnings) == 1, "%s: %v", name, resp.Warnings)
		if test.cut {
			require.Equal(t, "the token ends with this role, at "+at(test.exp)+", which is earlier than its TTL", resp.Warnings[0])
		}
		checked := m.must(m.call(logical.ReadOperation, "check/event", request))
		require.EqualValues(t, now+test.nbf, checked.Data[fieldClaims].(map[string]any)["nbf"], name)
		require.EqualValues(t, now+test.exp, checked.Data[fieldClaims].(map[string]any)["exp"], name)
		require.Equal(t, resp.Warnings, checked.Warnings, name)
		results := m.mustWrite("creds/event", map[string]any{fieldBatchInput: []any{request}}).Data[fieldBatchResults].([]any)
		require.Equal(t, resp.Data, results[0], name)
		m.mustDelete("roles/event")
	}
}

func TestWindowRefusals(t *testing.T) {
	m := configured(t)
	now := testNow.Unix()
	for name, test := range map[string]struct {
		from, until string
		request     map[string]any
		want        string
	}{
		"at its end":        {at(-60), at(0), nil, "this role ended at its valid_until, 2030-01-31T09:00:00Z; have it moved, or use another role"},
		"after its end":     {"", at(-86400), nil, "this role ended at its valid_until, 2030-01-30T09:00:00Z"},
		"scheduled, ended":  {at(-60), at(-10), map[string]any{fieldNotBefore: now + 5}, "this role ended at"},
		"starts before it":  {at(60), at(7200), map[string]any{fieldNotBefore: now + 59}, "not_before is before this role's valid_from, 2030-01-31T09:01:00Z"},
		"now, before it":    {at(60), "", map[string]any{fieldNotBefore: now}, "not_before is before this role's valid_from"},
		"starts at its end": {at(60), at(7200), map[string]any{fieldNotBefore: now + 7200}, "not_before is at or after this role's valid_until, 2030-01-31T11:00:00Z"},
		"starts after it":   {"", at(7200), map[string]any{fieldNotBefore: now + 9999}, "not_before is at or after this role's valid_until"},
		"in the past":       {at(-3600), at(7200), map[string]any{fieldNotBefore: now - 31}, "not_before is more than 30s in the past"},
		"no schedule, from": {at(-60), "", map[string]any{fieldNotBefore: now + 60}, "this role has no max_not_before"},
		"no schedule, end":  {"", at(7200), map[string]any{fieldNotBefore: now + 60}, "this role has no max_not_before"},
		"its very begin":    {at(60), "", map[string]any{fieldNotBefore: now + 60}, "this role has no max_not_before"},
	} {
		m.windowed(test.from, test.until, nil)
		request := map[string]any{fieldRoom: "launch"}
		for field, value := range test.request {
			request[field] = value
		}
		message := m.refused(logical.ReadOperation, "creds/event", request)
		require.Contains(t, message, test.want, name)
		require.Equal(t, map[string]any{fieldAllowed: false, fieldReason: message}, m.mustRead("check/event", request), name)
		require.Equal(t, "batch_input[0]: "+message, m.refused(logical.UpdateOperation, "creds/event", map[string]any{fieldBatchInput: []any{request}}), name)
		m.mustDelete("roles/event")
	}
}

func TestWindowRoundTrip(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/event", map[string]any{fieldAllowedRooms: "a"})
	window := func() []any {
		role := m.mustRead("roles/event", nil)
		return []any{role[fieldValidFrom], role[fieldValidUntil]}
	}
	require.Equal(t, []any{"", ""}, window())
	for _, from := range []any{testNow.Unix(), base10(testNow.Unix()), "2030-01-31T09:00:00Z", "2030-01-31t09:00:00.9z", "2030-01-31T11:00:00+02:00", "2030-01-31T11:00:00 02:00"} {
		require.Nil(t, m.mustWrite("roles/event", map[string]any{fieldValidFrom: from, fieldValidUntil: testNow.Unix() + 60}))
		require.Equal(t, []any{"2030-01-31T09:00:00Z", "2030-01-31T09:01:00Z"}, window(), "%v", from)
		m.mustWrite("roles/event", m.mustRead("roles/event", nil)) // what is read can be written
		require.Equal(t, []any{"2030-01-31T09:00:00Z", "2030-01-31T09:01:00Z"}, window())
		m.mustWrite("roles/event", map[string]any{fieldTTL: "1m", fieldValidFrom: nil})
		require.Equal(t, []any{"2030-01-31T09:00:00Z", "2030-01-31T09:01:00Z"}, window(), "an update keeps the rest")
		m.mustWrite("roles/event", map[string]any{fieldValidFrom: "", fieldValidUntil: ""})
		require.Equal(t, []any{"", ""}, window())
	}
	m.windowed(at(60), at(120), nil)
	for want, data := range map[string]map[string]any{
		"valid_until must be after valid_from":  {fieldValidUntil: at(60)},
		"valid_until must be after valid_from ": {fieldValidFrom: at(120)},
		"valid_from must be RFC 3339, like 2030-01-31T09:00:00Z, or whole seconds since the epoch; an empty value removes it": {fieldValidFrom: "soon"},
		"valid_until seems to be in milliseconds; give it in seconds since the epoch":                                         {fieldValidUntil: testNow.UnixMilli()},
		"valid_from must be after 0001-01-01T00:00:00Z":                                                                       {fieldValidFrom: "0000-01-01T00:00:00Z"},
		"valid_from must be after 0001-01-01T00:00:00Z and, in UTC, before the year 10000":                                    {fieldValidFrom: "9999-12-31T23:59:59-23:59"},
		"valid_until must be after 0001-01-01T00:00:00Z and, in UTC, before the year 10000; an":                               {fieldValidUntil: -62135596800},
		"valid_from must be one string": {fieldValidFrom: true},
	} {
		require.Contains(t, m.refused(logical.UpdateOperation, "roles/event", data)+" ", want)
		require.Equal(t, []any{at(60), at(120)}, window())
	}
	m.mustWrite("roles/event", map[string]any{fieldValidFrom: at(120), fieldValidUntil: at(180)}) // both move at once
	require.Equal(t, []string{"valid_until, 2030-01-31T09:00:00Z, is in the past: this role gives no tokens"},
		m.mustWrite("roles/event", map[string]any{fieldValidFrom: "", fieldValidUntil: at(0)}).Warnings)
}

// Vault would cut a lease at the mount's maximum, so a longer one is refused.
func TestWindowWithALease(t *testing.T) {
	m := configured(t)
	m.system.MaxLeaseTTLVal = time.Hour
	m.windowed(at(3300), "", map[string]any{fieldGenerateLease: true})
	resp := m.must(m.call(logical.ReadOperation, "creds/event", map[string]any{fieldRoom: "launch"}))
	require.Equal(t, time.Hour, resp.Secret.TTL)
	m.windowed(at(3301), "", map[string]any{fieldGenerateLease: true})
	require.Contains(t, m.refused(logical.ReadOperation, "creds/event", map[string]any{fieldRoom: "launch"}), "exceed the mount's maximum TTL")
	m.windowed(at(-10), at(20), map[string]any{fieldGenerateLease: true})
	resp = m.must(m.call(logical.ReadOperation, "creds/event", map[string]any{fieldRoom: "launch"}))
	require.Equal(t, 20*time.Second, resp.Secret.TTL)
	require.Len(t, resp.Warnings, 1)
}
