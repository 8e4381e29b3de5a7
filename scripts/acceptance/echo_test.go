// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// runLength is how many characters of a key's base64 an answer must not contain.
const runLength = 12

// keyRuns are all runs of that length in a private key's base64.
type keyRuns map[string]bool

// add adds the runs of a PEM. It leaves out the first characters, which all keys of that
// form share: a public key has some of them, too.
func (r keyRuns) add(pem string, shared int) {
	lines := strings.Split(strings.TrimSpace(pem), "\n")
	body := strings.Join(lines[1:len(lines)-1], "")
	for _, text := range []string{body, strings.ReplaceAll(body, "+", " ")} { // a form has spaces there
		for i := shared; i+runLength <= len(text); i++ {
			r[text[i:i+runLength]] = true
		}
	}
}

// in returns the first run that the text contains, with or without line breaks in it; empty
// if there is none.
func (r keyRuns) in(text string) string {
	text = strings.NewReplacer("\n", "", `\n`, "", "%2B", "+", "%2F", "/", `\/`, "/").Replace(text)
	for i := 0; i+runLength <= len(text); i++ {
		if r[text[i:i+runLength]] {
			return text[i : i+runLength]
		}
	}
	return ""
}

// newPEMs returns both forms of a key that no mount stores, and their runs.
func newPEMs(t testing.TB) (pkcs1, pkcs8 string, runs keyRuns) {
	t.Helper()
	key, pkcs1 := newKey(t)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	pkcs8 = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	runs = keyRuns{}
	runs.add(pkcs1, 16)
	runs.add(pkcs8, 56)
	return pkcs1, pkcs8, runs
}

// aLine returns a line of a PEM that can't be a room name.
func aLine(pem string) string {
	for _, line := range strings.Split(pem, "\n")[8:] {
		if strings.ContainsAny(line, "+/") {
			return line
		}
	}
	panic("a key without a + or a /")
}

// The search itself must find a key.
func TestKeyRunsFindAKey(t *testing.T) {
	pkcs1, pkcs8, runs := newPEMs(t)
	for _, text := range []string{pkcs1, pkcs8, pkcs1[:80], url.QueryEscape(pkcs1), asJSON(t, pkcs8), strings.ReplaceAll(pkcs1, "+", " ")} {
		require.NotEmpty(t, runs.in("x"+text+"x"), text)
	}
	mount, _ := configured(t)
	require.Empty(t, runs.in(asJSON(t, root(t).read(mount+"/config"))), "another key's public half")
}

// An echo sends a key in places where it does not belong, and looks for it in the answers.
type echo struct {
	client
	runs keyRuns
}

func (e echo) requireNone(about any, texts ...string) {
	e.t.Helper()
	for _, text := range texts {
		require.Empty(e.t, e.runs.in(text), about)
		require.NotContains(e.t, text, "PRIVATE KEY-----", about)
	}
}

// try makes a request that must be refused, by Vault or by the engine.
func (e echo) try(about, method, path, contentType, body string) {
	e.t.Helper()
	r := e.send(method, path, contentType, body)
	e.requireNone(about, r.raw)
	require.NotEqual(e.t, http.StatusNoContent, r.status, about)
	if method == http.MethodPost && contentType == asForm {
		require.Equal(e.t, http.StatusBadRequest, r.status, "%s: %s", about, r.raw)
	}
	require.False(e.t, r.status >= http.StatusInternalServerError, "%s: %s", about, r.raw)
	require.True(e.t, r.status >= http.StatusBadRequest, "%s: %s", about, r.raw)
}

// A private key that arrives in a wrong place is in no answer, no warning and no log line.
// In the audit log it is only in the request, which Vault writes.
func TestNoKeyIsRepeated(t *testing.T) {
	mount := twoKeys(t)
	audit := filepath.Join(t.TempDir(), "audit.log")
	device := unique(t)
	root(t).write("sys/audit/"+device, map[string]any{"type": "file", "options": map[string]any{"file_path": audit}})
	t.Cleanup(func() { root(t).call(http.MethodDelete, "sys/audit/"+device, nil) })
	logged := len(vault.Log())

	pkcs1, pkcs8, runs := newPEMs(t)
	e := echo{root(t), runs}
	for _, key := range []string{pkcs1, pkcs8, strings.ReplaceAll(pkcs1, "\n", "\r\n"), strings.ReplaceAll(pkcs8, "\n", ""), strings.ReplaceAll(pkcs1, "-----", ""), aLine(pkcs1)} {
		e.asNames(mount, key)
		e.asValues(mount, key)
	}
	for _, key := range []string{pkcs1, pkcs8} {
		e.broken(mount, key)
	}
	log := vault.Log()[logged:]
	require.Contains(t, log, mount[1:2]) // there is a log
	e.requireNone("the server's log", log)
	raw, err := os.ReadFile(audit)
	require.NoError(t, err)
	entries := 0
	for line := range bytes.Lines(raw) {
		var entry map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(line, &entry))
		delete(entry, "request")
		rest, err := json.Marshal(entry)
		require.NoError(t, err)
		e.requireNone("an audit entry", string(rest))
		entries++
	}
	require.Greater(t, entries, 100)
	require.Len(t, root(t).read(mount + "/keys?list=true")["keys"], 2, "no key was stored")
}

// asNames sends a key as the name of a field: as a form, as curl --data-binary does, in a
// query, and in JSON.
func (e echo) asNames(mount, key string) {
	e.t.Helper()
	quoted := asJSON(e.t, key)
	for _, path := range []string{"config", "keys/generate", "keys/import", "keys/1", "roles/support", "roles/new", "creds/support", "check/support", "verify"} {
		path := mount + "/" + path
		e.try(path+" as a form", http.MethodPost, path, asForm, key)
		e.try(path+" as a form after a field", http.MethodPost, path, asForm, "consumer_id=acme&"+key)
		e.try(path+" as a form, escaped", http.MethodPost, path, asForm, url.QueryEscape(key))
		e.try(path+" as a form to PUT", http.MethodPut, path, asForm, key)
		e.try(path+" as JSON", http.MethodPost, path, asJSONBody, key)
		e.try(path+" as a JSON string", http.MethodPost, path, asJSONBody, quoted)
		e.try(path+" as a name", http.MethodPost, path, asJSONBody, "{"+quoted+":1}")
		e.try(path+" as a name among others", http.MethodPost, path, asJSONBody, `{"room":"support-1","allowed_rooms":"x","consumer_id":"acme","token":"x",`+quoted+`:""}`)
		e.try(path+" as a multipart form", http.MethodPost, path, "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\n"+key+"\r\n--x--")
	}
	for _, path := range []string{"config", "keys/1", "roles/support", "creds/support", "check/support"} {
		e.try(path+" in a query", http.MethodGet, mount+"/"+path+"?"+url.QueryEscape(key), "", "")
		e.try(path+" in a query of a deletion", http.MethodDelete, mount+"/"+path+"?"+url.QueryEscape(key), "", "")
	}
	for _, path := range []string{"config", "creds/support", "roles", "keys"} {
		e.try(path+" with an unusual method", "OPTIONS", mount+"/"+path, asForm, key)
	}
	for _, item := range []string{`{` + quoted + `:1}`, `{"room":"support-1",` + quoted + `:"x"}`, `{"room":{` + quoted + `:1}}`, quoted, `[` + quoted + `]`} {
		e.try("in a batch", http.MethodPost, mount+"/creds/support", asJSONBody, `{"batch_input":[`+item+`]}`)
	}
}

// asValues sends a key as the value of every field but its own.
func (e echo) asValues(mount, key string) {
	e.t.Helper()
	quoted := asJSON(e.t, key)
	for path, fields := range map[string][]string{
		"config":        {"consumer_id", "active_key", "audience", "issuer", "domain"},
		"keys/generate": {"key_bits"},
		"roles/support": {"allowed_rooms", "allowed_rooms_template", "default_room", "allow_wildcard_room", "ttl", "max_ttl", "not_before_duration", "max_not_before", "generate_lease"},
		"creds/support": {"room", "ttl", "not_before", "batch_input"},
	} {
		for _, field := range fields {
			if len(key) <= 64 && (field == "audience" || field == "issuer") {
				continue // a single line is normal text
			}
			about := path + ": " + field
			e.try(about, http.MethodPost, mount+"/"+path, asJSONBody, `{"unknown":"acme","`+field+`":`+quoted+`}`)
			e.try(about+", a list", http.MethodPost, mount+"/"+path, asJSONBody, `{"`+field+`":[`+quoted+`]}`)
			e.try(about+", an object", http.MethodPost, mount+"/"+path, asJSONBody, `{"`+field+`":{`+quoted+`:`+quoted+`}}`)
			e.try(about+", a form", http.MethodPost, mount+"/"+path, asForm, url.Values{field: {key}}.Encode())
			e.try(about+", a form that is not escaped", http.MethodPost, mount+"/"+path, asForm, field+"="+key)
		}
	}
	for _, field := range []string{"room", "ttl", "not_before"} {
		e.try("a query's "+field, http.MethodGet, mount+"/creds/support?"+url.Values{field: {key}}.Encode(), "", "")
		e.try("an item's "+field, http.MethodPost, mount+"/creds/support", asJSONBody, `{"batch_input":[{"`+field+`":`+quoted+`}]}`)
		for _, value := range []string{quoted, "[" + quoted + "]"} {
			r := e.sendJSON(mount+"/check/support", field, value)
			require.Equal(e.t, false, r.answer.Data()["allowed"], field)
			e.requireNone("a check's "+field, r.raw)
		}
	}
	for _, value := range []string{quoted, asJSON(e.t, key+"."+key+"."+key), asJSON(e.t, url.QueryEscape(key))} {
		r := e.sendJSON(mount+"/verify", "token", value)
		require.Equal(e.t, false, r.answer.Data()["valid"], r.raw)
		e.requireNone("a token", r.raw)
	}
}

// broken sends an incomplete key, and a key in the path.
func (e echo) broken(mount, key string) {
	e.t.Helper()
	for _, bad := range []string{key[:len(key)-30], key + key, strings.ToLower(key), strings.ReplaceAll(key, "\n", " "), strings.ReplaceAll(key, "PRIVATE", "PUBLIC"), strings.ReplaceAll(key, "A", "")} {
		for _, path := range []string{"/keys/import", "/config"} {
			e.try(fmt.Sprintf("a key that is not whole, %s: %.100q", path, bad), http.MethodPost, mount+path, asJSONBody, `{"private_key":`+asJSON(e.t, bad)+`}`)
		}
	}
	escaped := url.PathEscape(key)
	for _, path := range []string{"roles/", "creds/", "check/", "keys/", ""} {
		r := e.send(http.MethodPost, mount+"/"+path+escaped, asJSONBody, `{"allowed_rooms":"x"}`)
		require.GreaterOrEqual(e.t, r.status, http.StatusBadRequest, "%s: %s", path, r.raw)
		e.requireNone(fmt.Sprintf("the path %s…", path), r.raw)
	}
}
