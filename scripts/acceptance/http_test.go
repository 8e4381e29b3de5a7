// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/stretchr/testify/require"
)

// A token with the time of a real clock.
func TestFromKeyToToken(t *testing.T) {
	t.Parallel()
	mount, key := configured(t)
	data := root(t).read(mount+"/creds/support", "room", "Support-4711")
	token := data["token"].(string)
	require.Equal(t, map[string]any{
		"aud": "clanmeeting", "iss": "production", "sub": "acme", "room": "support-4711",
		"nbf": data["not_before"], "exp": data["expiration"], "context": map[string]any{},
	}, verify(t, token, key))
	require.Equal(t, "https://meet.example.com/acme/support-4711?jwt="+token, data["meeting_url"])
	exp, err := data["expiration"].(json.Number).Int64()
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(5*time.Minute), time.Unix(exp, 0), time.Minute)
}

// What Vault makes of the engine's answers: their status, and where their text is.
func TestAnswersOverHTTP(t *testing.T) {
	t.Parallel()
	mount, _ := configured(t)
	for _, test := range []struct {
		method, path string
		body         any
		want         int
		says         string
	}{
		{http.MethodPost, "/config", map[string]any{"issuer": "production"}, http.StatusNoContent, ""},
		{http.MethodPost, "/config", map[string]any{"isuer": "x"}, http.StatusOK, "unrecognized parameters: [isuer]"},
		{http.MethodPost, "/config", map[string]any{"consumer_id": "a.b"}, http.StatusBadRequest, "consumer_id must be"},
		{http.MethodGet, "/creds/support?room=support-1&ttl=10h", nil, http.StatusOK, "capped"},
		{http.MethodGet, "/roles/none", nil, http.StatusNotFound, ""},
		{http.MethodGet, "/nothing", nil, http.StatusNotFound, ""},
		{http.MethodGet, "/verify", nil, http.StatusMethodNotAllowed, "this path has no read; it has write"},
	} {
		status, answer := root(t).call(test.method, mount+test.path, test.body)
		require.Equal(t, test.want, status, "%s %s %v: %s", test.method, test.path, test.body, answer.Errors())
		require.Contains(t, answer.Errors()+answer.Warnings(), test.says, test.path)
	}
}

// A room and a time mean the same in JSON, in a form and in a query. No notation of HTTP gets
// another room.
func TestRoomsOverHTTP(t *testing.T) {
	t.Parallel()
	mount, _ := configured(t)
	root(t).write(mount+"/roles/webinar", map[string]any{"allowed_rooms": "launch,5", "max_not_before": "1d"})
	creds := mount + "/creds/webinar"
	start := time.Now().Add(2 * time.Hour).Truncate(time.Second).UTC()
	text, number := start.Format(time.RFC3339), start.Unix()
	batch := []any{map[string]any{"room": 5, "not_before": number}}
	for how, data := range map[string]map[string]any{
		"a number": root(t).write(creds, map[string]any{"room": 5, "not_before": number}).Data(),
		"a text":   root(t).write(creds, map[string]any{"room": "5", "not_before": text}).Data(),
		"a query":  root(t).read(creds, "room", "5", "not_before", text),
		"a form":   root(t).send(http.MethodPost, creds, asForm, fmt.Sprintf("room=%%35&not_before=%d", number)).Answer.Data(),
		"a +":      root(t).read(creds + "?room=%35&not_before=" + strings.TrimSuffix(text, "Z") + "+00:00"),
		"a batch":  first(root(t).write(creds, map[string]any{"batch_input": batch}).Data()),
	} {
		require.Equal(t, "5", data["room"], how)
		require.Equal(t, fmt.Sprint(number), fmt.Sprint(data["not_before"]), how)
	}
	for _, query := range []string{
		"room=board", "room=%2535", "room=5&room=launch", "room[]=5", "ROOM=5", "room=5%00", "room=5%FF",
	} {
		root(t).send(http.MethodGet, creds+"?"+query, "", nil).refused(t, "room", query)
		root(t).send(http.MethodPost, creds, asForm, query).refused(t, "room", query, "as a form")
	}
}

func TestLeases(t *testing.T) {
	t.Parallel()
	mount, _ := configured(t)
	root(t).write(mount+"/roles/leased", map[string]any{"allowed_rooms": "*", "generate_lease": true, "ttl": "2m"})
	_, answer := root(t).get(mount+"/creds/leased", "room", "x")
	lease := answer["lease_id"].(string)
	require.True(t, strings.HasPrefix(lease, mount+"/creds/leased/"), lease)
	require.Equal(t, []any{json.Number("120"), false, ""}, []any{answer["lease_duration"], answer["renewable"], answer.Warnings()})

	root(t).write("sys/leases/revoke", map[string]any{"lease_id": lease, "sync": true})
	status, _ := root(t).post("sys/leases/lookup", map[string]any{"lease_id": lease})
	require.Equal(t, http.StatusBadRequest, status, "revoked")
	verified := root(t).write(mount+"/verify", map[string]any{"token": answer.Data()["token"]}).Data()
	require.Equal(t, true, verified["valid"], "revoking does not end the token")
}

// The engine's existence check tells Vault whether a write is a create or an update.
func TestCreateAndUpdateCapabilities(t *testing.T) {
	t.Parallel()
	mount := enable(t)
	for path, body := range map[string]any{
		"/config": map[string]any{"consumer_id": "acme"}, "/roles/support": map[string]any{"allowed_rooms": "x"},
	} {
		for _, test := range []struct {
			capability string
			want       int
		}{
			{"update", http.StatusForbidden},
			{"create", http.StatusNoContent},
			{"create", http.StatusForbidden},
			{"update", http.StatusNoContent},
		} {
			holder := root(t).as(`path "` + mount + `/*" { capabilities = ["` + test.capability + `"] }`)
			status, answer := holder.post(mount+path, body)
			require.Equal(t, test.want, status, "%s %s: %s", test.capability, path, answer.Errors())
		}
	}
}

// Vault asks every mount for its part of the document, so no other test may unmount one
// meanwhile.
func TestOpenAPI(t *testing.T) {
	mount, _ := configured(t)
	_, answer := root(t).get("sys/internal/specs/openapi")
	paths := answer["paths"].(map[string]any)
	for path, operations := range map[string]string{
		"/config": "get post delete", "/roles/": "get", "/roles/{name}": "get post delete",
		"/creds/{name}": "get post", "/check/{name}": "get post", "/verify": "post",
		"/keys/": "get", "/keys/{version}": "get delete", "/keys/generate": "post", "/keys/import": "post",
	} {
		for _, operation := range strings.Fields(operations) {
			require.Contains(t, paths["/"+mount+path], operation, path)
		}
	}
}

// The CLI's ways to send a key: a file, standard input, and UTF-16, whose bytes the CLI
// changes. backend/internal/rsakey has all forms of a key.
func TestKeyFilesByCLI(t *testing.T) {
	t.Parallel()
	mount := enable(t)
	_, private := newKey(t)
	utf16le, err := binary.Append(nil, binary.LittleEndian, utf16.Encode([]rune("\ufeff"+private)))
	require.NoError(t, err)
	for _, test := range []struct{ text, argument, want string }{
		{private, "@key", "public_key_sha256"},
		{string(utf16le), "@key", "as version 1"}, // PowerShell's
		{private, "-", "as version 1"},
	} {
		cli := vault.Command(t.Context(), vault.RootToken, "write", mount+"/keys/import", "private_key="+test.argument)
		cli.Dir, cli.Stdin = t.TempDir(), strings.NewReader(test.text)
		require.NoError(t, os.WriteFile(filepath.Join(cli.Dir, "key"), []byte(test.text), 0o600))
		out, _ := cli.CombinedOutput() // the output says whether it failed
		require.Contains(t, string(out), test.want, test.argument)
	}
}

// What was written reads back the same, so that Terraform sees no difference that nobody made.
func TestReadBack(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile("../../examples/terraform/main.tf")
	require.NoError(t, err)
	mount, _ := configured(t)
	root(t).write(mount+"/keys/generate", nil)
	for path, declared := range map[string]string{
		"/config": `{"active_key":2,"audience":"other","consumer_id":"acme","delete_ended_roles_after":86400,
			"domain":"meet.example.com","issuer":"staging"}`,
		"/roles/declared": `{"allow_wildcard_room":true,"allowed_rooms":["b","a-*"],"allowed_rooms_template":true,
			"default_room":"","generate_lease":true,"max_not_before":3600,"max_ttl":172800,"not_before_duration":10,"ttl":60,
			"valid_from":"2030-01-31T09:00:00Z","valid_until":"2030-01-31T11:00:00Z"}`,
	} {
		root(t).write(mount+path, declared)
		data := root(t).read(mount + path)
		for _, shown := range []string{"key_bits", "public_key", "public_key_sha256"} { // not declared
			delete(data, shown)
		}
		text, err := json.Marshal(data)
		require.NoError(t, err)
		require.JSONEq(t, declared, string(text))
		delete(data, "active_key") // for the key custodian
		for field := range data {
			require.Regexp(t, `\b`+field+` += `, string(example), "the Terraform example names all fields")
		}
	}
}
