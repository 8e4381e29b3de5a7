// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance && examples

// The examples in their own languages, which "make examples" makes sure are there.

package acceptance

import (
	"bytes"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// language is one of the vendor's five: the command of its example, and the program that
// verifies and signs tokens with a library of that language.
type language struct {
	name     string
	example  []string
	verifier []string
}

func languages() []language {
	const examples, verifiers = "../../examples/", "testdata/examples/"
	python, gson := os.Getenv("EXAMPLES_PYTHON"), os.Getenv("EXAMPLES_GSON")
	return []language{
		{"node", []string{"node", examples + "node/host-link.mjs"}, []string{"node", verifiers + "verify.js"}},
		{"php", []string{"php", examples + "php/host-link.php"}, []string{"php", verifiers + "verify.php"}},
		{"python", []string{python, examples + "python/host_link.py"}, []string{python, verifiers + "verify.py"}},
		{"ruby", []string{"ruby", examples + "ruby/host_link.rb"}, []string{"ruby", verifiers + "verify.rb"}},
		{"java", []string{"java", "-cp", gson, examples + "java/HostLink.java"}, []string{"java", "-cp", gson, verifiers + "Verify.java"}},
	}
}

// run runs a command, and returns its output, its errors and its status.
func run(t *testing.T, env, command []string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, said bytes.Buffer
	cmd := exec.CommandContext(t.Context(), command[0], append(command[1:], args...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); cmd.ProcessState == nil {
		require.NoError(t, err)
	}
	return strings.TrimSpace(out.String()), said.String(), cmd.ProcessState.ExitCode()
}

// newClone is a reader in a clone of the repository.
func newClone(t *testing.T) reader {
	t.Helper()
	r := newReader(t)
	examples, err := filepath.Abs("../../examples")
	require.NoError(t, err)
	require.NoError(t, os.Symlink(examples, filepath.Join(r.dir, "examples")))
	return r
}

// newApp sets up an application by the README of the examples. It returns the environment
// of the application, and a folder with the engine's key and another one.
func newApp(t *testing.T) (dir string, env []string) {
	t.Helper()
	r := newClone(t)
	r.run(`openssl genrsa -out ours.pem 2048
openssl genrsa -out theirs.pem 2048
vault write clanmeeting/config consumer_id=acme private_key=@ours.pem domain=meet.example.com
vault write clanmeeting/roles/support allowed_rooms='support-*' ttl=5m
vault read -field=public_key clanmeeting/config >public.pem`)
	setUp := blocks(sections(t, "../../examples/README.md")["Before the first link"])
	out := strings.Fields(r.run(setUp[0].commands + setUp[1].commands + `echo "VAULT_ROLE_ID=$VAULT_ROLE_ID VAULT_SECRET_ID=$VAULT_SECRET_ID"`))
	// The examples must not use VAULT_TOKEN.
	env = append(out[len(out)-2:], "VAULT_ADDR="+vault.Addr, "VAULT_TOKEN="+vault.RootToken)
	return r.dir, slices.Clip(env) // for parallel subtests, which append to it
}

// tokenOf returns the token in a link for the room.
func tokenOf(t *testing.T, link, room string) string {
	t.Helper()
	u, err := url.Parse(link)
	require.NoError(t, err)
	require.Equal(t, "meet.example.com/acme/"+room, u.Host+u.Path)
	return u.Query().Get("jwt")
}

// timeOf returns a claim that is a time.
func timeOf(t *testing.T, claims map[string]any, name string) int64 {
	t.Helper()
	n, err := claims[name].(json.Number).Int64()
	require.NoError(t, err)
	return n
}

// A library accepts the token of each link. The token is as the vendor's snippet makes it
// with the same library, which refuses other tokens of the snippet, with the right reason.
func TestExamples(t *testing.T) {
	dir, env := newApp(t)
	const room, hour = "support-4711", 3600
	for _, lang := range languages() {
		t.Run(lang.name, func(t *testing.T) {
			link, said, status := run(t, env, lang.example, room)
			require.Zero(t, status, said)
			require.Empty(t, said)
			token := tokenOf(t, link, room)
			claims, err := claimsOf(token)
			require.NoError(t, err)
			nbf, exp := timeOf(t, claims, "nbf"), timeOf(t, claims, "exp")

			sign := func(key, room string, nbf, exp int64) string {
				token, said, status := run(t, nil, lang.verifier, "sign", filepath.Join(dir, key), "acme", room, fmt.Sprint(nbf), fmt.Sprint(exp))
				require.Zero(t, status, said)
				return token
			}
			snippets := sign("ours.pem", room, nbf, exp)
			require.JSONEq(t, segment(t, snippets, 0), segment(t, token, 0))
			theirs, err := claimsOf(snippets)
			require.NoError(t, err)
			require.Equal(t, theirs, claims)
			for says, token := range map[string]string{
				"^$":            token,
				"(?i)signature": sign("theirs.pem", room, nbf, exp),
				"wrong room":    sign("ours.pem", "support-4712", nbf, exp),
				"expired":       sign("ours.pem", room, nbf-hour, exp-hour),
				`not active|not valid yet|not yet valid|nbf`: sign("ours.pem", room, nbf+hour, exp+hour),
			} {
				_, said, status := run(t, nil, lang.verifier, "verify", filepath.Join(dir, "public.pem"), token, "acme", room)
				require.Equal(t, says == "^$", status == 0, "%s: %s", says, said)
				require.Regexp(t, says, said)
			}
		})
	}
}

// When Vault refuses, an example prints one line and ends at once.
func TestExamplesRefused(t *testing.T) {
	_, env := newApp(t)
	root(t).write("clanmeeting/config", map[string]any{"domain": ""})
	for _, lang := range languages() {
		t.Run(lang.name, func(t *testing.T) {
			for _, test := range []struct{ room, env, says string }{
				{"billing", "", `room "billing" is not allowed by this role`},
				{"support-1&ttl=1h", "", "room must be one room name"},
				{"support-1", "CLANMEETING_CREDS=clanmeeting/creds/other", "permission denied.*creds/other|creds/other.*permission denied"},
				{"support-1", "VAULT_SECRET_ID=wrong", "invalid role or secret ID"},
				{"support-1", "VAULT_ADDR=localhost:8200", "localhost:8200 is not the address of a Vault"},
				{"support-1", "", "Vault's answer has no meeting_url"},
			} {
				out, said, status := run(t, append(env, test.env), lang.example, test.room)
				require.Equal(t, 1, status, said)
				require.Empty(t, out)
				require.Regexp(t, "^error: .*("+test.says+").*\n$", said)
			}
		})
	}
}

// With an uncaught exception, PHP prints the arguments of the calls, unless a php.ini turns
// that off.
func TestExamplesPHPTrace(t *testing.T) {
	const program = `require "../../examples/php/HostLinks.php"; new ClanMeeting\HostLinks("no address", "the-role", "the-secret", "x");`
	out, said, status := run(t, nil, []string{"php", "-n", "-d", "display_errors=1", "-r"}, program)
	require.NotZero(t, status)
	require.Contains(t, out+said, "the-role")
	require.NotContains(t, out+said, "the-secret")
}

// A proxy may answer in Vault's place. The examples retry after such answers, and send
// neither the token nor the secret ID to the target of a redirect. The proxy also sees
// whether the requests name a namespace: Vault's community edition ignores that.
func TestExamplesThroughAProxy(t *testing.T) {
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(other.Close)
	_, env := newApp(t)
	target, err := url.Parse(vault.Addr)
	require.NoError(t, err)
	toVault := httputil.NewSingleHostReverseProxy(target)
	const (
		pass    = "" // to Vault
		good    = "HTTP/1.1 200 OK\r\n\r\n"
		many    = "HTTP/1.1 429 Too Many Requests\r\n\r\n"
		gateway = "HTTP/1.1 502 Bad Gateway\r\n\r\n"
	)
	redirect := "HTTP/1.1 307 Temporary Redirect\r\nLocation: " + other.URL + "\r\n\r\n"
	for _, test := range []struct {
		name      string
		namespace []string
		answers   []string // to the login, which succeeds in the end, and to the read after it
	}{
		{"redirects and pages", nil, []string{redirect, pass, redirect, many + "<html>", gateway + "<html>", good + "<html>"}},
		{"another's JSON", []string{"team/desk"}, []string{
			good + `{}`, pass, good + `[]`, good + `{"data":null}`, gateway + `{"errors":"x"}`, gateway + `{"errors":[{"code":1}]}`,
		}},
		{"no HTTP", nil, []string{
			good, pass, "SMTP\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", good + "null",
		}},
	} {
		for _, lang := range languages() {
			t.Run(test.name+"/"+lang.name, func(t *testing.T) {
				t.Parallel()
				var requests atomic.Int64
				proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					assert.Equal(t, test.namespace, r.Header.Values("X-Vault-Namespace"))
					r.Header.Del("X-Vault-Namespace")
					if n := int(requests.Add(1)); n <= len(test.answers) && test.answers[n-1] != pass {
						_, _ = io.Copy(io.Discard, r.Body)
						conn, _, err := http.NewResponseController(w).Hijack()
						if assert.NoError(t, err) {
							_, _ = io.WriteString(conn, test.answers[n-1])
							_ = conn.Close()
						}
						return
					}
					toVault.ServeHTTP(w, r)
				}))
				defer proxy.Close()
				// With the slash that people often write.
				env := append(env, "VAULT_ADDR="+proxy.URL+"/", "VAULT_NAMESPACE="+strings.Join(test.namespace, ""))
				link, said, status := run(t, env, lang.example, "support-1")
				require.Zero(t, status, said)
				tokenOf(t, link, "support-1")
				require.Equal(t, len(test.answers)-1, strings.Count(said, "trying again"), said)
				require.NotContains(t, said, "PHP Warning")
				require.EqualValues(t, len(test.answers)+1, requests.Load())
				require.Zero(t, elsewhere.Load(), "followed a redirect")
			})
		}
	}
}

// All five keep a link valid during the whole test: after their login has expired, which
// lasts two seconds, and after Vault was sealed for a while.
func TestExamplesKeepLinks(t *testing.T) {
	_, env := newApp(t)
	key := publicKey(t, "clanmeeting")
	root(t).write("clanmeeting/roles/support", map[string]any{"ttl": 6})
	root(t).write("auth/approle/role/support-app", map[string]any{"token_ttl": "2s", "token_max_ttl": "2s"})
	var keepers []*keeper
	for _, lang := range languages() {
		keepers = append(keepers, keep(t, env, lang))
	}
	// live waits until each has printed more links. Meanwhile the last one of them is valid.
	live := func(more int) {
		for _, k := range keepers {
			k.first = len(k.expirations(t, key))
			k.count = k.first
		}
		waitUntil(t, "each prints links", func() bool {
			ready := true
			for _, k := range keepers {
				all := k.expirations(t, key)
				require.LessOrEqual(t, len(all), k.count+1, "%s printed links late", k.name)
				k.count = len(all)
				if k.count > k.first {
					require.Less(t, time.Now().Unix(), all[k.count-1], "%s: the last link has expired", k.name)
				}
				ready = ready && k.count >= k.first+more
			}
			return ready
		})
	}
	live(3)
	for _, k := range keepers {
		require.NotContains(t, k.said(), "trying again", k.name)
	}

	_, unsealKey, found := strings.Cut(vault.Log(), "Unseal Key: ")
	require.True(t, found)
	unseal := func() {
		status, answer := root(t).post("sys/unseal", map[string]any{"key": strings.Fields(unsealKey)[0]})
		require.Equal(t, http.StatusOK, status, answer.Errors())
	}
	t.Cleanup(unseal) // for later tests, if this one fails before
	root(t).write("sys/seal", nil)
	waitUntil(t, "each says that Vault is sealed", func() bool {
		return !slices.ContainsFunc(keepers, func(k *keeper) bool { return !strings.Contains(k.said(), "Vault is sealed") })
	})
	unseal()
	live(2)
}

// keeper is an example that runs with --keep.
type keeper struct {
	name, output string // output is its file, for links and errors
	first, count int    // links: before the present phase, and now
}

func keep(t *testing.T, env []string, lang language) *keeper {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "output"))
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), lang.example[0], append(lang.example[1:], "--keep", "support-1")...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), file, file
	require.NoError(t, cmd.Start())
	k := &keeper{name: lang.name, output: file.Name()}
	t.Cleanup(func() {
		_ = cmd.Wait() // the test's context has killed it
		_ = file.Close()
		if t.Failed() {
			t.Logf("%s: %s", k.name, k.said())
		}
	})
	return k
}

func (k *keeper) said() string {
	raw, _ := os.ReadFile(k.output)
	return string(raw)
}

// expirations returns when the links expire that it has printed. Between two links are more
// than two seconds, a third of their life.
func (k *keeper) expirations(t *testing.T, key *rsa.PublicKey) []int64 {
	t.Helper()
	var all []int64
	for line := range strings.Lines(k.said()) {
		if link, found := strings.CutSuffix(line, "\n"); found && strings.HasPrefix(link, "https://") {
			all = append(all, timeOf(t, verify(t, tokenOf(t, link, "support-1"), key), "exp"))
		}
	}
	for i := 1; i < len(all); i++ {
		require.Greater(t, all[i]-all[i-1], int64(2), k.name)
	}
	return all
}

// docs/migrating.md works as written. The audit log says who got a token, by the commands of
// the operator's guide.
func TestMigratingGuide(t *testing.T) {
	text, err := os.ReadFile("../../docs/migrating.md")
	require.NoError(t, err)
	r := newClone(t)
	audit := indented(sections(t, "../../docs/operations.md")["Who asked for which token"])
	commands := strings.ReplaceAll(indented(string(text))+audit, "/var/log/vault/", r.dir+"/")
	// An application's request, for the audit log.
	commands = strings.Replace(commands, "jq -r", "vault read clanmeeting/creds/support room=support-4711\njq -r", 1)
	r.run("openssl genrsa -out cm-api-key.pem 2048")
	now, key := time.Now().Unix(), filepath.Join(r.dir, "cm-api-key.pem")
	old, said, status := run(t, nil, languages()[0].verifier, "sign", key, "acme", "support-4711", fmt.Sprint(now), fmt.Sprint(now+900))
	require.Zero(t, status, said)
	r.file("old-token.txt", old)
	t.Cleanup(func() { root(t).call(http.MethodDelete, "sys/audit/file", nil) })
	out := r.run(commands)
	for _, want := range []string{
		`valid +true`, `allowed +false`,
		`(?m)^\d{4}-\S+\ttoken\t-\tclanmeeting/creds/support\t`, `(?m)^\d{4}-\S+\ttoken\t127\.0\.0\.1$`,
	} {
		require.Regexp(t, want, out)
	}
}
