// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// Every notation that people and tools use for a value: what it means, or that it is
// refused.
func TestTakeValue(t *testing.T) {
	t.Parallel()
	// Refused as no value of its type, and as too large.
	wrong, large := errors.New("wrong"), errors.New("large")
	refusals := map[framework.FieldType]map[error]error{
		framework.TypeInt:            {wrong: errNotWhole, large: errLargeNumber},
		framework.TypeBool:           {wrong: errNotFlag},
		framework.TypeString:         {wrong: errNotText},
		framework.TypeDurationSecond: {wrong: errNotDuration, large: errLongDuration},
		framework.TypeTime:           {wrong: errNotTime, errNoDate: errNoDate, errMilliseconds: errMilliseconds},
	}
	for kind, values := range map[framework.FieldType]map[any]any{
		framework.TypeInt: {
			"10": 10, "010": 10, "-1": -1, "0": 0, 10.0: 10, json.Number("10"): 10, 10: 10, json.Number("1e1"): 10, int64(7): 7,
			"0x2": wrong, "0b1": wrong, "0o7": wrong, "1_0": wrong, "1.0": wrong, "1e1": wrong, " 1": wrong, "+1": wrong, "": wrong, "x": wrong, "１": wrong,
			true: wrong, 1.5: wrong, json.Number("1.5"): wrong, math.Inf(1): wrong, math.NaN(): wrong, json.Number("1e999"): wrong,
			"99999999999": large, 1e18: large, "99999999999999999999": large,
			"2147483647": 2147483647, "2147483648": large, "-2147483648": -2147483648, "-2147483649": large,
		},
		framework.TypeBool: {
			true: true, false: false, "true": true, "false": false, "1": true, "0": false, 1.0: true, 0.0: false, "T": true,
			"": wrong, "yes": wrong, "on": wrong, 2.0: wrong, "2": wrong, " true": wrong, -1.0: wrong,
		},
		framework.TypeString: {
			"a": "a", "": "", 4711.0: "4711", json.Number("5"): "5", "010": "010",
			true: wrong, 1.5: wrong, 9007199254740992.0: wrong, -9007199254740992.0: wrong, 9007199254740991.0: "9007199254740991", 1e300: wrong, json.Number("9007199254740993"): wrong,
		},
		framework.TypeDurationSecond: {
			"90": int64(90), "090": int64(90), 90.0: int64(90), "90s": int64(90), "15m": int64(900), "1h30m": int64(5400), "0.5h": int64(1800), "7d": int64(604800), "0": int64(0), "0s": int64(0),
			json.Number("3e2"): int64(300), "": nil, "9223372036": int64(9223372036), "1000ms": int64(1),
			"-1": wrong, "-5m": wrong, "-1d": wrong, "1.5s": wrong, "500ms": wrong, 1.5: wrong, "soon": wrong, "0x10": wrong, "1_0": wrong, "1.5d": wrong, "d": wrong, " 5m": wrong, "5 m": wrong, "+5": wrong, "5M": wrong, true: wrong, "5m,10h": wrong,
			"-99999999999999999999": wrong,
			"9223372037":            large, "99999999999999999999": large, "106752d": large, "99999999999999999999d": large, "2562048h": large, "9999999999999999999999s": large, 1e300: large,
		},
		framework.TypeTime: {
			"1893456000": int64(1893456000), 1893456000.0: int64(1893456000), "2030-01-01T00:00:00Z": int64(1893456000), "2030-01-01t00:00:00z": int64(1893456000),
			"2030-01-01T02:00:00+02:00": int64(1893456000), "2030-01-01T02:00:00 02:00": int64(1893456000), "2029-12-31T22:00:00-02:00": int64(1893456000),
			"2030-01-01T00:00:00.999Z": int64(1893456000), "": nil, "0": int64(0), "-1": int64(-1), "0001893456000": int64(1893456000), "1969-12-31T23:59:59.5Z": int64(-1),
			"2030-01-01 00:00:00Z": wrong, "2030-01-01T00:00:00": wrong, "2030-01-01": wrong, "2030-01-01T0:00:00Z": wrong, "2030-01-01T00:00:00,5Z": wrong, "2030-01-01T00:00:00+25:00": wrong,
			"2030-01-01T00:00:00+0200": wrong, "2030-02-30T00:00:00Z": wrong, "2030-01-01T24:00:00Z": wrong, "2030-01-01T00:00:60Z": wrong, "tomorrow": wrong, 1.5: wrong, "1.5": wrong, "1e9": wrong, "0x1": wrong, true: wrong,
			"2029-12-31T23:59:60Z": int64(1893456000), "1990-12-31T15:59:60-08:00": int64(662688000), "2029-12-31T23:59:60.5Z": int64(1893456000), "2029-12-31T23:59:61Z": wrong, "2029-12-31T23:58:60Z": wrong,
			"0001-01-01T00:00:00Z": errNoDate, "0001-01-01T00:00:01Z": int64(-62135596799), "9999-12-31T23:59:59Z": int64(253402300799), "9999-12-31T23:59:59-23:59": errNoDate, "9999-12-31T23:59:60Z": errNoDate,
			"99999999999": int64(99999999999), 1893456000000.0: errMilliseconds, "-1893456000000": errMilliseconds,
			"2030-01-01T00:00:00ZZ": wrong, "2030-01-01T00:00:00Z\n": wrong,
			"9223372036854775807": errMilliseconds, "99999999999999999999": errMilliseconds, 1e300: errMilliseconds, "-9223372036854775807": errMilliseconds,
		},
	} {
		for raw, want := range values {
			got, err := takeValue(raw, kind)
			if refusal, ok := want.(error); ok {
				require.Equal(t, refusals[kind][refusal], err, "%v: %#v", kind, raw)
				continue
			}
			require.NoError(t, err, "%v: %#v", kind, raw)
			require.Equal(t, want, got, "%v: %#v", kind, raw)
		}
	}
}

func TestTakeLists(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ raw, want any }{
		{"a, b-*", []string{"a", "b-*"}},
		{"", []string{}},
		{"a,,b", []string{"a", "", "b"}},
		{[]any{"a", 4711.0, " b"}, []string{"a", "4711", "b"}},
		{[]string{"a"}, []string{"a"}},
		{[]any{}, []string{}},
		{"[true]", []string{"[true]"}},
	} {
		got, err := takeValue(test.raw, framework.TypeCommaStringSlice)
		require.NoError(t, err)
		require.Equal(t, test.want, got)
	}
	for _, raw := range []any{true, 5.0, map[string]any{"a": "b"}, map[string]any{}} {
		_, err := takeValue(raw, framework.TypeCommaStringSlice)
		require.ErrorIs(t, err, errNotTexts, "%v", raw)
		_, err = takeValue(raw, framework.TypeSlice)
		require.ErrorIs(t, err, errNotObjects, "%v", raw)
	}
	for _, item := range []any{true, nil, 1.5, []any{"a"}, map[string]any{"a": "b"}} {
		_, err := takeValue([]any{"a", item}, framework.TypeCommaStringSlice)
		require.ErrorContains(t, err, "its entry 2 is not a string", "%v", item)
	}
	for _, kind := range []framework.FieldType{framework.TypeInt, framework.TypeBool, framework.TypeString, framework.TypeDurationSecond, framework.TypeTime} {
		for _, raw := range []any{[]any{"1"}, []any{}, map[string]any{}, map[string]any{"1": 1}} {
			_, err := takeValue(raw, kind)
			require.Error(t, err, "%v: %v", kind, raw)
		}
	}
}

// sendable returns a copy.
func TestSendable(t *testing.T) {
	t.Parallel()
	claims := func() map[string]any {
		return map[string]any{"a": []any{json.Number("9007199254740992"), json.Number("1")}, "b": map[string]any{"c": json.Number("1e999")}}
	}
	given := claims()
	require.Equal(t, map[string]any{"a": []any{"9007199254740992", json.Number("1")}, "b": map[string]any{"c": "1e999"}}, sendable(given))
	require.Equal(t, claims(), given)
}

// A refused value changes nothing, and the message says what would be right: on every
// path, in a batch, and from check.
func TestRefusedValues(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/webinar", map[string]any{fieldAllowedRooms: "*", fieldMaxNotBefore: "1d"})
	entries := m.entries()
	for _, test := range []struct {
		path, field string
		value       any
		want        string
	}{
		{"config", fieldActiveKey, "0x2", "active_key must be a whole number in decimal digits"},
		{"config", fieldActiveKey, "010", "active_key 10 does not exist"},
		{"config", fieldPrivateKey, []any{"x"}, "private_key must be one string"},
		{"keys/import", fieldPrivateKey, true, "private_key must be one string"},
		{"config", fieldDeleteEndedRolesAfter, "3651d", "delete_ended_roles_after is too large: the maximum is 3650 days"},
		{"keys/generate", fieldKeyBits, "0x800", "key_bits must be a whole number"},
		{"roles/webinar", fieldAllowedRooms, []any{"a", nil}, "allowed_rooms must be a list of strings; its entry 2 is not a string"},
		{"roles/webinar", fieldAllowedRooms, true, "allowed_rooms must be a list of strings"},
		{"roles/webinar", fieldGenerateLease, "yes", "generate_lease must be true or false"},
		{"roles/webinar", fieldTTL, "9223372037", "ttl is too large"},
		{"roles/webinar", fieldMaxTTL, "87600h1s", "max_ttl is too large: the maximum is 3650 days"},
		{"roles/webinar", fieldMaxNotBefore, "3651d", "max_not_before is too large: the maximum is 3650 days"},
		{"roles/webinar", fieldNotBeforeDuration, 86401, "not_before_duration is too large: the maximum is 1 day"},
		{"creds/webinar", fieldTTL, "0x10", "ttl must be in whole seconds"},
		{"creds/webinar", fieldNotBefore, "2030-02-30T00:00:00Z", "not_before must be RFC 3339"},
		{"creds/webinar", fieldNotBefore, "9223372036854775807", "not_before seems to be in milliseconds; give it in seconds"},
		{"creds/webinar", fieldRoom, true, "room must be one string"},
		{"creds/webinar", fieldBatchInput, map[string]any{"room": "a"}, "batch_input must be a list of objects"},
	} {
		data := map[string]any{test.field: test.value}
		if strings.HasPrefix(test.path, "creds/") && test.field != fieldRoom && test.field != fieldBatchInput {
			data[fieldRoom] = "a"
		}
		message := m.refused(logical.UpdateOperation, test.path, data)
		require.Contains(t, message, test.want, "%s %s=%v", test.path, test.field, test.value)
		if strings.HasPrefix(test.path, "creds/") && test.field != fieldBatchInput {
			require.Equal(t, map[string]any{fieldAllowed: false, fieldReason: message}, m.mustRead("check/webinar", data))
			require.Contains(t, m.refused(logical.UpdateOperation, test.path, map[string]any{fieldBatchInput: []any{data}}), "batch_input[0]: "+message)
		}
	}
	require.Equal(t, entries, m.entries())
	require.Equal(t, `role "none" not found`, m.refused(logical.ReadOperation, "check/none", map[string]any{fieldTTL: true}))
}

// Notations that have one meaning.
func TestAcceptedValues(t *testing.T) {
	m := configured(t)
	m.storeKey(10, storedOf(t, readTestdata(t, "rsa2048.openssh.pem")))
	m.mustWrite("config", map[string]any{fieldActiveKey: "010", fieldIssuer: "Führung №1"})
	require.EqualValues(t, 10, m.creds()[fieldKeyVersion])

	m.mustWrite("roles/a", map[string]any{fieldAllowedRooms: "a", fieldMaxNotBefore: "3650d", fieldMaxTTL: "3650d", fieldTTL: "3650d", fieldNotBeforeDuration: "24h"})
	m.mustWrite("roles/a", map[string]any{fieldTTL: "5m", fieldMaxTTL: "1h", fieldNotBeforeDuration: 30})
	now := testNow.Unix()
	for _, at := range []any{"2030-01-31t10:00:00z", "2030-01-31T12:00:00 02:00", "01896084000"} {
		answer := m.mustRead("creds/a", map[string]any{fieldRoom: "a", fieldNotBefore: at})
		require.EqualValues(t, now+3600, answer[fieldNotBefore], "%v", at)
	}
	for _, empty := range []any{"", nil} { // not given
		answer := m.mustRead("creds/a", map[string]any{fieldRoom: "a", fieldTTL: empty, fieldNotBefore: empty})
		require.Equal(t, []any{float64(now - 30), 300.0}, []any{answer[fieldNotBefore], answer[fieldTTL]})
	}
	before := m.mustRead("roles/a", nil)
	m.mustWrite("roles/a", map[string]any{fieldTTL: "", fieldMaxTTL: "", fieldMaxNotBefore: ""})
	require.Equal(t, before, m.mustRead("roles/a", nil))
}

// The same request gets the same refusal every time.
func TestRefusalsAreDeterministic(t *testing.T) {
	m := newTestMount(t)
	for path, data := range map[string]map[string]any{
		"config":  {fieldConsumerID: "a.b", fieldAudience: " a", fieldDomain: "a:1"},
		"roles/a": {fieldAllowedRooms: "a b", fieldTTL: "9999d", fieldMaxTTL: "4000d", fieldNotBeforeDuration: "2d"},
		"creds/x": {fieldRoom: true, fieldTTL: true, fieldNotBefore: true, fieldBatchInput: true},
	} {
		first := m.refused(logical.UpdateOperation, path, data)
		for range 40 {
			require.Equal(t, first, m.refused(logical.UpdateOperation, path, data))
		}
	}
}
