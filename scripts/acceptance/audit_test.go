// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// auditEntry has the fields of the audit log that docs/migrating.md uses.
type auditEntry struct {
	Type    string
	Auth    struct{ Metadata map[string]string }
	Request struct {
		Path string
		Data map[string]any
	}
	Response struct{ Data map[string]any }
}

// The audit log says who asked for which token, as docs/migrating.md describes: as HMACs,
// or with readable rooms if the mount is tuned so. It never contains a token.
func TestAuditTellsWhoAsked(t *testing.T) {
	t.Parallel()
	mount, _ := configured(t)
	file, device := auditLog(t)
	hash := func(input any) any {
		return root(t).write("sys/audit-hash/"+device, map[string]any{"input": input}).Data()["hash"]
	}
	last := func(token any) auditEntry {
		raw, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NotContains(t, string(raw), token)
		var found auditEntry
		for line := range bytes.Lines(raw) {
			var entry auditEntry
			require.NoError(t, json.Unmarshal(line, &entry))
			if entry.Type == "response" && entry.Request.Path == mount+"/creds/support" {
				found = entry
			}
		}
		require.NotEmpty(t, found.Type)
		return found
	}
	status, answer := root(t).post("auth/token/create", map[string]any{"meta": map[string]any{"team": "desk"}})
	require.Equal(t, http.StatusOK, status)
	asker := root(t).with(answer["auth"].(map[string]any)["client_token"])

	data := asker.read(mount+"/creds/support", "room", "support-1")
	entry := last(data["token"])
	require.Equal(t, "desk", entry.Auth.Metadata["team"])
	require.Equal(t, hash(data["token"]), entry.Response.Data["token"])
	require.Equal(t, hash("support-1"), entry.Response.Data["room"])
	require.EqualValues(t, 1, entry.Response.Data["key_version"])

	root(t).write("sys/mounts/"+mount+"/tune", map[string]any{"audit_non_hmac_request_keys": "room", "audit_non_hmac_response_keys": "room"})
	data = asker.read(mount+"/creds/support", "room", "support-2")
	entry = last(data["token"])
	require.Equal(t, "support-2", entry.Request.Data["room"])
	require.Equal(t, "support-2", entry.Response.Data["room"])
	require.Equal(t, hash(data["token"]), entry.Response.Data["token"])

	_, answer = asker.post(mount+"/creds/support", map[string]any{"batch_input": []any{map[string]any{"room": "support-3"}}})
	item := answer.Data()["batch_results"].([]any)[0].(map[string]any)
	entry = last(item["token"])
	logged := entry.Response.Data["batch_results"].([]any)[0].(map[string]any)
	require.Equal(t, "support-3", logged["room"])
	require.Equal(t, hash(item["token"]), logged["token"])
}
