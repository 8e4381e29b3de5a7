// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// Requests of careless tools and attackers, over HTTP. budget_linux_test.go measures what
// such requests cost.

const (
	asJSONBody = "application/json"
	asForm     = "application/x-www-form-urlencoded"

	// maxRefusal is the maximum size of an answer that refuses something.
	maxRefusal = 64 << 10
)

// A reply is an answer with the bytes that arrived.
type reply struct {
	status int
	raw    string
	answer devvault.Answer
}

// send makes one request with exactly this body. An empty body is not sent.
func (c client) send(method, path, contentType, body string) reply {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.vault.Addr+"/v1/"+path, strings.NewReader(body))
	require.NoError(c.t, err)
	req.Header.Set("X-Vault-Token", c.token)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(c.t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	r := reply{status: resp.StatusCode, raw: string(raw), answer: devvault.Answer{}}
	_ = json.Unmarshal(raw, &r.answer) // some of Vault's answers are empty or plain text
	return r
}

// sendJSON writes one field. Its value is given as JSON.
func (c client) sendJSON(path, field, value string) reply {
	c.t.Helper()
	return c.send(http.MethodPost, path, asJSONBody, `{"`+field+`":`+value+`}`)
}

// refused checks that an answer is a short 400 that contains the text.
func (r reply) refused(t testing.TB, text string, about ...any) {
	t.Helper()
	require.Equal(t, http.StatusBadRequest, r.status, "%v: %.300s", about, r.raw)
	require.Contains(t, r.answer.Errors(), text, about...)
	require.Less(t, len(r.raw), maxRefusal, about...)
}

// twoKeys is a configured mount with a second key version, which is not active.
func twoKeys(t testing.TB) string {
	t.Helper()
	mount, _ := configured(t)
	status, answer := root(t).post(mount+"/keys/generate", nil)
	require.Equal(t, http.StatusOK, status, answer.Errors())
	return mount
}

// For every method that a path does not have, the answer says which it has. That is no
// fault.
func TestUnusualMethods(t *testing.T) {
	mount := twoKeys(t)
	for path, has := range map[string]string{
		"config": "delete, read, write", "keys/generate": "write", "keys/import": "write", "keys/9": "delete, read", "roles/none": "delete, read, write", "creds/none": "read, write", "check/none": "read, write", "verify": "write",
	} {
		for _, method := range []string{http.MethodOptions, http.MethodPatch, http.MethodHead, http.MethodTrace, http.MethodConnect, "LIST", "SCAN", "PROPFIND", "get"} {
			r := root(t).send(method, mount+"/"+path, "", "")
			require.Less(t, r.status, http.StatusInternalServerError, "%s %s: %s", method, path, r.raw)
			require.NotContains(t, r.answer.Errors(), "has no ;", "%s %s", method, path)
			if method == http.MethodOptions {
				require.Equal(t, "this path has no such operation; it has "+has, r.answer.Errors(), path)
			}
		}
	}
	for path, status := range map[string]int{"keys/01": http.StatusNotFound, "keys/0x1": http.StatusNotFound, "keys/0": http.StatusNotFound, "keys/1.0": http.StatusNotFound, "keys/99999999999999999999": http.StatusBadRequest, "roles/a..b": http.StatusBadRequest} {
		r := root(t).send(http.MethodGet, mount+"/"+path, "", "")
		require.Equal(t, status, r.status, "%s: %s", path, r.raw)
	}
}

// A request with several mistakes gets the same answer every time.
func TestOneTextPerMistake(t *testing.T) {
	mount, _ := configured(t)
	for _, test := range []struct{ path, body string }{
		{"/config", `{"consumer_id":"a.b","audience":"\n","issuer":" ","domain":"https://x","active_key":9}`},
		{"/config?", `{"consumer_id":true,"audience":[],"issuer":{},"domain":1.5,"active_key":"0x1","private_key":false}`},
		{"/roles/support", `{"allowed_rooms":"!","ttl":"2h","max_ttl":"3651d","max_not_before":"3651d","not_before_duration":"25h","default_room":"x"}`},
		{"/roles/x", `{"allowed_rooms":[true],"ttl":true,"max_ttl":[],"max_not_before":{},"not_before_duration":-1,"generate_lease":"yes"}`},
		{"/roles/y", `{"A":1,"B B":2,"C":3,"allowed_rooms":"x"}`},
		{"/creds/support", `{"batch_input":[{"room":true,"ttl":"x","not_before":"x","reference":[]},{"B":1,"a":2,"c":3}]}`},
	} {
		texts := map[string]bool{}
		for range 40 {
			r := root(t).send(http.MethodPost, mount+test.path, asJSONBody, test.body)
			r.refused(t, "", test.path)
			texts[r.answer.Errors()] = true
		}
		require.Len(t, texts, 1, "%s: %q", test.path, slices.Collect(maps.Keys(texts)))
	}
}
