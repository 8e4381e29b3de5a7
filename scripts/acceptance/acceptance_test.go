// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
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

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

const testVersion = "v0.0.1-test"

// vault is the server that all tests share. Each test has its own mounts. The server logs
// at trace level.
var vault *devvault.Server

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "clanmeeting-acceptance-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	if err := startVault(dir); err != nil {
		return fail(err)
	}
	status := m.Run()
	vault.Stop()
	if i := strings.Index(vault.Log(), "DATA RACE"); i >= 0 {
		return fail(fmt.Errorf("the plugin has a race: %.4000s", vault.Log()[i:]))
	}
	return status
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "error:", err)
	return 1
}

func startVault(dir string) error {
	bin := os.Getenv("VAULT_BIN")
	if bin == "" {
		return errors.New("the acceptance tests need a Vault: run make test, or set VAULT_BIN")
	}
	if err := buildPlugin(filepath.Join(dir, "plugins", devvault.PluginName), testVersion); err != nil {
		return err
	}
	var err error
	vault, err = devvault.Start(context.Background(), devvault.Options{
		VaultBin: bin, PluginDir: filepath.Join(dir, "plugins"), LogLevel: "trace",
	})
	return err
}

// buildPlugin builds with the race detector, to find races that only real traffic causes.
// Its report appears in the server's log.
func buildPlugin(file, version string) error {
	out, err := exec.Command("go", "build", "-race", "-ldflags", "-X main.version="+version, "-o", file, ".").CombinedOutput()
	if err != nil {
		return fmt.Errorf("building the plugin: %w\n%s", err, out)
	}
	return nil
}

// onlyOn skips a test of something that only one server has. The test's name must contain
// that server. On the other server, go test -v and the list at the end of make test report
// the test as not run.
func onlyOn(t *testing.T, kind devvault.Kind) {
	t.Helper()
	require.Contains(t, strings.ToLower(strings.ReplaceAll(t.Name(), "_", "")), strings.ToLower(string(kind))+"only", "the name says which server it needs")
	if vault.Kind == kind {
		return
	}
	text := fmt.Sprintf("not run on %s: %s", vault.Kind, t.Name())
	if file := os.Getenv("NOT_RUN"); file != "" {
		list, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0o600)
		require.NoError(t, err)
		_, err = fmt.Fprintln(list, text)
		require.NoError(t, errors.Join(err, list.Close()))
	}
	t.Skip(text)
}

// client calls a Vault as the holder of a token.
type client struct {
	t     testing.TB
	vault *devvault.Server
	token string
}

func root(t testing.TB) client { return client{t, vault, vault.RootToken} }

// with is a client with another token.
func (c client) with(token any) client {
	c.token = token.(string)
	return c
}

func (c client) call(method, path string, body any) (int, devvault.Answer) {
	c.t.Helper()
	status, answer, err := c.vault.Call(context.Background(), c.token, method, path, body)
	require.NoError(c.t, err)
	return status, answer
}

func (c client) get(path string, pairs ...string) (int, devvault.Answer) {
	c.t.Helper()
	if len(pairs) > 0 {
		path = devvault.Query(path, pairs...)
	}
	return c.call(http.MethodGet, path, nil)
}

func (c client) post(path string, body any) (int, devvault.Answer) {
	c.t.Helper()
	return c.call(http.MethodPost, path, body)
}

// write is a post that must be answered by 204, or by 200 with warnings.
func (c client) write(path string, body any) devvault.Answer {
	c.t.Helper()
	status, answer := c.post(path, body)
	if status != http.StatusNoContent {
		require.Equal(c.t, http.StatusOK, status, "%s: %s", path, answer.Errors())
	}
	return answer
}

// read is a get that must succeed.
func (c client) read(path string, pairs ...string) map[string]any {
	c.t.Helper()
	status, answer := c.get(path, pairs...)
	require.Equal(c.t, http.StatusOK, status, "%s: %s", path, answer.Errors())
	return answer.Data()
}

// as is a client with a new token that has the policy.
func (c client) as(policy string) client {
	c.t.Helper()
	name := "policy-" + unique(c.t)
	c.write("sys/policies/acl/"+name, map[string]any{"policy": policy})
	status, answer := c.post("auth/token/create", map[string]any{"policies": []string{name}})
	require.Equal(c.t, http.StatusOK, status)
	return c.with(answer["auth"].(map[string]any)["client_token"])
}

// unique is a name that no other test uses.
func unique(t testing.TB) string {
	t.Helper()
	raw := make([]byte, 4)
	_, err := rand.Read(raw)
	require.NoError(t, err)
	return fmt.Sprintf("m%x", raw)
}

// enable mounts the engine at a new path.
func enable(t testing.TB) string {
	t.Helper()
	mount := unique(t)
	root(t).write("sys/mounts/"+mount, map[string]any{"type": devvault.PluginName})
	t.Cleanup(func() { root(t).call(http.MethodDelete, "sys/mounts/"+mount, nil) })
	return mount
}

func newKey(t testing.TB) (*rsa.PrivateKey, string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

// configured returns a mount with a key and a role, and the public key that the mount
// shows.
func configured(t testing.TB) (string, *rsa.PublicKey) {
	t.Helper()
	mount := enable(t)
	_, private := newKey(t)
	root(t).write(mount+"/config", map[string]any{"consumer_id": "acme", "private_key": private, "domain": "meet.example.com"})
	root(t).write(mount+"/roles/support", map[string]any{"allowed_rooms": "support-*", "ttl": "5m", "max_ttl": "15m"})
	return mount, publicKey(t, mount)
}

func publicKey(t testing.TB, mount string) *rsa.PublicKey {
	t.Helper()
	block, rest := pem.Decode([]byte(root(t).read(mount + "/config")["public_key"].(string)))
	require.NotNil(t, block)
	require.Empty(t, rest)
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	require.NoError(t, err)
	return key.(*rsa.PublicKey)
}

// verifySignature checks a token with the standard library only.
func verifySignature(token string, key *rsa.PublicKey) error {
	dot := strings.LastIndex(token, ".")
	signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(token[:dot]))
	return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature)
}

// verify checks a token and returns its claims.
func verify(t testing.TB, token string, key *rsa.PublicKey) map[string]any {
	t.Helper()
	require.NoError(t, verifySignature(token, key))
	claims, err := claimsOf(token)
	require.NoError(t, err)
	return claims
}

func claimsOf(token string) (map[string]any, error) {
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		return nil, err
	}
	claims := map[string]any{}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	return claims, decoder.Decode(&claims)
}

func TestVersionInPluginList(t *testing.T) {
	out, err := vault.Command(t.Context(), vault.RootToken, "plugin", "list", "-detailed", "secret").CombinedOutput()
	require.NoError(t, err)
	require.Regexp(t, devvault.PluginName+` +secret +`+testVersion, string(out))
}

// An operator must see which of the two builds runs: in the log of the server, and by
// asking the file.
func TestBuildNamesItsSigner(t *testing.T) {
	configured(t) // starts the plugin
	signer := "Go " + strings.TrimPrefix(runtime.Version(), "go")
	if os.Getenv("SIGNER") == "openssl" {
		signer = "OpenSSL 3."
	}
	require.Regexp(t, `(?m)plugin starting: .*signs_with="`+regexp.QuoteMeta(signer), vault.Log())

	file := filepath.Join(t.TempDir(), devvault.PluginName)
	out, err := exec.Command("../../scripts/build.sh", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.Command(file, "-version").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "signs with "+signer)
}

func TestFromKeyToToken(t *testing.T) {
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

func segment(t testing.TB, token string, i int) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[i])
	require.NoError(t, err)
	return string(raw)
}

func TestBeforeConfiguration(t *testing.T) {
	mount := enable(t)
	status, _ := root(t).get(mount + "/config")
	require.Equal(t, http.StatusNotFound, status)
	status, _ = root(t).get(mount + "/roles?list=true")
	require.Equal(t, http.StatusNotFound, status)
	status, _ = root(t).get(mount + "/roles/none")
	require.Equal(t, http.StatusNotFound, status)
	status, answer := root(t).get(mount + "/creds/none")
	require.Equal(t, http.StatusBadRequest, status)
	require.Equal(t, `role "none" not found`, answer.Errors())

	root(t).write(mount+"/roles/any", map[string]any{"allowed_rooms": "*"})
	status, answer = root(t).get(mount+"/creds/any", "room", "x")
	require.Equal(t, http.StatusBadRequest, status)
	require.Contains(t, answer.Errors(), "write consumer_id and private_key to "+mount+"/config")
}

func TestStatusCodes(t *testing.T) {
	mount, _ := configured(t)
	for _, test := range []struct {
		method, path string
		body         any
		want         int
	}{
		{http.MethodPost, "/config", map[string]any{"issuer": "production"}, http.StatusNoContent},
		{http.MethodPost, "/config", map[string]any{"consumer_id": "a.b"}, http.StatusBadRequest},
		{http.MethodPost, "/config", map[string]any{"private_key": "x"}, http.StatusBadRequest},
		{http.MethodPost, "/config", map[string]any{"active_key": 7}, http.StatusBadRequest},
		{http.MethodPost, "/roles/a", map[string]any{"allowed_rooms": []string{"a", "b-*"}}, http.StatusNoContent},
		{http.MethodPost, "/roles/a", map[string]any{"ttl": "bogus"}, http.StatusBadRequest},
		{http.MethodPost, "/roles/b", map[string]any{"ttl": "bogus"}, http.StatusBadRequest},
		{http.MethodPost, "/roles/a", map[string]any{"ttl": "10h"}, http.StatusBadRequest},
		{http.MethodPost, "/roles/a", map[string]any{"allowed_rooms": map[string]any{"x": 1}}, http.StatusBadRequest},
		{http.MethodDelete, "/roles/a", nil, http.StatusNoContent},
		{http.MethodDelete, "/roles/a", nil, http.StatusNoContent},
		{http.MethodPost, "/creds/support", map[string]any{"room": "support-1", "not_before": "x"}, http.StatusBadRequest},
		{http.MethodDelete, "/creds/support", nil, http.StatusMethodNotAllowed},
		{http.MethodGet, "/nothing", nil, http.StatusNotFound},
		{http.MethodDelete, "/config", nil, http.StatusNoContent},
		{http.MethodDelete, "/config", nil, http.StatusNoContent},
		{http.MethodGet, "/config", nil, http.StatusNotFound},
	} {
		status, answer := root(t).call(test.method, mount+test.path, test.body)
		require.Equal(t, test.want, status, "%s %s %v: %s", test.method, test.path, test.body, answer.Errors())
	}
	_, answer := root(t).get(mount + "/verify")
	require.Equal(t, "this path has no read; it has write", answer.Errors())
}

func TestWarningsReachTheClient(t *testing.T) {
	mount, _ := configured(t)
	require.Contains(t, root(t).write(mount+"/roles/support", map[string]any{"allowed_room": "x"}).Warnings(), "unrecognized parameters: [allowed_room]")
	require.Contains(t, root(t).write(mount+"/config", map[string]any{"isuer": "x"}).Warnings(), "unrecognized parameters: [isuer]")
	require.Contains(t, root(t).write(mount+"/roles/all", map[string]any{"allow_wildcard_room": true}).Warnings(), "every room")
	_, answer := root(t).get(mount+"/creds/support", "room", "support-1", "ttl", "10h")
	require.Contains(t, answer.Warnings(), "capped")
	require.Equal(t, json.Number("900"), answer.Data()["ttl"])
}

// A caller tries rooms that the role does not allow, in every notation that HTTP allows.
func TestRoomsOverHTTP(t *testing.T) {
	mount, _ := configured(t)
	root(t).write(mount+"/roles/any", map[string]any{"allowed_rooms": "*"})
	app := root(t).as(`path "` + mount + `/creds/*" { capabilities = ["read", "update"] }`)

	for _, query := range []string{
		"", "room=", "room=billing", "room=my-support-1", "room=support", "room=*", "room=%2A", "room=%252A", "room=support-%2A", "room=support%252D1",
		"room=support-1&room=*", "room=support-1&room=support-2", "room[]=support-1", "room=support-1,*", "room=support-1%2C*",
		"room=support-1%00", "room=support-1%0A", "room=%20support-1", "room=support-1%20", "room=support-1%09",
		"room=%D1%95upport-1", "room=support%E2%80%901", "room=%E2%84%AAitchen", "room=%EF%BC%8A", "room=%FF",
		"room=support-" + strings.Repeat("x", 300), "ROOM=support-1", "room=support-1%3Fjwt", "room=../support-1",
	} {
		status, answer := app.get(mount + "/creds/support?" + query)
		require.Equal(t, http.StatusBadRequest, status, "%q: %v", query, answer)
		require.Contains(t, answer.Errors(), "room", query)
	}
	for _, body := range []string{
		`{}`, `{"room":null}`, `{"room":["support-1"]}`, `{"room":["support-1","*"]}`, `{"room":{"a":"support-1"}}`, `{"room":"*"}`,
		`{"room":"support-1\u0000"}`, `{"room":"support-1,*"}`, `{"room":true}`, `{"room":1e3}`, `{"Room":"support-1"}`,
	} {
		status, answer := app.post(mount+"/creds/support", body)
		require.Equal(t, http.StatusBadRequest, status, "%s: %v", body, answer)
	}
	for _, room := range []string{"*", "**", "%2A"} {
		status, answer := app.get(mount+"/creds/any", "room", room)
		require.Equal(t, http.StatusBadRequest, status, "%q: %v", room, answer)
	}
	// Rooms that the role allows.
	require.Equal(t, "support-1", app.read(mount + "/creds/support?room=support%2D1")["room"])
}

func TestScheduling(t *testing.T) {
	mount, key := configured(t)
	root(t).write(mount+"/roles/webinar", map[string]any{"allowed_rooms": "launch", "max_not_before": "24h", "ttl": 600})
	start := time.Now().Add(2 * time.Hour).Truncate(time.Second)
	for _, notBefore := range []any{start.Unix(), fmt.Sprint(start.Unix()), start.UTC().Format(time.RFC3339), start.In(time.FixedZone("", 5*3600)).Format(time.RFC3339)} {
		status, answer := root(t).post(mount+"/creds/webinar", map[string]any{"room": "launch", "not_before": notBefore})
		require.Equal(t, http.StatusOK, status, "%v: %s", notBefore, answer.Errors())
		claims := verify(t, answer.Data()["token"].(string), key)
		require.Equal(t, json.Number(fmt.Sprint(start.Unix())), claims["nbf"])
		require.Equal(t, json.Number(fmt.Sprint(start.Unix()+600)), claims["exp"])
	}
	status, answer := root(t).get(mount+"/creds/webinar", "room", "launch", "not_before", fmt.Sprint(time.Now().Add(25*time.Hour).Unix()))
	require.Equal(t, http.StatusBadRequest, status)
	require.Contains(t, answer.Errors(), "further ahead than the 24h0m0s")
	status, answer = root(t).get(mount+"/creds/support", "room", "support-1", "not_before", fmt.Sprint(start.Unix()))
	require.Equal(t, http.StatusBadRequest, status)
	require.Contains(t, answer.Errors(), "does not schedule")
}

func TestLeases(t *testing.T) {
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

func TestMountMaximum(t *testing.T) {
	mount, _ := configured(t)
	root(t).write("sys/mounts/"+mount+"/tune", map[string]any{"max_lease_ttl": "10m", "default_lease_ttl": "1m"})
	require.Contains(t, root(t).write(mount+"/roles/support", map[string]any{"max_ttl": "30m"}).Warnings(), "over the mount's maximum of 10m0s")
	_, answer := root(t).get(mount+"/creds/support", "room", "support-1", "ttl", "30m")
	require.Equal(t, json.Number("600"), answer.Data()["ttl"])
	require.Contains(t, answer.Warnings(), "capped")
}

// The engine's existence check tells Vault whether a write is a create or an update.
func TestCreateAndUpdateCapabilities(t *testing.T) {
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

// Everything is stored in Vault: a restarted plugin process continues with it.
func TestPluginReload(t *testing.T) {
	mount, key := configured(t)
	role := root(t).read(mount + "/roles/support")
	config := root(t).read(mount + "/config")
	root(t).write("sys/plugins/reload/backend", map[string]any{"mounts": []string{mount}})
	require.Equal(t, role, root(t).read(mount+"/roles/support"))
	require.Equal(t, config, root(t).read(mount+"/config"))
	verify(t, root(t).read(mount+"/creds/support", "room", "support-1")["token"].(string), key)
}

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

// Every example in the help works as printed. The paths are in the order in which a new
// user needs them.
func TestHelpExamples(t *testing.T) {
	root(t).write("sys/mounts/clanmeeting", map[string]any{"type": devvault.PluginName})
	t.Cleanup(func() { root(t).call(http.MethodDelete, "sys/mounts/clanmeeting", nil) })
	paths := []string{
		"", "config", "roles/support", "roles", "creds/support", "check/support", "verify",
		"keys/generate", "keys/import", "keys", "keys/1",
	}

	dir := t.TempDir()
	for _, name := range []string{"cm-api-key.pem", "new-key.pem"} {
		_, private := newKey(t)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(private), 0o600))
	}
	for _, path := range paths {
		_, answer := root(t).get("clanmeeting/"+path, "help", "1")
		help := answer["help"].(string)
		if path == "" {
			require.Equal(t, len(paths)-1, strings.Count(help, "\n    ^"), "a path is missing here")
		}
		commands := examples(help)
		require.NotEmpty(t, commands, path)
		cli := vault.Command(t.Context(), vault.RootToken)
		shell := exec.CommandContext(t.Context(), "sh", "-ec", withVault(cli, commands))
		shell.Dir, shell.Env = dir, cli.Env
		out, err := shell.CombinedOutput()
		require.NoError(t, err, "%q: %s\n%s", path, commands, out)
	}
}

// examples returns the commands in the description of a help text.
func examples(help string) string {
	_, description, _ := strings.Cut(help, "## DESCRIPTION\n")
	description, _, _ = strings.Cut(description, "## PATHS\n")
	return indented(description)
}

// withVault returns shell commands in which vault means the program of cli.
func withVault(cli *exec.Cmd, commands string) string {
	return "vault() { '" + cli.Path + `' "$@"; }` + "\n" + commands
}

// indented returns the lines that are indented by four spaces: the commands of a text.
func indented(text string) string {
	var lines strings.Builder
	for line := range strings.Lines(text) {
		if command, found := strings.CutPrefix(line, "    "); found {
			lines.WriteString(command)
		}
	}
	return lines.String()
}
