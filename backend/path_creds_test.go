// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// RS256 is deterministic: with a fixed key and a fixed clock, every byte of a token is
// known. The golden token was verified with the standard library when it was made, and is
// verified with it here.
func TestGoldenToken(t *testing.T) {
	m := configured(t)
	golden := strings.TrimSpace(readTestdata(t, "golden.jwt"))
	for _, op := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation} {
		resp := m.must(m.call(op, "creds/support", map[string]any{fieldRoom: "Support-4711"}))
		require.Nil(t, resp.Secret, "no lease without generate_lease")
		require.Empty(t, resp.Warnings)
		require.Equal(t, map[string]any{
			fieldToken: golden, fieldRoom: "support-4711", fieldConsumerID: testConsumer,
			fieldNotBefore: 1896080370.0, fieldExpiration: 1896081300.0, fieldTTL: 900.0, fieldKeyVersion: 1.0,
		}, resp.Data, "the same answer by read and by write")
	}
	require.Equal(t, map[string]any{
		"aud": "clanmeeting", "context": map[string]any{}, "exp": json.Number("1896081300"), "iss": "production",
		"nbf": json.Number("1896080370"), "room": "support-4711", "sub": "acme",
	}, verified(t, golden, testKey(t)))
	header, err := base64.RawURLEncoding.DecodeString(strings.Split(golden, ".")[0])
	require.NoError(t, err)
	require.JSONEq(t, `{"alg":"RS256","kid":"acme","typ":"JWT"}`, string(header))
}

// A caller tries rooms that the role does not allow. Package room has all forms of names and
// globs.
func TestRooms(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/globs", map[string]any{fieldAllowedRooms: "support-*,exact,4711"})
	m.mustWrite("roles/any", map[string]any{fieldAllowedRooms: "*", fieldDefaultRoom: "a-1"})
	m.mustWrite("roles/wildcard", map[string]any{fieldAllowWildcardRoom: true})
	long := strings.Repeat("a", 255)
	for role, rooms := range map[string]map[any]string{
		"globs":    {"SUPPORT-1": "support-1", "support-": "support-", "exact": "exact", 4711: "4711"},
		"any":      {"x": "x", long: long, nil: "a-1"},
		"wildcard": {"*": "*"},
	} {
		for room, want := range rooms {
			answer, claims := m.token(role, map[string]any{fieldRoom: room})
			require.Equal(t, []any{want, want}, []any{answer[fieldRoom], claims["room"]})
		}
	}
	for role, rooms := range map[string][]any{
		"globs":    {"exactly", "my-exact", "my-support-1", "support", "*", "support-*"},
		"any":      {"*", "**", "a*"},
		"wildcard": {"a", "**", "%2a"},
	} {
		for _, room := range append(rooms,
			"support-1 ", "support-1\x00", "support-1%2c*", "support-1,*", "support-1/../x", "{{identity.entity.name}}", "support-.*", "*\n",
			"ѕupport-1", "\u212aitchen", "support-\u200b1", "＊", "support-"+strings.Repeat("x", 10_000),
			true, 1.5, []any{"support-1", "*"}, map[string]any{"a": "support-1"},
		) {
			message := m.refused(logical.ReadOperation, "creds/"+role, map[string]any{fieldRoom: room})
			require.Contains(t, message, "room", "%s %q", role, room)
			require.Less(t, len(message), 400, "%s %q", role, room)
		}
	}
	require.Equal(t, "room is required: this role has no default_room", m.refused(logical.ReadOperation, "creds/globs", nil))
	require.Contains(t, m.refused(logical.ReadOperation, "creds/globs", map[string]any{fieldRoom: ""}), "room is empty; name a room, or leave room out to get the role's default_room")
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

// A caller tries to get more time than the role allows.
func TestTTL(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/short", map[string]any{fieldAllowedRooms: "*", fieldTTL: "5m", fieldMaxTTL: "10m"})
	m.mustWrite("roles/long", map[string]any{fieldAllowedRooms: "*", fieldTTL: "5m", fieldMaxTTL: "200h"})
	m.system.MaxLeaseTTLVal = 100 * time.Hour

	for _, test := range []struct {
		role string
		ttl  any
		want int64
		cut  bool
	}{
		{"short", nil, 300, false},
		{"short", "", 300, false},
		{"short", 0, 300, false},
		{"short", "1s", 1, false},
		{"short", 60, 60, false},
		{"short", "10m", 600, false},
		{"short", "601", 600, true},
		{"short", "10h", 600, true},
		{"short", "365d", 600, true},
		{"short", 9223372036, 600, true},
		{"long", "100h", 360_000, false},
		{"long", "101h", 360_000, true},
	} {
		data := map[string]any{fieldRoom: "x"}
		if test.ttl != nil {
			data[fieldTTL] = test.ttl
		}
		resp := m.must(m.call(logical.ReadOperation, "creds/"+test.role, data))
		require.EqualValues(t, test.want, resp.Data[fieldTTL], "%v", test.ttl)
		require.EqualValues(t, testNow.Unix()+test.want, resp.Data[fieldExpiration], "%v", test.ttl)
		if test.cut {
			require.Len(t, resp.Warnings, 1, "%v", test.ttl)
			require.Contains(t, resp.Warnings[0], "TTL value is capped accordingly")
		} else {
			require.Empty(t, resp.Warnings, "%v", test.ttl)
		}
		claims := verified(t, resp.Data[fieldToken].(string), testKey(t))
		require.Equal(t, json.Number(base10(testNow.Unix()+test.want)), claims["exp"])
	}

	for _, ttl := range []any{"-1", "-5m", "forever", "1.5s", "500ms", 1.5, []any{60}, "9223372036854775807", 1e300, map[string]any{}, "5m,10h"} {
		require.Contains(t, m.refused(logical.ReadOperation, "creds/short", map[string]any{fieldRoom: "x", fieldTTL: ttl}), fieldTTL, "%v", ttl)
	}
	// A request can't set max_ttl.
	resp := m.must(m.call(logical.ReadOperation, "creds/short", map[string]any{fieldRoom: "x", fieldTTL: "10h", fieldMaxTTL: "10h", "max_not_before": "1h"}))
	require.EqualValues(t, 600, resp.Data[fieldTTL])
}

func base10(n int64) string { return json.Number(must(json.Marshal(n))).String() }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestNotBefore(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/webinar", map[string]any{fieldAllowedRooms: "*", fieldTTL: "5m", fieldMaxNotBefore: "24h", fieldNotBeforeDuration: "60s"})
	m.mustWrite("roles/patient", map[string]any{fieldAllowedRooms: "*", fieldNotBeforeDuration: "10h"})
	now := testNow.Unix()
	at := func(offset int64) string { return time.Unix(now+offset, 0).UTC().Format(time.RFC3339) }

	for _, test := range []struct {
		notBefore any
		want      int64 // from now
	}{
		{at(3600), 3600},
		{now + 3600, 3600},
		{base10(now + 3600), 3600},
		{time.Unix(now+3600, 0).In(time.FixedZone("", 2*3600)).Format(time.RFC3339), 3600},
		{time.Unix(now+3600, 999_000_000).UTC().Format(time.RFC3339Nano), 3600},
		{at(86400), 86400},
		{at(0), 0},
		{at(-60), -60},
	} {
		answer, claims := m.token("webinar", map[string]any{fieldRoom: "x", fieldNotBefore: test.notBefore})
		require.EqualValues(t, now+test.want, answer[fieldNotBefore], "%v", test.notBefore)
		require.EqualValues(t, now+test.want+300, answer[fieldExpiration], "%v", test.notBefore)
		require.EqualValues(t, test.want+300, answer[fieldTTL], "%v", test.notBefore)
		require.Equal(t, json.Number(base10(now+test.want)), claims["nbf"])
		require.Equal(t, json.Number(base10(now+test.want+300)), claims["exp"])
	}
	for _, test := range []struct {
		role      string
		notBefore any
		want      string
	}{
		{"webinar", at(86401), "further ahead than the 24h0m0s of this role's max_not_before; ask closer to the time"},
		{"webinar", now * 1000, "not_before seems to be in milliseconds; give it in seconds"},
		{"webinar", at(-61), "more than 1m0s in the past"},
		{"webinar", "0", "more than 1m0s in the past"},
		{"webinar", -1, "more than 1m0s in the past"},
		{"support", at(1), "this role has no max_not_before"},
		{"patient", at(-10 * 3600), "would already have expired"},
		{"patient", at(-900), "would already have expired"},
		{"webinar", "tomorrow", "not_before must be RFC 3339, like 2030-01-31T09:00:00Z, or whole seconds since the epoch"},
		{"webinar", "0001-01-01T00:00:00Z", "must be after 0001-01-01T00:00:00Z"},
		{"webinar", -62135596799, "more than 1m0s in the past"},
		{"webinar", -62135596800, "must be after 0001-01-01T00:00:00Z"},
	} {
		message := m.refused(logical.UpdateOperation, "creds/"+test.role, map[string]any{fieldRoom: "support-1", fieldNotBefore: test.notBefore})
		require.Contains(t, message, test.want, "%v", test.notBefore)
	}
}

func TestLease(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/leased", map[string]any{fieldAllowedRooms: "*", fieldGenerateLease: true, fieldTTL: "5m", fieldMaxTTL: "10m", fieldMaxNotBefore: "1h"})
	for want, data := range map[time.Duration]map[string]any{
		5 * time.Minute:  {fieldRoom: "x"},
		time.Minute:      {fieldRoom: "x", fieldTTL: "1m"},
		10 * time.Minute: {fieldRoom: "x", fieldTTL: "1h"}, // cut, with a warning
		35 * time.Minute: {fieldRoom: "x", fieldNotBefore: testNow.Unix() + 1800},
	} {
		resp := m.must(m.call(logical.UpdateOperation, "creds/leased", data))
		require.NotNil(t, resp.Secret)
		require.Equal(t, want, resp.Secret.TTL)
		require.Equal(t, want, resp.Secret.MaxTTL)
		require.False(t, resp.Secret.Renewable)
		require.EqualValues(t, want.Seconds(), resp.Data[fieldTTL])
		require.Equal(t, data[fieldTTL] == "1h", len(resp.Warnings) == 1)

		_, err := m.wire.HandleRequest(t.Context(), &logical.Request{Operation: logical.RevokeOperation, Path: "creds/leased", Secret: resp.Secret, Storage: m.storage})
		require.NoError(t, err)
	}
}

// Vault cuts a lease at the mount's maximum. If the lease would then end before its token,
// the request is refused.
func TestLeaseBeyondTheMount(t *testing.T) {
	m := configured(t)
	m.system.MaxLeaseTTLVal = time.Hour
	m.mustWrite("roles/leased", map[string]any{fieldAllowedRooms: "*", fieldGenerateLease: true, fieldTTL: "5m", fieldMaxNotBefore: "3650d"})
	resp := m.must(m.call(logical.ReadOperation, "creds/leased", map[string]any{fieldRoom: "x", fieldNotBefore: testNow.Unix() + 3300}))
	require.Equal(t, time.Hour, resp.Secret.TTL)
	for _, ahead := range []int64{3301, 315_350_000} {
		require.Contains(t, m.refused(logical.ReadOperation, "creds/leased", map[string]any{fieldRoom: "x", fieldNotBefore: testNow.Unix() + ahead}), "exceed the mount's maximum TTL")
	}
	m.mustWrite("roles/leased", map[string]any{fieldGenerateLease: false})
	answer, _ := m.token("leased", map[string]any{fieldRoom: "x", fieldNotBefore: testNow.Unix() + 315_350_000})
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

func TestCredsWriteNothing(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/leased", map[string]any{fieldAllowedRooms: "*", fieldGenerateLease: true})
	before := m.storage.written()
	for range 3 {
		m.token("support", map[string]any{fieldRoom: "support-1"})
		m.token("leased", map[string]any{fieldRoom: "x"})
		m.refused(logical.ReadOperation, "creds/support", map[string]any{fieldRoom: "other"})
		m.mustRead("check/support", map[string]any{fieldRoom: "support-1"})
	}
	require.Equal(t, before, m.storage.written())
}
