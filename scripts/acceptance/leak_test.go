// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// auditLog enables an audit device of the test's own, and returns its file and name.
func auditLog(t testing.TB) (file, device string) {
	t.Helper()
	file, device = filepath.Join(t.TempDir(), "audit.log"), unique(t)
	root(t).write("sys/audit/"+device, map[string]any{"type": "file", "options": map[string]any{"file_path": file}})
	t.Cleanup(func() { root(t).call(http.MethodDelete, "sys/audit/"+device, nil) })
	return file, device
}

// For good and bad input, neither a key nor a token is in the server's log at trace level,
// in the audit log, or in any answer except that of creds.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	audit, _ := auditLog(t)
	mount := enable(t)
	key, private := newKey(t)
	staged, stagedPrivate := newKey(t)
	var answers strings.Builder
	call := func(method, path string, body any) {
		status, answer := root(t).call(method, mount+path, body)
		fmt.Fprintln(&answers, status, path, answer)
	}
	good := map[string]any{"consumer_id": "acme", "private_key": private}
	call(http.MethodPost, "/config", good)
	call(http.MethodPost, "/config", good)
	for _, bad := range []any{
		[]string{private}, map[string]any{"pem": private}, private + private, private[:len(private)-40], strings.ReplaceAll(private, "RSA ", "EC "), strings.ReplaceAll(private, "\n", " "),
	} {
		call(http.MethodPost, "/config", map[string]any{"private_key": bad, "active_key": 1})
		call(http.MethodPost, "/roles/x", map[string]any{"private_key": bad, "ttl": "x"})
		call(http.MethodPost, "/creds/x", map[string]any{"private_key": bad})
		call(http.MethodPost, "/keys/import", map[string]any{"private_key": bad})
		call(http.MethodPost, "/config", map[string]any{"consumer_id": "acme", "domain": bad})
		call(http.MethodPost, "/roles/x", map[string]any{"allowed_rooms": bad})
		call(http.MethodPost, "/creds/support", map[string]any{"room": bad})
		call(http.MethodPost, "/check/support", map[string]any{"not_before": bad})
		call(http.MethodPost, "/verify", map[string]any{"token": bad})
	}
	call(http.MethodGet, "/config", nil)
	call(http.MethodGet, "/keys/1", nil)
	call(http.MethodPost, "/roles/support", map[string]any{"allowed_rooms": "support-*"})
	call(http.MethodPost, "/roles/leased", map[string]any{"allowed_rooms": "*", "generate_lease": true})
	call(http.MethodPost, "/keys/import", map[string]any{"private_key": stagedPrivate})
	call(http.MethodGet, "/keys/2", nil)
	call(http.MethodGet, "/keys?list=true", nil)
	call(http.MethodGet, "/check/support?room=support-1", nil)
	call(http.MethodGet, "?help=1", nil)

	tokens := []string{}
	for _, path := range []string{"/creds/support", "/creds/leased"} {
		token := root(t).read(mount+path, "room", "support-lobby")["token"].(string)
		tokens = append(tokens, token)
		call(http.MethodPost, "/verify", map[string]any{"token": token, "room": "other"})
		call(http.MethodPost, "/verify", map[string]any{"token": []string{token}})
	}
	batch := root(t).write(mount+"/creds/support", `{"batch_input":[{"room":"support-vestibule"}]}`)
	tokens = append(tokens, batch.Data()["batch_results"].([]any)[0].(map[string]any)["token"].(string))
	call(http.MethodPost, "/config", map[string]any{"active_key": 2})
	call(http.MethodDelete, "/keys/1", nil)
	call(http.MethodDelete, "/config", nil)

	log, err := os.ReadFile(audit)
	require.NoError(t, err)
	// The search itself must work: both logs contain what belongs there.
	require.Contains(t, string(log), mount+"/creds/support")
	require.Contains(t, vault.Log(), "[TRACE]")
	require.NotContains(t, vault.Log(), "event not sent")
	// The room of a write is logged as an HMAC. For a read, Vault logs the query, and
	// OpenBao does not.
	require.False(t, strings.Contains(string(log), "support-vestibule"))
	require.Equal(t, vault.Kind == devvault.Vault, strings.Contains(string(log), "support-lobby"))
	for where, text := range map[string]string{"server log": vault.Log(), "audit log": string(log), "answers": answers.String()} {
		requireNoKey(t, where, text, key, staged)
		for _, token := range tokens {
			require.False(t, strings.Contains(text, token[strings.LastIndex(token, ".")+1:]), where)
		}
	}
}

func requireNoKey(t testing.TB, where, text string, keys ...*rsa.PrivateKey) {
	t.Helper()
	for _, key := range keys {
		for what, needle := range keyNeedles(t, key) {
			if strings.Contains(text, needle) {
				t.Errorf("%s: holds %s", where, what)
			}
		}
	}
}

// A private key that arrives as the name of a field, as curl --data-binary sends it, is in
// no answer and no log. In the audit log it is only in the request, which Vault writes.
func TestKeyAsAForm(t *testing.T) {
	t.Parallel()
	audit, _ := auditLog(t)
	mount, _ := configured(t)
	key, private := newKey(t)
	bare := strings.Join(strings.Split(private, "\n")[1:26], "") // without BEGIN and END
	var answers strings.Builder
	for _, path := range []string{"config", "keys/import", "keys/1", "roles/support", "roles/new", "creds/support", "check/support", "verify"} {
		for _, r := range []reply{
			root(t).send(http.MethodPost, mount+"/"+path, asForm, private),
			root(t).send(http.MethodPost, mount+"/"+path, asForm, url.QueryEscape(bare)),
			root(t).send(http.MethodPut, mount+"/"+path, asForm, "consumer_id=acme&"+url.QueryEscape(private)),
			root(t).send(http.MethodPost, mount+"/"+path, asJSONBody, "{"+asJSON(t, private)+":1}"),
			root(t).send(http.MethodDelete, mount+"/"+path+"?"+url.QueryEscape(private), "", ""),
			root(t).send(http.MethodPost, mount+"/"+path+"/"+url.PathEscape(private), asJSONBody, `{"allowed_rooms":"x"}`),
		} {
			require.True(t, r.status >= http.StatusBadRequest && r.status < http.StatusInternalServerError, "%s: %d %s", path, r.status, r.raw)
			answers.WriteString(r.raw)
		}
	}
	raw, err := os.ReadFile(audit)
	require.NoError(t, err)
	var responses strings.Builder
	for line := range bytes.Lines(raw) {
		var entry map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(line, &entry))
		responses.Write(entry["response"])
		responses.Write(entry["error"])
	}
	require.Contains(t, string(raw), private[40:60], "the search must see: it is in the requests")
	require.NotEmpty(t, responses.String())
	for where, text := range map[string]string{"answers": answers.String(), "audited responses": responses.String(), "server log": vault.Log()} {
		requireNoKey(t, where, text, key)
	}
}

// keyNeedles returns pieces of a private key to look for in a text: its prime factors and
// its private exponent, in all encodings that they may have there, and the lines of its PEMs.
func keyNeedles(t testing.TB, key *rsa.PrivateKey) map[string]string {
	t.Helper()
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	needles := map[string]string{}
	for part, n := range map[string]*big.Int{"the first prime": key.Primes[0], "the second prime": key.Primes[1], "the private exponent": key.D} {
		raw := n.Bytes()
		needles[part+" in decimal"] = n.String()[10:50]
		for at := 8; at+30 <= len(raw); at += 30 { // a line break may be in one of them
			piece := raw[at : at+30]
			what := fmt.Sprintf("%s from byte %d", part, at)
			needles[what] = string(piece[:24])
			needles[what+" in hex"] = hex.EncodeToString(piece[:24])
			needles[what+" in HEX"] = strings.ToUpper(hex.EncodeToString(piece[:24]))
			needles[what+" as Go prints it"] = strings.Trim(fmt.Sprintf("%v", any(piece[:24])), "[]")
			for shift := range 3 {
				needles[fmt.Sprintf("%s in base64, shifted by %d", what, shift)] = base64.StdEncoding.EncodeToString(piece[shift : shift+24])[2:30]
				needles[fmt.Sprintf("%s in base64url, shifted by %d", what, shift)] = base64.URLEncoding.EncodeToString(piece[shift : shift+24])[2:30]
			}
		}
	}
	for form, der := range map[string][]byte{"PKCS#1": x509.MarshalPKCS1PrivateKey(key), "PKCS#8": pkcs8} {
		for i, line := range strings.Split(string(pem.EncodeToMemory(&pem.Block{Type: "X", Bytes: der})), "\n") {
			// The first lines contain the public modulus.
			if i > 8 && len(line) == 64 {
				needles[fmt.Sprintf("line %d of the %s PEM", i, form)] = line
			}
		}
	}
	return needles
}

// The needles find a key in every known form.
func TestNeedlesFindAKey(t *testing.T) {
	t.Parallel()
	key, private := newKey(t)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	object, err := json.Marshal(map[string]any{"pkcs8": pkcs8})
	require.NoError(t, err)
	for what, text := range map[string]string{
		"PEM": private, "DER": string(pkcs8), "hex": hex.EncodeToString(pkcs8), "an entry": string(object),
		"%v of the bytes": fmt.Sprintf("%v", any(pkcs8)), "%v of the key": fmt.Sprintf("%+v", *key), "shifted": base64.StdEncoding.EncodeToString(append([]byte("x"), pkcs8...)),
	} {
		found := 0
		for _, needle := range keyNeedles(t, key) {
			found += strings.Count(text, needle)
		}
		require.NotZero(t, found, what)
	}
}
