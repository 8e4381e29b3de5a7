// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

func TestVersionInPluginList(t *testing.T) {
	t.Parallel()
	out, err := vault.Command(t.Context(), vault.RootToken, "plugin", "list", "-detailed", "secret").CombinedOutput()
	require.NoError(t, err)
	require.Regexp(t, devvault.PluginName+` +secret +`+testVersion, string(out))
}

// An operator must see which of the two builds runs: in the log of the server, and by
// asking the file.
func TestBuildNamesItsSigner(t *testing.T) {
	t.Parallel()
	configured(t) // starts the plugin
	signer := "Go " + strings.TrimPrefix(runtime.Version(), "go")
	if os.Getenv("SIGNER") == "openssl" {
		signer = "OpenSSL 3."
	}
	require.Regexp(t, `(?m)plugin starting: .*signs_with="`+regexp.QuoteMeta(signer), vault.Log())

	file := filepath.Join(t.TempDir(), devvault.PluginName)
	buildRelease(t, file)
	out, err := exec.Command(file, "-version").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "signs with "+signer)
}

func TestFromKeyToToken(t *testing.T) {
	t.Parallel()
	mount, key := configured(t)
	app := root(t).as(`path "` + mount + `/creds/support" { capabilities = ["read", "update"] }`)
	before := time.Now().Unix()
	_, byPost := app.post(mount+"/creds/support", map[string]any{"room": "Support-4711"})
	for how, data := range map[string]map[string]any{
		"read":  app.read(mount+"/creds/support", "room", "Support-4711"),
		"write": byPost.Data(),
	} {
		token := data["token"].(string)
		claims := verify(t, token, key)
		require.Equal(t, "support-4711", data["room"], how)
		require.Equal(t, "acme", data["consumer_id"], how)
		require.Equal(t, json.Number("300"), data["ttl"], how)
		require.Equal(t, json.Number("1"), data["key_version"], how)
		require.Equal(t, "https://meet.example.com/acme/support-4711?jwt="+token, data["meeting_url"], how)
		require.Equal(t, map[string]any{
			"aud": "clanmeeting", "iss": "production", "sub": "acme", "room": "support-4711",
			"nbf": data["not_before"], "exp": data["expiration"], "context": map[string]any{},
		}, claims, how)
		nbf, err := data["not_before"].(json.Number).Int64()
		require.NoError(t, err)
		require.InDelta(t, before-30, nbf, 10, how)
		exp, err := data["expiration"].(json.Number).Int64()
		require.NoError(t, err)
		require.EqualValues(t, 330, exp-nbf, how)
		require.Equal(t, `{"alg":"RS256","kid":"acme","typ":"JWT"}`, segment(t, token, 0), how)
	}
}

func TestStatusCodes(t *testing.T) {
	t.Parallel()
	mount, _ := configured(t)
	for _, test := range []struct {
		method, path string
		body         any
		want         int
	}{
		{http.MethodPost, "/config", map[string]any{"issuer": "production"}, http.StatusNoContent},
		{http.MethodPost, "/config", map[string]any{"consumer_id": "a.b"}, http.StatusBadRequest},
		{http.MethodPost, "/roles/a", map[string]any{"allowed_rooms": []string{"a", "b-*"}}, http.StatusNoContent},
		{http.MethodPost, "/roles/a", map[string]any{"ttl": "bogus"}, http.StatusBadRequest},
		{http.MethodPost, "/roles/b", map[string]any{"ttl": "bogus"}, http.StatusBadRequest},
		{http.MethodDelete, "/roles/a", nil, http.StatusNoContent},
		{http.MethodDelete, "/roles/a", nil, http.StatusNoContent},
		{http.MethodDelete, "/creds/support", nil, http.StatusMethodNotAllowed},
		{http.MethodGet, "/nothing", nil, http.StatusNotFound},
		{http.MethodGet, "/roles/none", nil, http.StatusNotFound},
		{http.MethodGet, "/creds/none", nil, http.StatusBadRequest},
		{http.MethodGet, "/keys/0x1", nil, http.StatusNotFound},
		{http.MethodDelete, "/config", nil, http.StatusNoContent},
		{http.MethodDelete, "/config", nil, http.StatusNoContent},
		{http.MethodGet, "/config", nil, http.StatusNotFound},
		{http.MethodGet, "/creds/support?room=support-1", nil, http.StatusBadRequest},
	} {
		status, answer := root(t).call(test.method, mount+test.path, test.body)
		require.Equal(t, test.want, status, "%s %s %v: %s", test.method, test.path, test.body, answer.Errors())
	}
	_, answer := root(t).get(mount + "/verify")
	require.Equal(t, "this path has no read; it has write", answer.Errors())
	if vault.Kind == devvault.Vault { // OpenBao answers OPTIONS itself
		r := root(t).send(http.MethodOptions, mount+"/verify", "", "")
		require.Equal(t, "this path has no such operation; it has write", r.answer.Errors())
	}
}

func TestWarningsReachTheClient(t *testing.T) {
	t.Parallel()
	mount, _ := configured(t)
	require.Contains(t, root(t).write(mount+"/roles/support", map[string]any{"allowed_room": "x"}).Warnings(), "unrecognized parameters: [allowed_room]")
	require.Contains(t, root(t).write(mount+"/config", map[string]any{"isuer": "x"}).Warnings(), "unrecognized parameters: [isuer]")
	require.Contains(t, root(t).write(mount+"/roles/all", map[string]any{"allow_wildcard_room": true}).Warnings(), "every room")
	_, answer := root(t).get(mount+"/creds/support", "room", "support-1", "ttl", "10h")
	require.Contains(t, answer.Warnings(), "capped")
	require.Equal(t, json.Number("900"), answer.Data()["ttl"])
}

// A room means the same in a query, as JSON and in a form, in every notation of HTTP.
func TestRoomsOverHTTP(t *testing.T) {
	t.Parallel()
	mount, _ := configured(t)
	app := root(t).as(`path "` + mount + `/creds/*" { capabilities = ["read", "update"] }`)
	for _, query := range []string{
		"", "room=billing", "room=%2A", "room=%252A", "room=support%252D1", "room=support-1&room=*", "room=support-1&room=support-2", "room[]=support-1",
		"room=support-1%2C*", "room=support-1%00", "room=support-1%0A", "room=%20support-1", "room=%D1%95upport-1", "room=%FF", "ROOM=support-1", "room=support-1%3Fjwt",
	} {
		app.send(http.MethodGet, mount+"/creds/support?"+query, "", "").refused(t, "room", query)
		app.send(http.MethodPost, mount+"/creds/support", asForm, query).refused(t, "room", query, "as a form")
	}
	for _, body := range []string{`{}`, `{"room":["support-1"]}`, `{"room":{"a":"support-1"}}`, `{"room":"support-1\u0000"}`, `{"room":true}`, `{"room":1e3}`, `{"Room":"support-1"}`} {
		app.send(http.MethodPost, mount+"/creds/support", asJSONBody, body).refused(t, "", body)
	}
	require.Equal(t, "support-1", app.read(mount + "/creds/support?room=support%2D1")["room"])
	r := app.send(http.MethodPost, mount+"/creds/support", asForm, "room=support%2D1")
	require.Equal(t, "support-1", r.answer.Data()["room"], r.raw)
}

// Numbers, booleans and times keep their meaning on the way: JSON's types reach the engine,
// and so do the texts of a form, a query and the CLI.
func TestValuesOverHTTP(t *testing.T) {
	t.Parallel()
	mount, _ := configured(t)
	role := mount + "/roles/webinar"
	root(t).write(role, `{"allowed_rooms":["launch",5],"max_not_before":86400,"ttl":"010","generate_lease":false}`)
	require.Equal(t, json.Number("10"), root(t).read(role)["ttl"], "decimal")
	for field, value := range map[string]string{"ttl": `1.5`, "max_ttl": `1e20`, "allow_wildcard_room": `"yes"`, "allowed_rooms": `[true]`, "default_room": `{"a":1}`} {
		root(t).send(http.MethodPost, role, asJSONBody, `{"`+field+`":`+value+`}`).refused(t, field, value)
	}
	start := time.Now().Add(2 * time.Hour).Truncate(time.Second).UTC()
	for how, data := range map[string]map[string]any{
		"a number": root(t).write(mount+"/creds/webinar", map[string]any{"room": 5, "not_before": start.Unix()}).Data(),
		"a text":   root(t).write(mount+"/creds/webinar", map[string]any{"room": "5", "not_before": start.Format(time.RFC3339), "ttl": nil}).Data(),
		"a query":  root(t).read(mount+"/creds/webinar", "room", "5", "not_before", start.Format(time.RFC3339)),
		"a form":   root(t).send(http.MethodPost, mount+"/creds/webinar", asForm, fmt.Sprintf("room=5&not_before=%d", start.Unix())).answer.Data(),
		"a +":      root(t).read(mount + "/creds/webinar?room=5&not_before=" + start.Format("2006-01-02T15:04:05") + "+00:00"),
		"a batch":  root(t).write(mount+"/creds/webinar", map[string]any{"batch_input": []any{map[string]any{"room": 5, "not_before": start.Unix()}}}).Data()["batch_results"].([]any)[0].(map[string]any),
	} {
		require.Equal(t, "5", data["room"], how)
		require.Equal(t, fmt.Sprint(start.Unix()), fmt.Sprint(data["not_before"]), how)
	}
}

func TestLeases(t *testing.T) {
	t.Parallel()
	mount, key := configured(t)
	root(t).write(mount+"/roles/leased", map[string]any{"allowed_rooms": "*", "generate_lease": true, "ttl": "2m"})
	status, answer := root(t).get(mount+"/creds/leased", "room", "x")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, json.Number("120"), answer["lease_duration"])
	require.Equal(t, false, answer["renewable"])
	lease := answer["lease_id"].(string)
	require.True(t, strings.HasPrefix(lease, mount+"/creds/leased/"), lease)
	require.Empty(t, answer.Warnings())

	status, _ = root(t).post("sys/leases/renew", map[string]any{"lease_id": lease})
	require.Equal(t, http.StatusBadRequest, status, "not renewable")
	root(t).write("sys/leases/revoke", map[string]any{"lease_id": lease, "sync": true})
	status, _ = root(t).post("sys/leases/lookup", map[string]any{"lease_id": lease})
	require.Equal(t, http.StatusBadRequest, status, "revoked")
	verify(t, answer.Data()["token"].(string), key) // revoking does not end the token

	_, answer = root(t).get(mount+"/creds/support", "room", "support-1")
	require.Equal(t, "", answer["lease_id"])
	require.Equal(t, json.Number("0"), answer["lease_duration"])
}

// The engine's existence check tells Vault whether a write is a create or an update.
func TestCreateAndUpdateCapabilities(t *testing.T) {
	t.Parallel()
	mount, _ := configured(t)
	creator := root(t).as(`path "` + mount + `/roles/*" { capabilities = ["create"] }`)
	updater := root(t).as(`path "` + mount + `/roles/*" { capabilities = ["update"] }`)
	status, _ := creator.post(mount+"/roles/support", map[string]any{"allowed_rooms": "x"})
	require.Equal(t, http.StatusForbidden, status)
	status, _ = updater.post(mount+"/roles/other", map[string]any{"allowed_rooms": "x"})
	require.Equal(t, http.StatusForbidden, status)
	creator.write(mount+"/roles/other", map[string]any{"allowed_rooms": "x"})
	updater.write(mount+"/roles/other", map[string]any{"allowed_rooms": "y"})
	updater.write(mount+"/roles/support", map[string]any{"ttl": "1m"})
	status, _ = updater.post(mount+"/config", map[string]any{"issuer": "x"})
	require.Equal(t, http.StatusForbidden, status)
}

// Everything is stored in Vault: a restarted plugin process continues with it. The process
// serves all mounts, so this test does not run beside others.
func TestPluginReload(t *testing.T) {
	mount, key := configured(t)
	role := root(t).read(mount + "/roles/support")
	config := root(t).read(mount + "/config")
	root(t).write("sys/plugins/reload/backend", map[string]any{"mounts": []string{mount}})
	require.Equal(t, role, root(t).read(mount+"/roles/support"))
	require.Equal(t, config, root(t).read(mount+"/config"))
	verify(t, root(t).read(mount+"/creds/support", "room", "support-1")["token"].(string), key)
}

// Vault asks every mount for its part of the document, so no other test may unmount one
// meanwhile.
func TestHelpAndOpenAPI(t *testing.T) {
	mount, _ := configured(t)
	for path, want := range map[string]string{"": "creds/", "/config": "consumer_id", "/roles": "List the roles", "/roles/x": "allowed_rooms", "/creds/x": "not_before", "/check/x": "matched_rule", "/verify": "token", "/keys": "List the key", "/keys/1": "version", "/keys/import": "private_key", "/keys/generate": "key_bits"} {
		status, answer := root(t).get(mount+path, "help", "1")
		require.Equal(t, http.StatusOK, status, path)
		require.Contains(t, answer["help"], want, path)
	}
	status, answer := root(t).get("sys/internal/specs/openapi")
	require.Equal(t, http.StatusOK, status)
	paths := answer["paths"].(map[string]any)
	for path, operations := range map[string][]string{
		"/config": {"get", "post", "delete"}, "/roles/": {"get"}, "/roles/{name}": {"get", "post", "delete"}, "/creds/{name}": {"get", "post"}, "/check/{name}": {"get", "post"},
		"/keys/": {"get"}, "/keys/{version}": {"get", "delete"}, "/keys/generate": {"post"}, "/keys/import": {"post"}, "/verify": {"post"},
	} {
		documented, ok := paths["/"+mount+path].(map[string]any)
		require.True(t, ok, path)
		for _, operation := range operations {
			require.Contains(t, documented, operation, path)
		}
	}
}

// The CLI's ways to send a key: a file, standard input, and UTF-16, whose bytes the CLI
// changes. What is refused is named. backend/internal/rsakey has all forms of a key.
func TestKeyFilesByCLI(t *testing.T) {
	t.Parallel()
	mount := enable(t)
	_, private := newKey(t)
	utf16le, err := binary.Append(nil, binary.LittleEndian, utf16.Encode([]rune("\ufeff"+private)))
	require.NoError(t, err)
	for _, test := range []struct{ name, text, argument, want string }{
		{"plain.pem", private, "@plain.pem", "public_key_sha256"},
		{"powershell.pem", string(utf16le), "@powershell.pem", "as version 1"},
		{"stdin", strings.ReplaceAll(private, "\n", "\r\n"), "-", "as version 1"},
		{"base64.txt", base64.StdEncoding.EncodeToString([]byte(private)), "@base64.txt", "base64 once more"},
		{"no-at", private, "plain.pem", "is not a PEM"},
	} {
		cli := vault.Command(t.Context(), vault.RootToken, "write", mount+"/keys/import", "private_key="+test.argument)
		cli.Dir, cli.Stdin = t.TempDir(), strings.NewReader(test.text)
		require.NoError(t, os.WriteFile(filepath.Join(cli.Dir, test.name), []byte(test.text), 0o600))
		out, _ := cli.CombinedOutput() // the output says whether it failed
		require.Contains(t, string(out), test.want, test.name)
	}
	require.Equal(t, []any{"1"}, root(t).read(mount + "/keys?list=true")["keys"], "they are one key")
}

// What a read returns can be declared, as in Terraform: written, it reads back the same, so
// that nobody sees a difference that nobody made.
func TestReadBack(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile("../../examples/terraform/main.tf")
	require.NoError(t, err)
	mount, _ := configured(t)
	root(t).write(mount+"/keys/generate", nil)
	for path, declared := range map[string]string{
		"/config": `{"active_key":2,"audience":"other","consumer_id":"acme","delete_ended_roles_after":86400,"domain":"meet.example.com","issuer":"staging"}`,
		"/roles/declared": `{"allow_wildcard_room":true,"allowed_rooms":["b","a-*"],"allowed_rooms_template":true,"default_room":"","generate_lease":true,` +
			`"max_not_before":3600,"max_ttl":172800,"not_before_duration":10,"ttl":60,"valid_from":"2030-01-31T09:00:00Z","valid_until":"2030-01-31T11:00:00Z"}`,
	} {
		root(t).write(mount+path, declared)
		data := root(t).read(mount + path)
		for _, shown := range []string{"key_bits", "public_key", "public_key_sha256"} { // not declared
			delete(data, shown)
		}
		require.Equal(t, declared, asJSON(t, data))
		for field := range data {
			if field != "active_key" { // for the key custodian
				require.Regexp(t, `\b`+field+` += `, string(example), "the Terraform example names all fields")
			}
		}
		root(t).write(mount+path, data)
		again := root(t).read(mount + path)
		for field, value := range data {
			require.Equal(t, value, again[field])
		}
	}
}
