// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

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
	name := unique(c.t)
	c.write("sys/policies/acl/"+name, map[string]any{"policy": policy})
	status, answer := c.post("auth/token/create", map[string]any{"policies": []string{name}})
	require.Equal(c.t, http.StatusOK, status)
	return c.with(answer["auth"].(map[string]any)["client_token"])
}

// unique is a name that no other test uses.
func unique(t testing.TB) string {
	t.Helper()
	return "m" + strings.ToLower(rand.Text()[:8])
}

// enable mounts the engine.
func (c client) enable(mount string) string {
	c.t.Helper()
	c.write("sys/mounts/"+mount, map[string]any{"type": devvault.PluginName})
	return mount
}

// enable mounts the engine at a new path, until the test ends.
func enable(t testing.TB) string {
	t.Helper()
	mount := root(t).enable(unique(t))
	t.Cleanup(func() { root(t).call(http.MethodDelete, "sys/mounts/"+mount, nil) })
	return mount
}

const (
	asJSONBody = "application/json"
	asForm     = "application/x-www-form-urlencoded"
)

// A reply is an answer with the bytes that arrived.
type reply devvault.Response

// send makes one request with exactly this body.
func (c client) send(method, path, contentType, body string) reply {
	c.t.Helper()
	request := devvault.Request{Method: method, Path: path, Token: c.token, ContentType: contentType, Body: body}
	resp, err := c.vault.Do(c.t.Context(), http.DefaultClient, request)
	require.NoError(c.t, err)
	return reply(*resp)
}

// refused checks that an answer is a short 400 that contains the text.
func (r reply) refused(t testing.TB, text string, about ...any) {
	t.Helper()
	require.Equal(t, http.StatusBadRequest, r.Status, "%v: %.300s", about, r.Raw)
	require.Contains(t, r.Answer.Errors(), text, about...)
	require.Less(t, len(r.Raw), 64<<10, about...)
}

// first is the first answer of a batch.
func first(data map[string]any) map[string]any {
	return data["batch_results"].([]any)[0].(map[string]any)
}

// configured returns a mount with a key and a role, and the public key that the mount
// shows.
func configured(t testing.TB) (string, *rsa.PublicKey) {
	t.Helper()
	mount := enable(t)
	root(t).configure(mount)
	return mount, publicKey(t, mount)
}

// configure gives a mount a key and a role, and returns the key.
func (c client) configure(mount string) *rsa.PrivateKey {
	c.t.Helper()
	key, private := newKey(c.t)
	c.write(mount+"/config", map[string]any{"consumer_id": "acme", "private_key": private, "domain": "meet.example.com"})
	c.write(mount+"/roles/support", map[string]any{"allowed_rooms": "support-*", "ttl": "5m", "max_ttl": "15m"})
	return key
}

// waitUntil waits for something that takes seconds.
func waitUntil(t testing.TB, what string, ready func() bool) {
	t.Helper()
	const patience = 2 * time.Minute // for an election, a cluster that heals, or an alert
	for since := time.Now(); !ready(); time.Sleep(50 * time.Millisecond) {
		if time.Since(since) > patience {
			t.Fatalf("in %s it did not happen: %s", patience, what)
		}
	}
}
