// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"errors"
	"math"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/stretchr/testify/require"
)

// Every notation that people and tools use for a value: what it means, or that it is
// refused.
func TestTakeValue(t *testing.T) {
	t.Parallel()
	const newYear = int64(1893456000) // 2030
	for kind, values := range map[framework.FieldType]struct {
		accepted map[any]any
		refused  map[error][]any
	}{
		framework.TypeInt: {
			map[any]any{
				"10": 10, "010": 10, "-1": -1, 10.0: 10, json.Number("1e1"): 10, 10: 10, int64(7): 7,
				"2147483647": 2147483647, "-2147483648": -2147483648,
			},
			map[error][]any{
				errNotWhole: {
					"0x2", "0o7", "1_0", "1.0", "1e1", " 1", "+1", "", "x", "１", true, 1.5, math.Inf(1), math.NaN(), json.Number("1e999"),
				},
				errLargeNumber: {"2147483648", "-2147483649", "99999999999999999999", 1e18},
			},
		},
		framework.TypeBool: {
			map[any]any{true: true, false: false, "true": true, "false": false, "1": true, "0": false, 1.0: true, 0.0: false, "T": true},
			map[error][]any{errNotFlag: {"", "yes", "on", "2", 2.0, -1.0, " true"}},
		},
		framework.TypeString: {
			map[any]any{"a": "a", "": "", "010": "010", 4711.0: "4711", json.Number("5"): "5", 9007199254740991.0: "9007199254740991"},
			map[error][]any{errNotText: {true, 1.5, 9007199254740992.0, -9007199254740992.0, 1e300, json.Number("9007199254740993")}},
		},
		framework.TypeDurationSecond: {
			map[any]any{
				"90": int64(90), "090": int64(90), 90.0: int64(90), "90s": int64(90), "1h30m": int64(5400), "0.5h": int64(1800),
				"7d": int64(604800), "0": int64(0), "1000ms": int64(1), "9223372036": int64(9223372036), json.Number("3e2"): int64(300), "": nil,
			},
			map[error][]any{
				errNotDuration: {
					"-1", "-5m", "-1d", "1.5s", "500ms", "1.5d", "d", 1.5, "soon", "0x10", "1_0", " 5m", "5 m", "+5", "5M", "5m,10h", true,
				},
				errLongDuration: {"9223372037", "99999999999999999999", "106752d", "99999999999999999999d", "2562048h", 1e300},
			},
		},
		framework.TypeTime: {
			map[any]any{
				"1893456000": newYear, 1893456000.0: newYear, "0001893456000": newYear, "0": int64(0), "-1": int64(-1), "": nil,
				"2030-01-01T00:00:00Z": newYear, "2030-01-01t00:00:00z": newYear, "2030-01-01T00:00:00.999Z": newYear,
				"2030-01-01T02:00:00+02:00": newYear, "2030-01-01T02:00:00 02:00": newYear, "2029-12-31T22:00:00-02:00": newYear,
				"2029-12-31T23:59:60Z": newYear, "2029-12-31T23:59:60.5Z": newYear, "1990-12-31T15:59:60-08:00": int64(662688000),
				"1969-12-31T23:59:59.5Z": int64(-1), "99999999999": int64(99999999999),
				"0001-01-01T00:00:01Z": int64(-62135596799), "9999-12-31T23:59:59Z": int64(253402300799),
			},
			map[error][]any{
				errNotTime: {
					"2030-01-01 00:00:00Z", "2030-01-01T00:00:00", "2030-01-01", "2030-01-01T0:00:00Z", "2030-01-01T00:00:00,5Z",
					"2030-01-01T00:00:00+25:00", "2030-01-01T00:00:00+0200", "2030-02-30T00:00:00Z", "2030-01-01T24:00:00Z",
					"2030-01-01T00:00:60Z", "2029-12-31T23:59:61Z", "2029-12-31T23:58:60Z", "2030-01-01T00:00:00Z\n",
					"tomorrow", "1.5", "1e9", "0x1", 1.5, true,
				},
				errNoDate:       {"0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "9999-12-31T23:59:60Z"},
				errMilliseconds: {"100000000000", "-100000000000", 1893456000000.0, "9223372036854775808", 1e300},
			},
		},
		framework.TypeCommaStringSlice: {
			nil,
			map[error][]any{
				errNotTexts: {true, 5.0, map[string]any{}, map[string]any{"a": "b"}},
				errors.New("must be a list of strings; its entry 2 is not a string"): {
					[]any{"a", true}, []any{"a", nil}, []any{"a", 1.5}, []any{"a", []any{"a"}}, []any{"a", map[string]any{"a": "b"}},
				},
			},
		},
		framework.TypeSlice: {nil, map[error][]any{errNotObjects: {true, 5.0, "a", map[string]any{}}}},
	} {
		for raw, want := range values.accepted {
			got, err := takeValue(raw, kind)
			require.NoError(t, err, "%v: %#v", kind, raw)
			require.Equal(t, want, got, "%v: %#v", kind, raw)
			for _, list := range []any{[]any{raw}, []any{}, map[string]any{}, map[string]any{"1": raw}} {
				_, err = takeValue(list, kind)
				require.Error(t, err, "%v: %v", kind, list)
			}
		}
		for refusal, raws := range values.refused {
			for _, raw := range raws {
				_, err := takeValue(raw, kind)
				require.EqualError(t, err, refusal.Error(), "%v: %#v", kind, raw)
			}
		}
	}
	for _, test := range []struct {
		raw  any
		want []string
	}{
		{"a, b-*", []string{"a", "b-*"}},
		{"", []string{}},
		{"a,,b", []string{"a", "", "b"}},
		{"[true]", []string{"[true]"}},
		{[]any{"a", 4711.0, " b"}, []string{"a", "4711", "b"}},
		{[]string{"a"}, []string{"a"}},
		{[]any{}, []string{}},
	} {
		got, err := takeValue(test.raw, framework.TypeCommaStringSlice)
		require.NoError(t, err)
		require.Equal(t, test.want, got)
	}
}

// A message names all fields with a wrong value, each time in the same order.
func TestRefusedValues(t *testing.T) {
	require.Equal(t, "not_before must be RFC 3339, like 2030-01-31T09:00:00Z, or whole seconds since the epoch; "+
		"room must be one string; ttl must be in whole seconds and not negative, like 90, 90s or 15m",
		configured(t).refusal("support", map[string]any{fieldRoom: true, fieldTTL: true, fieldNotBefore: true}))
}
