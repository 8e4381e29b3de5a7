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

// For good and bad input, neither a key nor a token is in the server's log at trace level, in
// the audit log, or in any answer except that of creds. A key that arrives as the name of a
// field, as curl --data-binary sends it, is in the audit log, but only in the request, which
// Vault writes.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	audit, _ := auditLog(t)
	mount := enable(t)
	key, private := newKey(t)
	staged, stagedPrivate := newKey(t)
	named, namedPrivate := newKey(t)
	var answers strings.Builder
	call := func(method, path, contentType string, body any) {
		r := root(t).send(method, mount+path, contentType, body)
		require.Less(t, r.Status, http.StatusInternalServerError, "%s: %s", path, r.Raw)
		answers.Write(r.Raw)
	}
	post := func(path string, body any) { call(http.MethodPost, path, "", body) }
	post("/config", map[string]any{"consumer_id": "acme", "private_key": private})
	post("/keys/import", map[string]any{"private_key": stagedPrivate})
	post("/roles/support", map[string]any{"allowed_rooms": "support-*"})
	post("/roles/leased", map[string]any{"allowed_rooms": "*", "generate_lease": true})
	for path, field := range map[string]string{
		"/config": "private_key", "/keys/import": "private_key", "/roles/x": "allowed_rooms",
		"/creds/support": "room", "/creds/leased": "private_key", "/check/support": "not_before", "/verify": "token",
	} {
		for _, bad := range []any{[]string{private}, map[string]any{"pem": private}, private[:len(private)-40]} {
			post(path, map[string]any{field: bad})
		}
		post(path, map[string]any{base64.StdEncoding.EncodeToString(x509.MarshalPKCS1PrivateKey(named)): 1})
		post(path+"/"+url.PathEscape(namedPrivate), map[string]any{"allowed_rooms": "x"})
		call(http.MethodPost, path, asForm, namedPrivate)
		call(http.MethodDelete, path+"?"+url.QueryEscape(namedPrivate), "", nil)
	}
	batch := root(t).write(mount+"/creds/support", `{"batch_input":[{"room":"support-vestibule"}]}`)
	tokens := []string{first(batch.Data())["token"].(string)}
	for _, path := range []string{"/creds/support", "/creds/leased"} {
		token := root(t).read(mount+path, "room", "support-lobby")["token"].(string)
		tokens = append(tokens, token)
		post("/verify", map[string]any{"token": token, "room": "other"})
		post("/verify", map[string]any{"token": []string{token}})
	}
	post("/config", map[string]any{"active_key": 2})
	call(http.MethodDelete, "/config", "", nil)

	log, err := os.ReadFile(audit)
	require.NoError(t, err)
	var requests, responses strings.Builder
	for line := range bytes.Lines(log) {
		var entry map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(line, &entry))
		requests.Write(entry["request"])
		delete(entry, "request")
		fmt.Fprintf(&responses, "%s\n", entry)
	}
	// The search itself must work: each log contains what belongs there.
	require.Contains(t, requests.String(), namedPrivate[40:60])
	require.Contains(t, responses.String(), "hmac-sha256:")
	require.Contains(t, vault.Log(), "[TRACE]")
	require.NotContains(t, vault.Log(), "event not sent")
	// The room of a write is logged as an HMAC. For a read, Vault logs the query, and
	// OpenBao does not.
	require.False(t, strings.Contains(string(log), "support-vestibule"))
	require.Equal(t, vault.Kind == devvault.Vault, strings.Contains(string(log), "support-lobby"))
	requireNoKey(t, "audited requests", requests.String(), key, staged)
	for where, text := range map[string]string{
		"server log": vault.Log(), "audited responses": responses.String(), "answers": answers.String(),
	} {
		requireNoKey(t, where, text, key, staged, named)
		for _, token := range tokens {
			require.False(t, strings.Contains(text+requests.String(), token[strings.LastIndex(token, ".")+1:]), where)
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

// keyNeedles returns pieces of a private key to look for in a text: of each of its secret
// numbers, in all encodings that they may have there.
func keyNeedles(t testing.TB, key *rsa.PrivateKey) map[string]string {
	t.Helper()
	const size = 24 // in each line of a PEM there is one
	needles := map[string]string{}
	for number, n := range map[string]*big.Int{
		"D": key.D, "P": key.Primes[0], "Q": key.Primes[1],
		"dP": key.Precomputed.Dp, "dQ": key.Precomputed.Dq, "qInv": key.Precomputed.Qinv,
	} {
		raw := n.Bytes()
		needles[number+": in decimal"] = n.String()[10:50]
		for at := 8; at+size+2 <= len(raw); at += size {
			what, piece := fmt.Sprintf("%s: from byte %d", number, at), raw[at:at+size]
			needles[what] = string(piece)
			needles[what+" in hex"] = hex.EncodeToString(piece)
			needles[what+" in HEX"] = strings.ToUpper(hex.EncodeToString(piece))
			needles[what+" as Go prints it"] = strings.Trim(fmt.Sprintf("%d", piece), "[]")
			for shift := range 3 {
				shifted := raw[at+shift : at+shift+size]
				needles[fmt.Sprintf("%s in base64, shifted by %d", what, shift)] = base64.StdEncoding.EncodeToString(shifted)
				needles[fmt.Sprintf("%s in base64url, shifted by %d", what, shift)] = base64.URLEncoding.EncodeToString(shifted)
			}
		}
	}
	return needles
}

// The needles find each number of a key in every known form.
func TestNeedlesFindAKey(t *testing.T) {
	t.Parallel()
	key, private := newKey(t)
	der := x509.MarshalPKCS1PrivateKey(key)
	for _, text := range []string{
		private, string(der), hex.EncodeToString(der), fmt.Sprintf("%X", der), fmt.Sprintf("%d", der), fmt.Sprintf("%+v", *key),
		base64.StdEncoding.EncodeToString(der), base64.StdEncoding.EncodeToString(der[1:]), base64.URLEncoding.EncodeToString(der[2:]),
	} {
		found := map[string]bool{}
		for what, needle := range keyNeedles(t, key) {
			if number, _, _ := strings.Cut(what, ":"); strings.Contains(text, needle) {
				found[number] = true
			}
		}
		require.Len(t, found, 6, "%.60q", text)
	}
}

// The commands of docs/operations.md find in the audit log who asked, and let it have rooms in
// clear.
func TestWhoAsked(t *testing.T) {
	t.Parallel()
	r := newReader(t) // no other test uses its mount meanwhile
	audit, device := auditLog(t)
	r.configure("clanmeeting")
	section := sections(t, "../../docs/operations.md")["Who asked for which token"]
	room := "support-" + device
	own := strings.NewReplacer("/var/log/vault/audit.log", audit, "sys/audit-hash/file", "sys/audit-hash/"+device, "support-4711", room)
	commands := blocks(own.Replace(section))
	require.Len(t, commands, 3)
	batch := map[string]any{"batch_input": []any{map[string]any{"room": room}}}

	r.read("clanmeeting/creds/support", "room", room)
	require.Regexp(t, `^\S+\t\S+\t-\tclanmeeting/creds/support\t20\S+Z\n$`, r.run(commands[0].commands))
	r.write("clanmeeting/creds/support", batch)
	require.Regexp(t, `^(\S+\t\S+\t127.0.0.1\n){2}$`, r.run(commands[1].commands))
	r.run(commands[2].commands)
	r.write("clanmeeting/creds/support", map[string]any{"room": room})
	r.write("clanmeeting/creds/support", batch)
	log, err := os.ReadFile(audit)
	require.NoError(t, err)
	require.Equal(t, 6, strings.Count(string(log), `"room":"`+room+`"`), "in three entries for each")
}
