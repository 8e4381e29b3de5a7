// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// decide asks creds for a token, and check and a batch of one for the same. All agree: they
// give the same refusal, or check shows the claims that creds signs. None of them writes. It
// returns the answer of creds, and the claims that it signed, if it did.
func (m *testMount) decide(role string, request map[string]any) (*logical.Response, map[string]any) {
	m.t.Helper()
	writes := m.storage.written()
	got, err := m.call(logical.ReadOperation, "creds/"+role, request)
	require.NoError(m.t, err)
	checked, err := m.call(logical.ReadOperation, "check/"+role, request)
	require.NoError(m.t, err)
	batch := m.batch(role, map[string]any{fieldBatchInput: []any{request}})
	leased := m.mustRead("roles/"+role, nil)[fieldGenerateLease] == true
	if leased {
		require.ErrorContains(m.t, batch.Error(), "batch_input is not possible on a role with generate_lease")
	}
	require.Equal(m.t, writes, m.storage.written())
	if got.IsError() {
		message := got.Error().Error()
		require.Equal(m.t, map[string]any{fieldAllowed: false, fieldReason: message}, checked.Data, "%v", request)
		if !leased {
			require.EqualError(m.t, batch.Error(), "batch_input[0]: "+message, "%v", request)
		}
		return got, nil
	}
	require.Equal(m.t, true, checked.Data[fieldAllowed], "%v", request)
	require.Equal(m.t, got.Warnings, checked.Warnings)
	claims := checked.Data[fieldClaims].(map[string]any)
	shown, _ := json.Marshal(claims)
	signed, _ := json.Marshal(verified(m.t, got.Data[fieldToken].(string), testKey(m.t)))
	require.JSONEq(m.t, string(shown), string(signed))
	require.Subset(m.t, got.Data, map[string]any{fieldRoom: claims["room"], fieldNotBefore: claims["nbf"], fieldExpiration: claims["exp"]})
	require.Equal(m.t, leased, got.Secret != nil)
	if leased {
		life := time.Duration(got.Data[fieldTTL].(float64)) * time.Second
		require.Equal(m.t, []any{life, life, false}, []any{got.Secret.TTL, got.Secret.MaxTTL, got.Secret.Renewable})
		require.LessOrEqual(m.t, life, m.system.MaxLeaseTTLVal, "Vault would cut the lease")
	} else {
		require.Equal(m.t, []any{got.Data}, batch.Data[fieldBatchResults])
	}
	return got, claims
}

// refusal is the message with which creds, check and a batch refuse a request.
func (m *testMount) refusal(role string, request map[string]any) string {
	m.t.Helper()
	resp, _ := m.decide(role, request)
	require.True(m.t, resp.IsError(), "granted: %v", request)
	return resp.Error().Error()
}

// RS256 is deterministic: with a fixed key and a fixed clock, every byte of a token is
// known. What is in it is tested in the package hosttoken.
func TestGoldenToken(t *testing.T) {
	m := configured(t)
	golden := strings.TrimSpace(readTestdata(t, "golden.jwt"))
	want := map[string]any{
		fieldToken:      golden,
		fieldRoom:       "support-4711",
		fieldConsumerID: testConsumer,
		fieldNotBefore:  float64(testNow.Unix() - 30),
		fieldExpiration: float64(testNow.Unix() + 900),
		fieldTTL:        float64(900),
		fieldKeyVersion: float64(1),
	}
	for _, op := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation} {
		resp := m.must(m.call(op, "creds/support", map[string]any{fieldRoom: "Support-4711"}))
		require.Empty(t, resp.Warnings)
		require.Equal(t, want, resp.Data)
	}
	m.mustWrite("config", map[string]any{fieldDomain: "meet.example.com"})
	want[fieldDomain], want[fieldMeetingURL] = "meet.example.com", "https://meet.example.com/acme/support-4711?jwt="+golden
	require.Equal(t, want, m.mustRead("creds/support", map[string]any{fieldRoom: "support-4711"}))
	m.mustWrite("roles/all", map[string]any{fieldAllowWildcardRoom: true})
	require.NotContains(t, m.mustRead("creds/all", map[string]any{fieldRoom: "*"}), fieldMeetingURL)
}

// What a name or a glob means is tested in the package room.
func TestRooms(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/any", map[string]any{fieldAllowedRooms: "*"})
	m.mustWrite("roles/every", map[string]any{fieldAllowWildcardRoom: true})
	m.mustWrite("roles/default", map[string]any{fieldAllowedRooms: "4711,a-*", fieldDefaultRoom: "a-1"})
	for _, test := range []struct {
		role             string
		room             any
		granted, refused string
	}{
		{"support", "SUPPORT-1", "support-1", ""},
		{"support", "my-support-1", "", "is not allowed by this role; ask for one that matches its allowed_rooms"},
		{"support", "support-1,*", "", "room must be one room name"},
		{"support", "support-1\r\n", "", "the value ends with a line end"},
		{"support", "support-" + strings.Repeat("x", 10_000), "", "room must be one room name"},
		{"support", nil, "", "room is required: this role has no default_room"},
		{"support", "", "", "room is empty; name a room, or leave room out to get the role's default_room"},
		{"any", "x", "x", ""},
		{"any", "*", "", `room "*" is not allowed: this role does not have allow_wildcard_room; name one room`},
		{"any", "\u212aitchen", "", "room must be one room name"},
		{"every", "*", "*", ""},
		{"every", "a", "", `room "a" is not allowed`},
		{"default", nil, "a-1", ""},
		{"default", "a-2", "a-2", ""},
		{"default", 4711, "4711", ""},
	} {
		resp, _ := m.decide(test.role, map[string]any{fieldRoom: test.room})
		if test.refused != "" {
			require.ErrorContains(t, resp.Error(), test.refused)
			require.Less(t, len(resp.Error().Error()), 300)
			continue
		}
		require.NoError(t, resp.Error())
		require.Equal(t, test.granted, resp.Data[fieldRoom])
	}
}

// at formats the time some seconds after testNow.
func at(offset int64) string { return time.Unix(testNow.Unix()+offset, 0).UTC().Format(time.RFC3339) }

// Whatever a request asks for, its token keeps to the times of the role. Vault cuts a lease at
// the mount's maximum: if it would then end before its token, the request is refused.
func TestTimes(t *testing.T) {
	m := configured(t)
	m.system.MaxLeaseTTLVal = 100 * time.Hour
	now := testNow.Unix()
	ttl := func(value any) map[string]any { return map[string]any{fieldTTL: value} }
	start := func(offset int64) map[string]any { return map[string]any{fieldNotBefore: now + offset} }
	window := func(from, until string) map[string]any {
		return map[string]any{fieldValidFrom: from, fieldValidUntil: until}
	}
	long := map[string]any{fieldMaxTTL: "200h"}
	webinar := map[string]any{fieldMaxNotBefore: "3650d", fieldNotBeforeDuration: "60s"}
	patient := map[string]any{fieldNotBeforeDuration: "10h"}
	leased := map[string]any{fieldMaxNotBefore: "3650d", fieldGenerateLease: true}
	const capped, endsEarlier = "TTL value is capped accordingly", "the token ends with this role, at 2030-01-31T"
	for name, test := range map[string]struct {
		role, request map[string]any
		nbf, exp      float64 // from now; without exp, it is refused
		says          string  // the warning, or the refusal
	}{
		"role's ttl":             {nil, nil, -30, 300, ""},
		"empty, and null":        {nil, map[string]any{fieldTTL: "", fieldNotBefore: nil}, -30, 300, ""},
		"null, and empty":        {nil, map[string]any{fieldTTL: nil, fieldNotBefore: ""}, -30, 300, ""},
		"shorter":                {nil, ttl("1s"), -30, 1, ""},
		"role's maximum":         {nil, ttl("10m"), -30, 600, ""},
		"over role's maximum":    {nil, ttl("601"), -30, 600, capped},
		"mount's maximum":        {long, ttl("100h"), -30, 360_000, ""},
		"over mount's maximum":   {long, ttl("101h"), -30, 360_000, capped},
		"as far as allowed":      {webinar, start(315_360_000), 315_360_000, 315_360_300, ""},
		"beyond that":            {webinar, start(315_360_001), 0, 0, "further ahead than the 87600h0m0s of this role's max_not_before; ask closer to the time"},
		"scheduled for now":      {webinar, start(0), 0, 300, ""},
		"as late as allowed":     {webinar, start(-60), -60, 240, ""},
		"too late":               {webinar, start(-61), 0, 0, "not_before is more than 1m0s in the past"},
		"unscheduled role":       {nil, start(1), 0, 0, "this role has no max_not_before"},
		"just expired":           {patient, start(-300), 0, 0, "would already have expired"},
		"not yet expired":        {patient, start(-299), -299, 1, ""},
		"before window":          {window(at(3600), at(7200)), nil, 3600, 3900, ""},
		"a second in it":         {window(at(-1), at(7200)), nil, -1, 300, ""},
		"ends with the token":    {window(at(-3600), at(300)), nil, -30, 300, ""},
		"near its end":           {window(at(-3600), at(299)), nil, -30, 299, endsEarlier + "09:04:59Z, which is earlier than its TTL"},
		"scheduled at its begin": {window(at(60), at(7200)), start(60), 60, 360, ""},
		"starts before it":       {window(at(60), at(7200)), start(59), 0, 0, "not_before is before this role's valid_from, 2030-01-31T09:01:00Z"},
		"scheduled in its last":  {window(at(60), at(7200)), start(7199), 7199, 7200, endsEarlier},
		"starts at its end":      {window(at(60), at(7200)), start(7200), 0, 0, "not_before is at or after this role's valid_until, 2030-01-31T11:00:00Z"},
		"at its end":             {window(at(-60), at(0)), nil, 0, 0, "this role ended at its valid_until, 2030-01-31T09:00:00Z; have it moved, or use another role"},
		"in the past":            {window(at(-3600), at(7200)), start(-31), 0, 0, "not_before is more than 30s in the past"},
		"no schedule, from":      {window(at(-60), ""), start(60), 0, 0, "this role has no max_not_before"},
		"scheduled beyond max": {
			map[string]any{fieldMaxNotBefore: 60, fieldValidFrom: at(-60), fieldValidUntil: at(7200)}, start(600), 600, 900, "",
		},
		"lease, for the maximum": {leased, start(359_700), 359_700, 360_000, ""},
		"lease, beyond that":     {leased, start(359_701), 0, 0, "its lease would exceed the mount's maximum TTL; ask closer to the time"},
		"max alone, until":       {map[string]any{fieldMaxNotBefore: 600, fieldValidUntil: at(700)}, start(600), 600, 700, endsEarlier},
	} {
		role := map[string]any{fieldAllowedRooms: "*", fieldTTL: "5m", fieldMaxTTL: "10m"}
		maps.Copy(role, test.role)
		m.mustWrite("roles/timed", role)
		request := map[string]any{fieldRoom: "launch"}
		maps.Copy(request, test.request)
		resp, claims := m.decide("timed", request)
		if test.exp == 0 {
			require.ErrorContains(t, resp.Error(), test.says, name)
		} else {
			require.NoError(t, resp.Error(), name)
			want := []any{float64(now) + test.nbf, float64(now) + test.exp, test.exp}
			require.Equal(t, want, []any{claims["nbf"], claims["exp"], resp.Data[fieldTTL]}, name)
			require.Equal(t, test.says != "", len(resp.Warnings) == 1, "%s: %v", name, resp.Warnings)
			require.Contains(t, strings.Join(resp.Warnings, ""), test.says, name)
		}
		m.mustDelete("roles/timed")
	}
}

// No message repeats the value of a field that has the wrong type.
func TestNoFieldEchoesAKey(t *testing.T) {
	m := configured(t)
	pkcs1 := readTestdata(t, "rsa2048.pkcs1.pem")
	for _, path := range []string{"config", "keys/generate", "keys/import", "roles/support", "creds/support", "check/support", "verify"} {
		for name := range m.inside.Route(path).Fields {
			if name == fieldName {
				continue
			}
			for _, value := range []any{pkcs1, []any{pkcs1}, map[string]any{pkcs1: pkcs1}, []any{[]any{pkcs1}}} {
				resp, err := m.call(logical.UpdateOperation, path, map[string]any{name: value, fieldConsumerID: "a.b"})
				require.NoError(t, err)
				if resp.IsError() {
					requireNoEcho(t, resp.Error().Error(), pkcs1)
				}
			}
		}
	}
	require.NotContains(t, m.log.String(), strings.Split(pkcs1, "\n")[5])
}

// A performance standby can't register a lease: logical.ErrReadOnly makes Vault forward
// the request. It can serve tokens without a lease itself.
func TestPerformanceStandby(t *testing.T) {
	m := configured(t)
	m.system.ReplicationStateVal = consts.ReplicationPerformancePrimary
	m.mustWrite("roles/leased", map[string]any{fieldAllowedRooms: "*", fieldGenerateLease: true})
	m.system.ReplicationStateVal = consts.ReplicationPerformanceStandby
	// Also while the old state is still cached for other requests.
	for range 2 {
		_, err := m.call(logical.ReadOperation, "creds/leased", map[string]any{fieldRoom: "x"})
		require.EqualError(t, err, logical.ErrReadOnly.Error())
		m.advance(systemLife)
		m.creds()
	}
	require.NotContains(t, m.log.String(), "request failed", "a forwarded request is no fault")
}

// After a tune, tokens have the former maximum for a second. Those with a lease don't, or
// they would outlive it, and neither has the warning of a role that is written. If Vault
// can't say the maximum, that fails one request, not those of a second.
func TestMaximumAfterATune(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/leased", map[string]any{fieldAllowedRooms: "*", fieldGenerateLease: true})
	requireTTLs := func(plain, leased int) {
		t.Helper()
		for role, ttl := range map[string]int{"support": plain, "leased": leased} {
			require.EqualValues(t, ttl, m.mustRead("creds/"+role, map[string]any{fieldRoom: "support-1"})[fieldTTL], role)
		}
	}
	requireTTLs(900, 900)
	m.system.MaxLeaseTTLVal = time.Minute
	require.NotEmpty(t, m.mustWrite("roles/support", map[string]any{fieldTTL: "15m"}).Warnings)
	m.advance(systemLife - time.Millisecond)
	requireTTLs(900, 60)
	m.advance(time.Millisecond)
	requireTTLs(60, 60)
	m.advance(systemLife)
	m.system.MaxLeaseTTLVal = 0 // as the SDK says it
	_, err := m.do(operations(t)["creds read"])
	require.Error(t, err)
	m.system.MaxLeaseTTLVal = time.Hour
	requireTTLs(900, 900)
}
