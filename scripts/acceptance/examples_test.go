// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance && examples

// The examples in their own languages, which "make examples" makes sure are there.

package acceptance

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, command[0], append(command[1:], args...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); cmd.ProcessState == nil {
		require.NoError(t, err)
	}
	return strings.TrimSpace(out.String()), said.String(), cmd.ProcessState.ExitCode()
}

// meetings is a mount whose key the test knows, and an application that may read the
// tokens of one role. The tokens live ttl seconds; a login of the application (AppRole)
// lasts two seconds.
type meetings struct {
	mount, keyFile, publicFile string
	env                        []string
}

func newMeetings(t *testing.T, ttl int) meetings {
	t.Helper()
	m := meetings{mount: enable(t), keyFile: filepath.Join(t.TempDir(), "key.pem"), publicFile: filepath.Join(t.TempDir(), "public.pem")}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	require.NoError(t, os.WriteFile(m.keyFile, text, 0o600))
	root(t).write(m.mount+"/config", map[string]any{"consumer_id": "acme", "private_key": string(text), "domain": "meet.example.com"})
	require.NoError(t, os.WriteFile(m.publicFile, []byte(root(t).read(m.mount + "/config")["public_key"].(string)), 0o600))
	root(t).write(m.mount+"/roles/support", map[string]any{"allowed_rooms": "support-*", "ttl": ttl, "max_not_before": 60})

	root(t).write("sys/policies/acl/"+m.mount, map[string]any{"policy": strings.ReplaceAll(examplePolicy(t, "app"), `"clanmeeting/`, `"`+m.mount+`/`)})
	if status, _ := root(t).get("sys/auth/approle"); status != http.StatusOK {
		root(t).write("sys/auth/approle", map[string]any{"type": "approle"})
	}
	app := "auth/approle/role/" + m.mount
	root(t).write(app, map[string]any{"token_policies": m.mount, "token_no_default_policy": true, "token_ttl": "2s", "token_max_ttl": "2s"})
	m.env = []string{
		"VAULT_ADDR=" + vault.Addr,
		"VAULT_TOKEN=" + vault.RootToken, // the examples must not use it
		"VAULT_ROLE_ID=" + root(t).read(app + "/role-id")["role_id"].(string),
		"VAULT_SECRET_ID=" + root(t).write(app+"/secret-id", nil).Data()["secret_id"].(string),
		"CLANMEETING_CREDS=" + m.mount + "/creds/support",
	}
	return m
}

// tokenOf returns the token in a link for the room.
func tokenOf(t *testing.T, link, room string) string {
	t.Helper()
	u, err := url.Parse(link)
	require.NoError(t, err)
	require.Equal(t, "meet.example.com/acme/"+room, u.Host+u.Path)
	return u.Query().Get("jwt")
}

func TestExamples(t *testing.T) {
	m := newMeetings(t, 300)
	for _, lang := range languages() {
		t.Run(lang.name, func(t *testing.T) {
			link, said, status := run(t, m.env, lang.example, "support-4711")
			require.Zero(t, status, said)
			require.Empty(t, said)
			token := tokenOf(t, link, "support-4711")
			_, said, status = run(t, nil, lang.verifier, "verify", m.publicFile, token, "acme", "support-4711")
			require.Zero(t, status, said)

			claims, err := claimsOf(token)
			require.NoError(t, err)
			theirs, said, status := run(t, nil, lang.verifier, "sign", m.keyFile, "acme", "support-4711", fmt.Sprint(claims["nbf"]), fmt.Sprint(claims["exp"]))
			require.Zero(t, status, said)
			snippets, err := claimsOf(theirs)
			require.NoError(t, err)
			require.Equal(t, snippets, claims, "the claims of the vendor's snippet")
			require.JSONEq(t, segment(t, theirs, 0), segment(t, token, 0), "the header of the vendor's snippet")
		})
	}
}

// The library that verifies in TestExamples refuses each of these tokens, with the right
// reason.
func TestLibrariesRefuse(t *testing.T) {
	m, stranger := newMeetings(t, 3600), newMeetings(t, 3600)
	token := func(pairs ...string) string {
		return root(t).read(m.mount+"/creds/support", append([]string{"room", "support-1"}, pairs...)...)["token"].(string)
	}
	root(t).write(m.mount+"/config", map[string]any{"audience": "other"})
	otherAudience := token()
	root(t).write(m.mount+"/config", map[string]any{"audience": "clanmeeting", "issuer": "other"})
	otherIssuer := token()
	root(t).write(m.mount+"/config", map[string]any{"issuer": "production"})
	expired := token("ttl", "1s")
	good := token()
	public, err := os.ReadFile(m.publicFile)
	require.NoError(t, err)
	time.Sleep(2 * time.Second)

	for _, lang := range languages() {
		t.Run(lang.name, func(t *testing.T) {
			for _, test := range []struct{ name, key, token, room, says string }{
				{"another room", m.publicFile, good, "support-2", "wrong room"},
				{"past its time", m.publicFile, expired, "support-1", "expired"},
				{"before its time", m.publicFile, token("not_before", strconv.FormatInt(time.Now().Unix()+50, 10)), "support-1", `not active|not valid yet|not yet valid|nbf`},
				{"another audience", m.publicFile, otherAudience, "support-1", "(?i)aud"},
				{"another issuer", m.publicFile, otherIssuer, "support-1", "(?i)iss"},
				{"another key", stranger.publicFile, good, "support-1", "(?i)signature"},
				{"a changed signature", m.publicFile, changed(good), "support-1", "(?i)signature"},
				{"HS256 with the public key as secret", m.publicFile, forged(good, public), "support-1", "(?i)alg|signature|PEM"},
			} {
				_, said, status := run(t, nil, lang.verifier, "verify", test.key, test.token, "acme", test.room)
				require.NotZero(t, status, test.name)
				require.Regexp(t, test.says, said, test.name)
			}
			_, said, status := run(t, nil, lang.verifier, "verify", m.publicFile, good, "acme", "support-1")
			require.Zero(t, status, said)
		})
	}
}

// changed returns the token with another character in the middle of its signature.
func changed(token string) string {
	i := strings.LastIndex(token, ".") + 100
	other := "A"
	if token[i] == 'A' {
		other = "B"
	}
	return token[:i] + other + token[i+1:]
}

// forged returns the token as somebody who has only the public key would make it.
func forged(token string, public []byte) string {
	signed := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"acme","typ":"JWT"}`)) + "." + strings.Split(token, ".")[1]
	mac := hmac.New(sha256.New, public)
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// When Vault refuses, an example prints one line and ends at once.
func TestExamplesRefused(t *testing.T) {
	for _, lang := range languages() {
		t.Run(lang.name, func(t *testing.T) {
			m := newMeetings(t, 300) // not shared: Vault locks out after five wrong secret IDs
			for _, test := range []struct{ name, env, room, says string }{
				{"a room that the role does not allow", "", "billing", `error: .*room "billing" is not allowed by this role.*`},
				{"a parameter in the room", "", "support-1&ttl=1h", `error: .*room must be one room name.*`},
				{"a role that the policy does not allow", "CLANMEETING_CREDS=" + m.mount + "/creds/other", "support-1", "error: .*permission denied.*/?creds/other.*|error: .*creds/other.*permission denied"},
				{"a wrong secret ID", "VAULT_SECRET_ID=wrong", "support-1", "error: .*invalid role or secret ID.*"},
			} {
				out, said, status := run(t, append(m.env, test.env), lang.example, test.room)
				require.Equal(t, 1, status, "%s: %s", test.name, said)
				require.Empty(t, out, test.name)
				require.Regexp(t, "^("+test.says+")\n$", said, test.name)
				require.NotContains(t, said, "trying again", test.name)
			}
			root(t).write(m.mount+"/config", map[string]any{"domain": ""})
			_, said, status := run(t, m.env, lang.example, "support-1")
			root(t).write(m.mount+"/config", map[string]any{"domain": "meet.example.com"})
			require.Equal(t, 1, status)
			require.Contains(t, said, "error: Vault's answer has no meeting_url")
			_, said, status = run(t, append(m.env, "VAULT_ADDR=localhost:8200"), lang.example, "support-1")
			require.Equal(t, 1, status)
			require.Contains(t, said, "error: localhost:8200 is not the address of a Vault")
		})
	}
}

// A proxy may answer in Vault's place. The examples retry after such answers, and send
// neither the token nor the secret ID to the target of a redirect.
func TestExamplesThroughAProxy(t *testing.T) {
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(other.Close)
	redirect := http.RedirectHandler(other.URL, http.StatusTemporaryRedirect).ServeHTTP
	pass := toVault(t)
	says := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", http.DetectContentType([]byte(body)))
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	for _, lang := range languages() {
		m := newMeetings(t, 300)
		root(t).write("auth/approle/role/"+m.mount, map[string]any{"token_ttl": "1m", "token_max_ttl": "1m"})
		// The login, which succeeds in the end, and the read after it.
		for name, answers := range map[string][]http.HandlerFunc{
			"redirects and pages": {redirect, pass, redirect, says(http.StatusTooManyRequests, "<html>"), says(http.StatusBadGateway, "<html>"), says(http.StatusOK, "<html>")},
			"another's JSON":      {says(http.StatusOK, `{}`), pass, says(http.StatusOK, `[]`), says(http.StatusOK, `{"data":null}`), says(http.StatusBadGateway, `{"errors":"x"}`), says(http.StatusServiceUnavailable, `{"errors":[{"code":1}]}`)},
			"no HTTP":             {says(http.StatusOK, ``), pass, noHTTP("SMTP\r\n\r\n"), noHTTP("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{"), noHTTP("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"), says(http.StatusOK, `null`)},
		} {
			t.Run(lang.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				var requests atomic.Int64
				proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if n := int(requests.Add(1)); n <= len(answers) {
						answers[n-1](w, r)
						return
					}
					pass(w, r)
				}))
				defer proxy.Close()
				// With the slash that people often write.
				link, said, status := run(t, append(m.env, "VAULT_ADDR="+proxy.URL+"/"), lang.example, "support-1")
				require.Zero(t, status, said)
				tokenOf(t, link, "support-1")
				require.Equal(t, len(answers)-1, strings.Count(said, "trying again"), said)
				require.NotContains(t, said, "PHP Warning")
				require.EqualValues(t, len(answers)+1, requests.Load())
				require.Zero(t, elsewhere.Load(), "followed a redirect")
			})
		}
	}
}

// toVault passes requests to Vault, as a proxy does.
func toVault(t *testing.T) http.HandlerFunc {
	t.Helper()
	target, err := url.Parse(vault.Addr)
	require.NoError(t, err)
	return httputil.NewSingleHostReverseProxy(target).ServeHTTP
}

// noHTTP answers with text that is not valid HTTP, and closes the connection.
func noHTTP(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_, _ = io.WriteString(conn, text)
			_ = conn.Close()
		}
	}
}

// With an uncaught exception, PHP prints the arguments of the calls, unless a php.ini turns
// that off.
func TestPHPTraceHasNoSecret(t *testing.T) {
	const program = `require "../../examples/php/HostLinks.php"; new ClanMeeting\HostLinks("no address", "the-role", "the-secret", "x");`
	out, said, status := run(t, nil, []string{"php", "-n", "-d", "display_errors=1", "-r"}, program)
	require.NotZero(t, status)
	require.Contains(t, out+said, "the-role")
	require.NotContains(t, out+said, "the-secret")
}

// All five keep a link valid during the whole test: after their login has expired, which
// lasts two seconds, and after Vault was sealed for a while.
func TestExamplesKeepLinks(t *testing.T) {
	m := newMeetings(t, 6)
	keepers := map[string]*keeper{}
	for _, lang := range languages() {
		keepers[lang.name] = keep(t, m, lang)
	}
	live := func(rounds int) {
		for range rounds {
			for name, k := range keepers {
				link := k.next(t)
				claims := verify(t, tokenOf(t, link.url, "support-1"), publicKey(t, m.mount))
				exp, err := claims["exp"].(json.Number).Int64()
				require.NoError(t, err)
				require.Less(t, link.printed, time.Unix(exp, 0), name)
				if k.last.url != "" {
					require.NotEqual(t, k.last.url, link.url, name)
					require.Less(t, link.printed, k.expires, "%s: the last link had expired", name)
					require.Greater(t, link.printed.Sub(k.last.printed), 2*time.Second, "%s: a third of its life", name)
				}
				k.last, k.expires = link, time.Unix(exp, 0)
			}
		}
	}
	live(3)
	for name, k := range keepers {
		require.NotContains(t, k.said(), "trying again", name)
	}

	_, key, found := strings.Cut(vault.Log(), "Unseal Key: ")
	require.True(t, found)
	unseal := func() {
		status, answer := root(t).post("sys/unseal", map[string]any{"key": strings.Fields(key)[0]})
		require.Equal(t, http.StatusOK, status, answer.Errors())
	}
	t.Cleanup(unseal) // for later tests, if this one fails before
	root(t).write("sys/seal", nil)
	for name, k := range keepers {
		require.Eventually(t, func() bool { return strings.Contains(k.said(), "Vault is sealed") }, 30*time.Second, 50*time.Millisecond, "%s: %s", name, k.said())
	}
	unseal()
	require.Eventually(t, func() bool { status, _ := root(t).get("sys/health"); return status == http.StatusOK }, 30*time.Second, 50*time.Millisecond)
	for _, k := range keepers {
		k.drain()
	}
	live(2)
}

// keeper is an example that runs with --keep.
type keeper struct {
	links   chan printedLink
	stderr  string // its file
	last    printedLink
	expires time.Time // the last link
}

type printedLink struct {
	url     string
	printed time.Time
}

func keep(t *testing.T, m meetings, lang language) *keeper {
	t.Helper()
	k := &keeper{links: make(chan printedLink, 100), stderr: filepath.Join(t.TempDir(), "stderr")}
	file, err := os.Create(k.stderr)
	require.NoError(t, err)
	cmd := exec.Command(lang.example[0], append(lang.example[1:], "--keep", "support-1")...)
	cmd.Env = append(os.Environ(), m.env...)
	cmd.Stderr = file
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.copy(out)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		for range k.links { // copy may be waiting to send one
		}
		<-done
		_ = cmd.Wait()
		_ = file.Close()
	})
	return k
}

func (k *keeper) copy(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		k.links <- printedLink{lines.Text(), time.Now()}
	}
	close(k.links)
}

// next returns the next link that it prints.
func (k *keeper) next(t *testing.T) printedLink {
	t.Helper()
	select {
	case link, ok := <-k.links:
		require.True(t, ok, "the example has ended: %s", k.said())
		return link
	case <-time.After(time.Minute):
		require.Fail(t, "no link for a minute", k.said())
		return printedLink{}
	}
}

// drain discards the links that were printed so far.
func (k *keeper) drain() {
	for len(k.links) > 0 {
		<-k.links
	}
	k.last = printedLink{}
}

func (k *keeper) said() string {
	raw, _ := os.ReadFile(k.stderr)
	return string(raw)
}

// docs/migrating.md works as written. The audit log says who got a token, by the commands of
// the operator's guide.
func TestMigratingGuide(t *testing.T) {
	text, err := os.ReadFile("../../docs/migrating.md")
	require.NoError(t, err)
	r := newReader(t)
	audit := indented(sections(t, "../../docs/operations.md")["Who asked for which token"])
	commands := strings.ReplaceAll(indented(string(text))+audit, "/var/log/vault/", r.dir+"/")
	// An application's request, for the audit log.
	commands = strings.Replace(commands, "jq -r", "vault read -field=token clanmeeting/creds/support room=support-4711\njq -r", 1)
	require.NoError(t, os.CopyFS(filepath.Join(r.dir, "examples"), os.DirFS("../../examples")))
	r.run("openssl genrsa -out cm-api-key.pem 2048")
	now := time.Now().Unix()
	old, said, status := run(t, nil, languages()[0].verifier, "sign", filepath.Join(r.dir, "cm-api-key.pem"), "acme", "support-4711", fmt.Sprint(now), fmt.Sprint(now+900))
	require.Zero(t, status, said)
	r.file("old-token.txt", old)
	t.Cleanup(func() { root(t).call(http.MethodDelete, "sys/audit/file", nil) })
	out := r.run(commands)
	for _, want := range []string{`valid +true`, `allowed +false`, `(?m)^\d{4}-\S+\ttoken\t-\tclanmeeting/creds/support\t`, `(?m)^\d{4}-\S+\ttoken\t127\.0\.0\.1$`} {
		require.Regexp(t, want, out)
	}
}

// With VAULT_NAMESPACE, the login and the read name the namespace; without it, neither does.
// A proxy sees that, because Vault's community edition has no namespaces: it ignores the
// header.
func TestExamplesNamespace(t *testing.T) {
	pass := toVault(t)
	for _, lang := range languages() {
		t.Run(lang.name, func(t *testing.T) {
			t.Parallel()
			m := newMeetings(t, 300)
			for given, want := range map[string][]string{"VAULT_NAMESPACE=team/desk": {"team/desk"}, "VAULT_NAMESPACE=": nil} {
				var mu sync.Mutex
				var names [][]string
				proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					names = append(names, r.Header.Values("X-Vault-Namespace"))
					mu.Unlock()
					r.Header.Del("X-Vault-Namespace")
					pass(w, r)
				}))
				_, said, status := run(t, append(m.env, "VAULT_ADDR="+proxy.URL, given), lang.example, "support-1")
				proxy.Close()
				require.Zero(t, status, said)
				require.Equal(t, [][]string{want, want}, names, given)
			}
		})
	}
}
