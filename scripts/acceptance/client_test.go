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

const asForm = "application/x-www-form-urlencoded"

// A reply is an answer with the bytes that arrived.
type reply devvault.Response

// send makes one request. A text is sent unchanged, and anything else as JSON.
func (c client) send(method, path, contentType string, body any) reply {
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

// configured returns a mount with a key and a role, and the public half of the key.
func configured(t testing.TB) (string, *rsa.PublicKey) {
	t.Helper()
	mount := enable(t)
	return mount, &root(t).configure(mount).PublicKey
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

// newKey makes a key that no mount has, and its PEM.
func newKey(t testing.TB) (*rsa.PrivateKey, string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

// publicKey returns the public key that a mount shows.
func publicKey(t testing.TB, mount string) *rsa.PublicKey {
	t.Helper()
	key, err := parsePublicKey(root(t).read(mount + "/config")["public_key"].(string))
	require.NoError(t, err)
	return key
}

func parsePublicKey(text string) (*rsa.PublicKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("the public key is not a PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return key.(*rsa.PublicKey), nil
}

// verifySignature checks a token with the standard library only.
func verifySignature(token string, key *rsa.PublicKey) error {
	dot := strings.LastIndex(token, ".")
	if dot < 0 {
		return errors.New("it is not a token")
	}
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

// segment returns a decoded part of a token: 0 is the header.
func segment(t testing.TB, token string, i int) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[i])
	require.NoError(t, err)
	return string(raw)
}
