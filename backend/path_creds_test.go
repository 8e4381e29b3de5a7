// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/base64"
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
// give the same refusal, or check shows the claims that creds signs. It returns the answer of
// creds, and the claims of the verified token if there is one.
func (m *testMount) decide(role string, request map[string]any) (*logical.Response, map[string]any) {
	m.t.Helper()
	got, err := m.call(logical.ReadOperation, "creds/"+role, request)
	require.NoError(m.t, err)
	checked, err := m.call(logical.ReadOperation, "check/"+role, request)
	require.NoError(m.t, err)
	batch := m.batch(role, map[string]any{fieldBatchInput: []any{request}})
	leased := m.mustRead("roles/"+role, nil)[fieldGenerateLease] == true
	if leased {
		require.ErrorContains(m.t, batch.Error(), "batch_input is not possible on a role with generate_lease")
	}
	if got.IsError() {
		message := got.Error().Error()
		require.Equal(m.t, map[string]any{fieldAllowed: false, fieldReason: message}, checked.Data, "%v", request)
		if !leased {
			require.EqualError(m.t, batch.Error(), "batch_input[0]: "+message, "%v", request)
		}
		return got, nil
	}
	token := got.Data[fieldToken].(string)
	require.Equal(m.t, true, checked.Data[fieldAllowed], "%v", request)
	require.JSONEq(m.t, segmentOf(m.t, token), string(must(json.Marshal(checked.Data[fieldClaims]))))
	require.Equal(m.t, got.Warnings, checked.Warnings)
	if !leased {
		require.Equal(m.t, []any{got.Data}, batch.Data[fieldBatchResults])
	}
	return got, verified(m.t, token, testKey(m.t))
}

// refusal is the message with which creds, check and a batch refuse a request.
func (m *testMount) refusal(role string, request map[string]any) string {
	m.t.Helper()
	resp, _ := m.decide(role, request)
	require.True(m.t, resp.IsError(), "granted: %v", request)
	return resp.Error().Error()
}

// RS256 is deterministic: with a fixed key and a fixed clock, every byte of a token is
// known.
func TestGoldenToken(t *testing.T) {
	m := configured(t)
	golden := strings.TrimSpace(readTestdata(t, "golden.jwt"))
	for _, op := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation} {
		resp := m.must(m.call(op, "creds/support", map[string]any{fieldRoom: "Support-4711"}))
		require.Nil(t, resp.Secret, "no lease without generate_lease")
		require.Empty(t, resp.Warnings)
		require.Equal(t, map[string]any{
			fieldToken:      golden,
			fieldRoom:       "support-4711",
			fieldConsumerID: testConsumer,
			fieldNotBefore:  float64(testNow.Unix() - 30),
			fieldExpiration: float64(testNow.Unix() + 900),
			fieldTTL:        float64(900),
			fieldKeyVersion: float64(1),
		}, resp.Data)
	}
	require.Equal(t, map[string]any{
		"aud":     "clanmeeting",
		"context": map[string]any{},
		"exp":     json.Number("1896081300"),
		"iss":     "production",
		"nbf":     json.Number("1896080370"),
		"room":    "support-4711",
		"sub":     "acme",
	}, verified(t, golden, testKey(t)))
	header, err := base64.RawURLEncoding.DecodeString(strings.Split(golden, ".")[0])
	require.NoError(t, err)
	require.JSONEq(t, `{"alg":"RS256","kid":"acme","typ":"JWT"}`, string(header))
}

func TestMeetingURL(t *testing.T) {
	m := configured(t)
	m.mustWrite("config", map[string]any{fieldDomain: "meet.example.com"})
	m.mustWrite("roles/all", map[string]any{fieldAllowedRooms: "*", fieldAllowWildcardRoom: true})
	answer, _ := m.token("all", map[string]any{fieldRoom: "launch"})
	require.Equal(t, "meet.example.com", answer[fieldDomain])
	require.Equal(t, "https://meet.example.com/acme/launch?jwt="+answer[fieldToken].(string), answer[fieldMeetingURL])
	answer, _ = m.token("all", map[string]any{fieldRoom: "*"})
	require.Equal(t, "meet.example.com", answer[fieldDomain])
	require.NotContains(t, answer, fieldMeetingURL)
}

// What a name or a glob means is tested in the package room.
func TestRooms(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/globs", map[string]any{fieldAllowedRooms: "support-*,exact,4711"})
	m.mustWrite("roles/any", map[string]any{fieldAllowedRooms: "*"})
	m.mustWrite("roles/wildcard", map[string]any{fieldAllowWildcardRoom: true})
	m.mustWrite("roles/default", map[string]any{fieldAllowedRooms: "a-*", fieldDefaultRoom: "a-1"})
	for _, test := range []struct {
		role       string
		room, want any
	}{
		{"globs", "SUPPORT-1", "support-1"},
		{"globs", "exact", "exact"},
		{"globs", 4711, "4711"},
		{"any", "x", "x"},
		{"wildcard", "*", "*"},
		{"default", nil, "a-1"},
		{"default", "a-2", "a-2"},
	} {
		resp, claims := m.decide(test.role, map[string]any{fieldRoom: test.room})
		require.NoError(t, resp.Error())
		require.Equal(t, test.want, resp.Data[fieldRoom])
		require.Equal(t, test.want, claims["room"])
	}
	for role, rooms := range map[string][]string{
		"globs":    {"exactly", "my-support-1", "*", "support-*"},
		"any":      {"*", "**", "a*"},
		"wildcard": {"a", "**", "%2a"},
	} {
		for _, room := range append(rooms, "support-1,*", " *", "*\n", "{{identity.entity.name}}", "\u212aitchen", "support-"+strings.Repeat("x", 10_000)) {
			message := m.refusal(role, map[string]any{fieldRoom: room})
			require.Contains(t, message, "room", "%s %q", role, room)
			require.Less(t, len(message), 400, "%s %q", role, room)
		}
	}
	require.Equal(t, "room is required: this role has no default_room", m.refusal("globs", map[string]any{}))
	require.Equal(t, "room is empty; name a room, or leave room out to get the role's default_room", m.refusal("globs", map[string]any{fieldRoom: ""}))
}

func base10(n int64) string { return json.Number(must(json.Marshal(n))).String() }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// at formats the time some seconds after testNow.
func at(offset int64) string { return time.Unix(testNow.Unix()+offset, 0).UTC().Format(time.RFC3339) }

// Whatever a request asks for, its token keeps to the times of the role.
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
	webinar := map[string]any{fieldMaxNotBefore: "24h", fieldNotBeforeDuration: "60s"}
	patient := map[string]any{fieldNotBeforeDuration: "10h"}
	const capped, endsEarlier = "TTL value is capped accordingly", "the token ends with this role"
	for name, test := range map[string]struct {
		role, request map[string]any
		nbf, exp      int64  // from now; without exp, it is refused
		says          string // the warning, or the refusal
	}{
		"role's ttl":             {nil, nil, -30, 300, ""},
		"ttl is zero":            {nil, ttl(0), -30, 300, ""},
		"shorter":                {nil, ttl("1s"), -30, 1, ""},
		"role's maximum":         {nil, ttl("10m"), -30, 600, ""},
		"over role's maximum":    {nil, ttl("601"), -30, 600, capped},
		"mount's maximum":        {long, ttl("100h"), -30, 360_000, ""},
		"over mount's maximum":   {long, ttl("101h"), -30, 360_000, capped},
		"scheduled":              {webinar, start(3600), 3600, 3900, ""},
		"as far as allowed":      {webinar, start(86400), 86400, 86700, ""},
		"beyond that":            {webinar, start(86401), 0, 0, "further ahead than the 24h0m0s of this role's max_not_before; ask closer to the time"},
		"fraction of a second":   {webinar, map[string]any{fieldNotBefore: "2030-01-31T10:00:00.999Z"}, 3600, 3900, ""},
		"scheduled for now":      {webinar, start(0), 0, 300, ""},
		"as late as allowed":     {webinar, start(-60), -60, 240, ""},
		"too late":               {webinar, start(-61), 0, 0, "not_before is more than 1m0s in the past"},
		"first possible second":  {webinar, start(-62135596799 - now), 0, 0, "not_before is more than 1m0s in the past"},
		"unscheduled role":       {nil, start(1), 0, 0, "this role has no max_not_before"},
		"expired":                {patient, start(-36_000), 0, 0, "would already have expired"},
		"just expired":           {patient, start(-300), 0, 0, "would already have expired"},
		"not yet expired":        {patient, start(-299), -299, 1, ""},
		"before window":          {window(at(3600), at(7200)), nil, 3600, 3900, ""},
		"at its beginning":       {window(at(0), at(7200)), nil, 0, 300, ""},
		"a second after":         {window(at(-1), at(7200)), nil, -1, 300, ""},
		"well in it":             {window(at(-3600), at(7200)), nil, -30, 300, ""},
		"ends with the token":    {window(at(-3600), at(300)), nil, -30, 300, ""},
		"near its end":           {window(at(-3600), at(299)), nil, -30, 299, endsEarlier},
		"one second, ahead":      {window(at(60), at(61)), nil, 60, 61, endsEarlier},
		"without a beginning":    {window("", at(100)), nil, -30, 100, endsEarlier},
		"scheduled at its begin": {window(at(60), at(7200)), start(60), 60, 360, ""},
		"scheduled in its last":  {window(at(60), at(7200)), start(7199), 7199, 7200, endsEarlier},
		"at its end":             {window(at(-60), at(0)), nil, 0, 0, "this role ended at its valid_until, 2030-01-31T09:00:00Z; have it moved, or use another role"},
		"scheduled, ended":       {window(at(-60), at(-10)), start(5), 0, 0, "this role ended at"},
		"starts before it":       {window(at(60), at(7200)), start(59), 0, 0, "not_before is before this role's valid_from, 2030-01-31T09:01:00Z"},
		"starts at its end":      {window(at(60), at(7200)), start(7200), 0, 0, "not_before is at or after this role's valid_until, 2030-01-31T11:00:00Z"},
		"in the past":            {window(at(-3600), at(7200)), start(-31), 0, 0, "not_before is more than 30s in the past"},
		"no schedule, from":      {window(at(-60), ""), start(60), 0, 0, "this role has no max_not_before"},
		"its very begin":         {window(at(60), ""), start(60), 0, 0, "this role has no max_not_before"},
		"scheduled beyond max": {
			map[string]any{fieldMaxNotBefore: 60, fieldValidFrom: at(-60), fieldValidUntil: at(7200)}, start(600), 600, 900, "",
		},
		"max alone, from":  {map[string]any{fieldMaxNotBefore: 600, fieldValidFrom: at(-60)}, start(600), 600, 900, ""},
		"max alone, until": {map[string]any{fieldMaxNotBefore: 600, fieldValidUntil: at(700)}, start(600), 600, 700, endsEarlier},
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
			times := map[string]any{"nbf": json.Number(base10(now + test.nbf)), "exp": json.Number(base10(now + test.exp))}
			require.Subset(t, claims, times, name)
			require.EqualValues(t, now+test.nbf, resp.Data[fieldNotBefore], name)
			require.EqualValues(t, now+test.exp, resp.Data[fieldExpiration], name)
			require.EqualValues(t, test.exp, resp.Data[fieldTTL], name)
			require.Equal(t, test.says != "", len(resp.Warnings) == 1, "%s: %v", name, resp.Warnings)
			require.Contains(t, strings.Join(resp.Warnings, ""), test.says, name)
		}
		m.mustDelete("roles/timed")
	}
	m.mustWrite("roles/timed", map[string]any{fieldAllowedRooms: "*", fieldValidUntil: at(9)})
	resp, _ := m.decide("timed", map[string]any{fieldRoom: "launch"})
	require.Equal(t, []string{"the token ends with this role, at 2030-01-31T09:00:09Z, which is earlier than its TTL"}, resp.Warnings)
}

// Vault cuts a lease at the mount's maximum. If the lease would then end before its token,
// the request is refused.
func TestLease(t *testing.T) {
	m := configured(t)
	m.system.MaxLeaseTTLVal = time.Hour
	for _, test := range []struct {
		role, request map[string]any
		want          time.Duration // 0: refused
	}{
		{nil, nil, 5 * time.Minute},
		{nil, map[string]any{fieldTTL: "1m"}, time.Minute},
		{nil, map[string]any{fieldTTL: "1h"}, 10 * time.Minute},
		{nil, map[string]any{fieldNotBefore: at(1800)}, 35 * time.Minute},
		{nil, map[string]any{fieldNotBefore: at(3300)}, time.Hour},
		{nil, map[string]any{fieldNotBefore: at(3301)}, 0},
		{nil, map[string]any{fieldNotBefore: at(315_350_000)}, 0},
		{map[string]any{fieldValidFrom: at(3300)}, nil, time.Hour},
		{map[string]any{fieldValidFrom: at(3301)}, nil, 0},
		{map[string]any{fieldValidUntil: at(20)}, nil, 20 * time.Second},
	} {
		role := map[string]any{fieldAllowedRooms: "*", fieldGenerateLease: true, fieldTTL: "5m", fieldMaxTTL: "10m", fieldMaxNotBefore: "3650d"}
		maps.Copy(role, test.role)
		m.mustWrite("roles/leased", role)
		request := map[string]any{fieldRoom: "x"}
		maps.Copy(request, test.request)
		resp, _ := m.decide("leased", request)
		m.mustDelete("roles/leased")
		if test.want == 0 {
			require.ErrorContains(t, resp.Error(), "exceed the mount's maximum TTL")
			continue
		}
		require.NotNil(t, resp.Secret)
		require.Equal(t, test.want, resp.Secret.TTL)
		require.Equal(t, test.want, resp.Secret.MaxTTL)
		require.False(t, resp.Secret.Renewable)
		require.EqualValues(t, test.want.Seconds(), resp.Data[fieldTTL])
		revoke := &logical.Request{Operation: logical.RevokeOperation, Path: "creds/leased", Secret: resp.Secret, Storage: m.storage}
		_, err := m.wire.HandleRequest(t.Context(), revoke)
		require.NoError(t, err)
	}
	m.mustWrite("roles/plain", map[string]any{fieldAllowedRooms: "*", fieldTTL: "5m", fieldMaxNotBefore: "3650d"})
	answer, _ := m.token("plain", map[string]any{fieldRoom: "x", fieldNotBefore: at(315_350_000)})
	require.EqualValues(t, 315_350_300, answer[fieldTTL])
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

func TestRelativePaths(t *testing.T) {
	m := configured(t)
	for _, path := range []string{"roles/a..b", "creds/a..b"} {
		for _, op := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation} {
			require.Contains(t, m.refused(op, path, nil), "two dots in a row")
		}
	}
	require.NotContains(t, m.log.String(), "[ERROR]")
}

// null means that the field was not given.
func TestNullMeansNotGiven(t *testing.T) {
	m := configured(t)
	m.mustWrite("config", map[string]any{fieldDomain: "meet.example.com"})
	before, role := m.mustRead("config", nil), m.mustRead("roles/support", nil)
	for _, path := range []string{"config", "roles/support"} {
		nulls := map[string]any{}
		for name := range m.inside.Route(path).Fields {
			if name != fieldName {
				nulls[name] = nil
			}
		}
		m.mustWrite(path, nulls)
	}
	require.Equal(t, before, m.mustRead("config", nil))
	require.Equal(t, role, m.mustRead("roles/support", nil))
}

// A performance standby can't register a lease: logical.ErrReadOnly makes Vault forward
// the request. It can serve tokens without a lease itself.
func TestPerformanceStandby(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/leased", map[string]any{fieldAllowedRooms: "*", fieldGenerateLease: true})
	m.system.ReplicationStateVal = consts.ReplicationPerformanceStandby

	// The next request for a lease is forwarded, although the old state is still cached
	// for other requests.
	_, err := m.call(logical.ReadOperation, "creds/leased", map[string]any{fieldRoom: "x"})
	require.EqualError(t, err, logical.ErrReadOnly.Error())
	m.advance(systemLife)
	m.token("support", map[string]any{fieldRoom: "support-1"})
	_, err = m.call(logical.ReadOperation, "creds/leased", map[string]any{fieldRoom: "x"})
	require.EqualError(t, err, logical.ErrReadOnly.Error())
	for op, path := range map[logical.Operation]string{logical.UpdateOperation: "roles/support", logical.DeleteOperation: "config"} {
		_, err = m.call(op, path, map[string]any{})
		require.EqualError(t, err, logical.ErrReadOnly.Error())
	}
	require.NotContains(t, m.log.String(), "request failed", "a forwarded request is no fault")
}

// After a tune, tokens have the former maximum for a second. Those with a lease don't, or
// they would outlive it, and neither has the warning of a role that is written.
func TestMaximumAfterATune(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/leased", map[string]any{fieldAllowedRooms: "*", fieldTTL: "1h", fieldGenerateLease: true})
	m.mustWrite("roles/plain", map[string]any{fieldAllowedRooms: "*", fieldTTL: "1h"})
	ttlOf := func(role string) any {
		answer, _ := m.token(role, map[string]any{fieldRoom: "x"})
		return answer[fieldTTL]
	}
	require.EqualValues(t, 3600, ttlOf("plain"))
	m.system.MaxLeaseTTLVal = time.Minute
	require.EqualValues(t, 3600, ttlOf("plain"))
	require.EqualValues(t, 60, ttlOf("leased"))
	require.NotEmpty(t, m.must(m.call(logical.UpdateOperation, "roles/plain", map[string]any{fieldTTL: "1h"})).Warnings)
	m.advance(systemLife - time.Millisecond)
	require.EqualValues(t, 3600, ttlOf("plain"))
	m.advance(time.Millisecond)
	require.EqualValues(t, 60, ttlOf("plain"))
}

// If Vault can't say the maximum, the SDK returns 0. That fails one request, not those of a
// second.
func TestFailedAnswerIsNotCached(t *testing.T) {
	m := configured(t)
	maximum := m.system.MaxLeaseTTLVal
	m.system.MaxLeaseTTLVal = 0
	_, err := m.call(logical.ReadOperation, "creds/support", map[string]any{fieldRoom: "support-1"})
	require.Error(t, err)
	m.system.MaxLeaseTTLVal = maximum
	m.token("support", map[string]any{fieldRoom: "support-1"})
}

// Neither creds nor check writes, whatever they answer.
func TestCredsWriteNothing(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/leased", map[string]any{fieldAllowedRooms: "*", fieldGenerateLease: true})
	before := m.storage.written()
	m.decide("support", map[string]any{fieldRoom: "support-1"})
	m.decide("leased", map[string]any{fieldRoom: "x"})
	m.decide("support", map[string]any{fieldRoom: "other"})
	require.Equal(t, before, m.storage.written())
}
