// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// forms are the values that a field accepts, as JSON, each with the value that a read
// returns. Write that one in Terraform, which compares the two as JSON.
type forms map[string]string

// not returns a value that reads back as something else.
func (f forms) not(read string) string {
	for written, other := range f {
		if other != read {
			return written
		}
	}
	panic("only values that read back as " + read)
}

func booleans() forms {
	return forms{`true`: `true`, `false`: `false`, `"true"`: `true`, `"false"`: `false`, `1`: `true`, `0`: `false`, `"1"`: `true`, `"0"`: `false`}
}

// durations gets the value that 0 reads back as.
func durations(zero string) forms {
	return forms{
		`300`: `300`, `"300"`: `300`, `"5m"`: `300`, `"300s"`: `300`, `"0.5h"`: `1800`, `"1h30m"`: `5400`, `"1d"`: `86400`, `3e2`: `300`,
		`0`: zero, `"0"`: zero, `"0s"`: zero,
	}
}

// times gets the hour of a time in UTC, and the same time in seconds since the epoch.
func times(hour string, epoch int) forms {
	read := fmt.Sprintf(`"%s:00:00Z"`, hour)
	return forms{
		read: read, fmt.Sprint(epoch): read, fmt.Sprintf(`"%d"`, epoch): read, `""`: `""`,
		strings.ToLower(read): read, fmt.Sprintf(`"%s:00:00.9Z"`, hour): read,
		fmt.Sprintf(`"%s:30:00+00:30"`, hour): read, fmt.Sprintf(`"%s:30:00 00:30"`, hour): read,
	}
}

// Each value reads back in one form, and that form reads back unchanged. So a declared role
// or configuration shows no difference that nobody made.
func TestReadBack(t *testing.T) {
	example, err := os.ReadFile("../../examples/terraform/main.tf")
	require.NoError(t, err)
	mount := enable(t)
	for range 2 {
		status, _ := root(t).post(mount+"/keys/generate", nil)
		require.Equal(t, http.StatusOK, status)
	}
	for _, test := range []struct {
		path, schema string
		declared     string   // all fields, as in Terraform
		besides      []string // further fields that a read returns
		fields       map[string]forms
	}{
		{
			"/config", "ClanMeetingConfigureRequest",
			`{"active_key":2,"audience":"other","consumer_id":"acme","domain":"meet.example.com","issuer":"staging"}`,
			[]string{"key_bits", "public_key", "public_key_sha256"},
			map[string]forms{
				"active_key":  {`1`: `1`, `"1"`: `1`, `1.0`: `1`, `"01"`: `1`, `2`: `2`, `"2"`: `2`},
				"audience":    {`"Us and them"`: `"Us and them"`, `5`: `"5"`, `""`: `"clanmeeting"`},
				"consumer_id": {`"Acme_2"`: `"Acme_2"`, `5`: `"5"`},
				"domain":      {`"Meet.example.org"`: `"Meet.example.org"`, `""`: `""`},
				"issuer":      {`"Us and them"`: `"Us and them"`, `5`: `"5"`, `""`: `"production"`},
			},
		},
		{
			"/roles/declared", "ClanMeetingWriteRoleRequest",
			`{"allow_wildcard_room":true,"allowed_rooms":["b","a-*"],"allowed_rooms_template":true,"default_room":"","generate_lease":true,` +
				`"max_not_before":3600,"max_ttl":172800,"not_before_duration":10,"ttl":60,"valid_from":"2030-01-31T09:00:00Z","valid_until":"2030-01-31T11:00:00Z"}`,
			nil,
			map[string]forms{
				"allow_wildcard_room": booleans(),
				"allowed_rooms": {
					`["d","c-*"]`: `["d","c-*"]`, `"d,c-*"`: `["d","c-*"]`, `" d, c-* "`: `["d","c-*"]`, `[" d"]`: `["d"]`, `"d"`: `["d"]`,
					`["D","C-*"]`: `["d","c-*"]`, `"D,C-*"`: `["d","c-*"]`, `["d","d"]`: `["d","d"]`, `[1,2]`: `["1","2"]`, `[]`: `[]`, `""`: `[]`,
					`["{{ identity.entity.id }}"]`: `["{{ identity.entity.id }}"]`, `["Team-{{identity.entity.metadata.Team}}"]`: `["team-{{identity.entity.metadata.Team}}"]`,
				},
				"allowed_rooms_template": booleans(),
				"default_room":           {`"b"`: `"b"`, `"B"`: `"b"`, `"*"`: `"*"`, `"{{identity.entity.id}}"`: `"{{identity.entity.id}}"`, `""`: `""`},
				"generate_lease":         booleans(),
				"max_not_before":         durations(`0`),
				"max_ttl":                durations(`3600`),
				"not_before_duration":    durations(`0`),
				"ttl":                    durations(`900`),
				"valid_from":             times("2030-01-31T10", 1896084000),
				"valid_until":            times("2030-01-31T12", 1896091200),
			},
		},
	} {
		path := mount + test.path
		require.Equal(t, slices.Sorted(maps.Keys(test.fields)), writable(t, path, test.schema), "fields that this test knows, and the schema's")
		for field := range test.fields {
			if field != "active_key" { // for the key custodian
				require.Regexp(t, `\b`+field+` += `, string(example), "the Terraform example names all fields")
			}
		}

		root(t).write(path, test.declared)
		data := root(t).read(path)
		for _, field := range test.besides {
			require.Contains(t, data, field)
			delete(data, field)
		}
		require.Equal(t, test.declared, asJSON(t, data))
		for field, forms := range test.fields {
			for written, want := range forms {
				root(t).write(path, test.declared)
				// Another value first: a write that changes nothing must not pass.
				root(t).write(path, `{"`+field+`":`+forms.not(want)+`}`)
				root(t).write(path, `{"`+field+`":`+written+`}`)
				data := root(t).read(path)
				require.Equal(t, want, asJSON(t, data[field]), "%s=%s", field, written)
				root(t).write(path, data)
				require.Equal(t, data, root(t).read(path), "%s=%s, written back", field, written)
			}
		}
	}
}

// writable returns the names of the fields that a write accepts and a read returns: all of
// the schema except the private key.
func writable(t *testing.T, path, schema string) []string {
	_, answer := root(t).get(path, "help", "1")
	node := map[string]any(answer)
	for _, key := range []string{"openapi", "components", "schemas", schema, "properties"} {
		require.Contains(t, node, key)
		node = node[key].(map[string]any)
	}
	delete(node, "private_key")
	return slices.Sorted(maps.Keys(node))
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return string(text)
}
