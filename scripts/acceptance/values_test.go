// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// The refusals that many values share.
const (
	notInt      = "must be a whole number in decimal digits"
	notBool     = "must be true or false"
	notDuration = "must be in whole seconds and not negative"
	notTime     = "must be RFC 3339"
	notString   = "must be one string"
	notList     = "must be a list of strings"
	tooLarge    = "too large"
)

// A value of the configuration has one meaning, or it is refused.
func TestOneMeaningPerConfigValue(t *testing.T) {
	mount := twoKeys(t)
	before := root(t).read(mount + "/config")
	for field, cases := range map[string]map[string]string{
		"active_key": {
			`"010"`: "active_key 10 does not exist", `"002 "`: notInt, `"0x2"`: notInt, `"0b10"`: notInt, `"0o2"`: notInt, `"2_0"`: notInt, `"2.0"`: notInt,
			`"2e0"`: notInt, `"+2"`: notInt, `" 2"`: notInt, `"\uff12"`: notInt, `""`: notInt, `true`: notInt, `false`: notInt, `"true"`: notInt, `2.5`: notInt,
			`[2]`: notInt, `{"version":2}`: notInt, `-2`: "does not exist", `0`: "only while no key is active", `"0"`: "only while no key is active",
			`4294967298`: tooLarge, `"4294967298"`: tooLarge, `18446744073709551618`: tooLarge, `1e300`: tooLarge, `3`: "active_key 3 does not exist",
		},
		"audience": {
			`"\ufeffclanmeeting"`: "visible", `"clanmeeting\ufeff"`: "visible", `"clan\u200bmeeting"`: "visible", `"clan\u00admeeting"`: "visible", `"clanmeeting\n"`: "visible",
			`"clanmeeting\r\n"`: "visible", `" clanmeeting"`: "visible", `"clan\u0000"`: "visible", `"\u202egniteemnalc"`: "visible", `"\u3164"`: "visible", `"x\ufe0f"`: "visible",
			`"\u2060x"`: "visible", `"x\u2028"`: "visible", `"\u00a0x"`: "visible", `true`: notString, `1.5`: notString, `["clanmeeting"]`: notString, `{"x":1}`: notString, `1e300`: notString,
		},
		"issuer":      {`"\ufeffproduction"`: "visible", `"production\n"`: "visible", `"produc\u200btion"`: "visible", `"\t"`: "visible", `false`: notString, `["production"]`: notString},
		"consumer_id": {`"acme\n"`: "letters", `"ac\u200bme"`: "letters", `"\uff41cme"`: "letters", `true`: notString, `["acme"]`: notString, `1.5`: notString, `12345678901234567890`: notString},
		"domain":      {`"meet.example.com\n"`: "host name", `"meet.example.com\u200b"`: "host name", `"meet.example.com."`: "host name", `"https://meet.example.com"`: "host name", `"m\u00e9t.example"`: "host name", `false`: notString, `["x"]`: notString},
		"private_key": {`true`: notString, `5e-1`: notString, `["x"]`: notString, `{"pem":"x"}`: notString, `""`: "is empty", `5`: "is not a PEM"},
	} {
		for value, text := range cases {
			root(t).sendJSON(mount+"/config", field, value).refused(t, text, field, value)
		}
	}
	require.Equal(t, before, root(t).read(mount+"/config"))

	for value, want := range map[string]string{`"02"`: "2", `1`: "1", `"2"`: "2", `"0000000000001"`: "1"} {
		reply := root(t).sendJSON(mount+"/config", "active_key", value)
		require.Equal(t, http.StatusNoContent, reply.status, reply.raw)
		require.Equal(t, json.Number(want), root(t).read(mount + "/config")["active_key"], value)
	}
	for value, text := range map[string]string{`true`: notInt, `"0x800"`: notInt, `2048.5`: notInt, `"2048 "`: notInt, `[2048]`: notInt, `1e300`: tooLarge, `1024`: "must be 2048", `"03777"`: "must be 2048"} {
		root(t).sendJSON(mount+"/keys/generate", "key_bits", value).refused(t, text, value)
	}
}

// A configuration without a key can be read, and the values can be written again.
func TestConfigWithoutKeyReadsBack(t *testing.T) {
	mount := enable(t)
	root(t).write(mount+"/config", map[string]any{"consumer_id": "acme"})
	data := root(t).read(mount + "/config")
	require.Equal(t, json.Number("0"), data["active_key"])
	root(t).write(mount+"/config", data)
	require.Equal(t, data, root(t).read(mount+"/config"))
	root(t).sendJSON(mount+"/config", "active_key", "1").refused(t, "does not exist")
}

// A value of a role has one meaning, or it is refused, as JSON and as a form.
func TestOneMeaningPerRoleValue(t *testing.T) {
	mount, _ := configured(t)
	role := mount + "/roles/support"
	before := root(t).read(role)
	durations := map[string]string{
		`"9223372037"`: tooLarge, `9223372037`: tooLarge, `"9223372036854775808"`: tooLarge, `"99999999999999999999999d"`: tooLarge, `"106752d"`: tooLarge, `"2562048h"`: tooLarge,
		`1e20`: tooLarge, `"3651d"`: tooLarge, `"36500d"`: tooLarge, `-1`: notDuration, `"-1s"`: notDuration, `"-99999999999999999999"`: notDuration, `"1.5"`: notDuration,
		`1.5`: notDuration, `"1500ms"`: notDuration, `"0x10"`: notDuration, `"1e3"`: notDuration, `true`: notDuration, `[300]`: notDuration, `{"s":1}`: notDuration,
		`"5 m"`: notDuration, `"\uff15m"`: notDuration, `"5m\n"`: notDuration, `"5M"`: notDuration, `"1d12h"`: notDuration, `"infinity"`: notDuration, `"1_0"`: notDuration,
	}
	booleans := map[string]string{`"yes"`: notBool, `"on"`: notBool, `2`: notBool, `"2"`: notBool, `1.5`: notBool, `"tRUE"`: notBool, `" true"`: notBool, `[true]`: notBool, `{"a":true}`: notBool, `""`: notBool}
	for field, cases := range map[string]map[string]string{
		"allowed_rooms": {
			`[true]`: "entry 1 of allowed_rooms must be a string", `["a",null]`: "entry 2", `[["a"]]`: "entry 1", `["a","b",{"c":1}]`: "entry 3", `[1.5]`: "entry 1", `[1e300]`: "entry 1",
			`{"a":1}`: notList, `true`: notList, `5.5`: notList, `"a,,b"`: "entry 2", `["a,b"]`: "entry 1", `["a\u200b"]`: "entry 1", `["\u212aitchen"]`: "entry 1", `"a;b"`: "entry 1",
			`["{{identity.entity.id}}"]`: "set allowed_rooms_template=true",
		},
		"default_room":           {`true`: notString, `["support-1"]`: notString, `{"a":1}`: notString, `"billing"`: "must itself be allowed", `"support-1\n"`: "one room name", `1.5`: notString},
		"ttl":                    durations,
		"max_ttl":                durations,
		"max_not_before":         durations,
		"not_before_duration":    mergeMaps(durations, map[string]string{`"25h"`: tooLarge, `86401`: tooLarge}),
		"allow_wildcard_room":    booleans,
		"allowed_rooms_template": booleans,
		"generate_lease":         booleans,
	} {
		for value, text := range cases {
			root(t).sendJSON(role, field, value).refused(t, text, field, value)
			var plain string
			if json.Unmarshal([]byte(value), &plain) == nil {
				root(t).send(http.MethodPost, role, asForm, url.Values{field: {plain}}.Encode()).refused(t, text, field, value, "as a form")
			}
		}
	}
	require.Equal(t, before, root(t).read(role))
}

func mergeMaps(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// A role gets defaults that fit the written values. An empty value counts as not given.
func TestDefaultsOfARole(t *testing.T) {
	mount, _ := configured(t)
	number := func(role, field string) string { return fmt.Sprint(root(t).read(mount + "/roles/" + role)[field]) }
	root(t).write(mount+"/roles/short", `{"allowed_rooms":"x","max_ttl":"10m"}`)
	require.Equal(t, "600", number("short", "ttl"))
	require.Equal(t, json.Number("600"), root(t).read(mount+"/creds/short", "room", "x")["ttl"])
	root(t).write(mount+"/roles/short", `{"max_ttl":"1h"}`)
	require.Equal(t, "900", number("short", "ttl"))
	root(t).write(mount+"/roles/short", `{"ttl":"010","max_ttl":"","max_not_before":null,"not_before_duration":""}`)
	require.Equal(t, "10", number("short", "ttl"), "decimal")
	require.Equal(t, "3600", number("short", "max_ttl"))
	require.Equal(t, "30", number("short", "not_before_duration"))
	root(t).sendJSON(mount+"/roles/short", "max_ttl", "5").refused(t, "ttl of 10s is over max_ttl of 5s")
	root(t).write(mount+"/roles/short", `{"ttl":0,"max_ttl":"5"}`)
	require.Equal(t, "5", number("short", "ttl"))

	for body, warning := range map[string]string{
		`{"max_not_before":"91d"}`: "stops working when its key is replaced", `{"max_not_before":"3650d"}`: "stops working when its key is replaced", `{"max_ttl":"25h"}`: "can't be revoked",
	} {
		require.Contains(t, root(t).write(mount+"/roles/long", `{"allowed_rooms":"x",`+body[1:]).Warnings(), warning)
	}
	require.Empty(t, root(t).write(mount+"/roles/other", `{"allowed_rooms":["7",8],"max_not_before":"90d","not_before_duration":"24h"}`).Warnings())
	require.Equal(t, []any{"7", "8"}, root(t).read(mount + "/roles/other")["allowed_rooms"])
}

// A value in a request for a token means the same as JSON, as a form, in a query, in a
// batch, and for check. If it is refused, the message is the same.
func TestOneMeaningPerRequestValue(t *testing.T) {
	mount, _ := configured(t)
	root(t).write(mount+"/roles/webinar", `{"allowed_rooms":"launch,x-*,5","default_room":"launch","max_not_before":"24h"}`)
	start := time.Now().Add(2 * time.Hour).Truncate(time.Second).UTC()
	second := start.Format("2006-01-02T15:04:05")
	milliseconds := fmt.Sprint(start.UnixMilli())
	for field, cases := range map[string]map[string]string{
		"not_before": {
			`"` + second + `"`: notTime, `"` + strings.Replace(second, "T", " ", 1) + `Z"`: notTime, `"` + second + `+2:00"`: notTime, `"` + second + `+24:00"`: notTime, `"` + second + `,5Z"`: notTime,
			`"` + second[:11] + `24:00:00Z"`: notTime, `"2030-02-30T09:00:00Z"`: notTime, `"2030-13-01T09:00:00Z"`: notTime, `"tomorrow"`: notTime, `"1e9"`: notTime, `"0x6500000"`: notTime,
			`" ` + fmt.Sprint(start.Unix()) + `"`: notTime, `true`: notTime, `1.5`: notTime, `["2030-01-31T09:00:00Z"]`: notTime, `{"t":1}`: notTime, `"infinity"`: notTime,
			milliseconds: "seconds, not milliseconds", `"` + milliseconds + `"`: "seconds, not milliseconds", `"99999999999999999999"`: tooLarge, `1e300`: tooLarge, `"9223372036854775807"`: tooLarge,
			`0`: "in the past", `"-1"`: "in the past", `"1970-01-01T00:00:00Z"`: "in the past",
		},
		"ttl": {
			`"9223372037"`: tooLarge, `"106752d"`: tooLarge, `1e300`: tooLarge, `-1`: notDuration, `"-5m"`: notDuration, `1.5`: notDuration, `true`: notDuration, `"1 h"`: notDuration, `["5m"]`: notDuration, `"0x10"`: notDuration,
		},
		"room": {`true`: notString, `["launch"]`: notString, `{"a":"launch"}`: notString, `1.5`: notString, `"launch\u200b"`: "one room name", `"\ufefflaunch"`: "one room name", `"launch\n"`: "one room name", `"*"`: "allow_wildcard_room", `"billing"`: "not allowed"},
	} {
		for value, text := range cases {
			byCreds := root(t).sendJSON(mount+"/creds/webinar", field, value)
			byCreds.refused(t, text, field, value)
			message := byCreds.answer.Errors()
			check := root(t).sendJSON(mount+"/check/webinar", field, value)
			require.Equal(t, http.StatusOK, check.status, check.raw)
			require.Equal(t, map[string]any{"allowed": false, "reason": message}, check.answer.Data(), value)
			batch := root(t).send(http.MethodPost, mount+"/creds/webinar", asJSONBody, `{"batch_input":[{},{"`+field+`":`+value+`}]}`)
			batch.refused(t, "batch_input[1]: "+message, field, value, "in a batch")
			var plain string
			if json.Unmarshal([]byte(value), &plain) != nil {
				continue
			}
			encoded := url.Values{field: {plain}}.Encode()
			root(t).send(http.MethodPost, mount+"/creds/webinar", asForm, encoded).refused(t, message, field, value, "as a form")
			root(t).send(http.MethodGet, mount+"/creds/webinar?"+encoded, "", "").refused(t, message, field, value, "in a query")
		}
	}
	requireTimes(t, mount, start)
}

// requireTimes checks that all notations of a time mean the same in every kind of request.
func requireTimes(t *testing.T, mount string, start time.Time) {
	t.Helper()
	second, east := start.Format("2006-01-02T15:04:05"), start.Add(2*time.Hour).Format("2006-01-02T15:04:05")
	want := json.Number(fmt.Sprint(start.Unix()))
	creds := mount + "/creds/webinar"
	for _, value := range []string{
		second + "Z", strings.ToLower(second) + "z", second + "z", second + ".5Z", second + "+00:00", second + "-00:00", east + "+02:00", strings.ToLower(east) + "+02:00",
		fmt.Sprint(start.Unix()), "0" + fmt.Sprint(start.Unix()),
	} {
		for how, data := range map[string]map[string]any{
			"json":                 root(t).write(creds, map[string]any{"not_before": value}).Data(),
			"check":                root(t).write(mount+"/check/webinar", map[string]any{"not_before": value}).Data()["claims"].(map[string]any),
			"query":                root(t).read(creds, "not_before", value),
			"query, not escaped":   root(t).read(creds + "?not_before=" + value),
			"a batch":              root(t).write(creds, map[string]any{"batch_input": []any{map[string]any{"not_before": value}}}).Data()["batch_results"].([]any)[0].(map[string]any),
			"and the others empty": root(t).write(creds, map[string]any{"not_before": value, "ttl": "", "room": nil}).Data(),
		} {
			got := data["not_before"]
			if got == nil {
				got = data["nbf"]
			}
			require.Equal(t, want, got, "%s, %s", value, how)
		}
	}
	for _, body := range []string{`{"not_before":""}`, `{"not_before":null}`, `{"ttl":""}`, `{"ttl":null,"room":""}`, `{"room":null}`} {
		data := root(t).write(creds, body).Data()
		require.Equal(t, "launch", data["room"], body)
		require.Equal(t, json.Number("900"), data["ttl"], body)
	}
	require.Equal(t, "5", root(t).write(creds, `{"room":5}`).Data()["room"], "a whole number is the name that YAML made it of")
}

// A batch is a list of objects. Similar values are refused.
func TestShapesOfABatch(t *testing.T) {
	mount, _ := configured(t)
	creds := mount + "/creds/support"
	const notObject = "must be an object"
	for value, text := range map[string]string{
		`"[]"`: "must be a list of objects", `{}`: "must be a list of objects", `{"room":"support-1"}`: "must be a list of objects", `true`: "must be a list of objects", `5`: "must be a list of objects",
		`[]`: "1 to 1000 items", `[null]`: notObject, `[true]`: notObject, `["support-1"]`: notObject, `[[{"room":"support-1"}]]`: notObject, `[{"room":"support-1"},5]`: "batch_input[1]: " + notObject,
		`[{"Room":"support-1"}]`: "has an unknown field", `[{"rooms":"support-1"}]`: `has an unknown field "rooms"`, `[{"batch_input":[]}]`: `has an unknown field "batch_input"`,
		`[{"room":"support-1","reference":true}]`: "reference " + notString, `[{"room":"support-1","reference":["x"]}]`: "reference " + notString,
		`[` + strings.Repeat(`{"room":"support-1"},`, 1000) + `{}]`: "1 to 1000 items", `[` + strings.Repeat(`[`, 90) + strings.Repeat(`]`, 90) + `]`: notObject,
	} {
		root(t).sendJSON(creds, "batch_input", value).refused(t, text, fmt.Sprintf("%.80s", value))
	}
	root(t).send(http.MethodPost, creds, asForm, "batch_input=%5B%7B%22room%22%3A%22support-1%22%7D%5D").refused(t, "must be a list of objects")
	root(t).send(http.MethodGet, creds+"?batch_input=x", "", "").refused(t, "batch_input")
	root(t).send(http.MethodPost, creds, asJSONBody, `{"batch_input":[{"room":"support-1"}],"room":"support-1"}`).refused(t, "can't be used together")
	for _, value := range []string{`true`, `1.5`, `["a.b.c"]`, `{"a":1}`} {
		root(t).sendJSON(mount+"/verify", "token", value).refused(t, "token "+notString, value)
		root(t).send(http.MethodPost, mount+"/verify", asJSONBody, `{"token":"a.b.c","room":`+value+`}`).refused(t, "room "+notString, value)
	}
}

// A token that an inactive version signed is valid, with a warning.
func TestVerifyWarnsOfAnInactiveVersion(t *testing.T) {
	mount := twoKeys(t)
	verify := func(token any) devvault.Answer {
		answer := root(t).write(mount+"/verify", map[string]any{"token": token})
		require.Equal(t, true, answer.Data()["valid"], answer)
		return answer
	}
	old := root(t).read(mount+"/creds/support", "room", "support-1")["token"]
	require.Empty(t, verify(old).Warnings())
	root(t).write(mount+"/config", map[string]any{"active_key": 2})
	require.Contains(t, verify(old).Warnings(), "key version 1, which is not the active one")
	require.Empty(t, verify(root(t).read(mount+"/creds/support", "room", "support-1")["token"]).Warnings())
	root(t).write(mount+"/config", map[string]any{"active_key": 1})
	require.Empty(t, verify(old).Warnings())
}
