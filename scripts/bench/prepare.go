// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/prometheus/procfs"
	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

const emptyPlugin = "vault-plugin-empty"

// bench is the measured Vault, and its callers.
type bench struct {
	vault     *devvault.Server
	dir       string // for temporary files
	key       *rsa.PrivateKey
	client    *http.Client
	token     string // an ordinary service token with an entity
	leanToken string // the same without the policy named default
	vendorPID int
	processes map[string]procfs.Proc
}

// An engine is a build of the engine on a mount of its own, and the requests to it.
type engine struct {
	label, plugin                 string
	single, lean, batch, thousand *target
}

// prepare makes the key, and the callers of all measured requests.
func (b *bench) prepare(ctx context.Context) error {
	var err error
	if b.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	if err := b.writeAll(ctx, []writing{
		{"sys/auth/userpass", object{"type": "userpass"}},
		{"sys/policies/acl/bench", object{"policy": `
path "+/creds/*" { capabilities = ["read", "update"] }
path "empty/*" { capabilities = ["read"] }
path "transit/sign/bench/sha2-256" { capabilities = ["update"] }
path "identity/oidc/token/bench" { capabilities = ["read"] }
path "kv1/bench" { capabilities = ["read"] }`}},
		{"auth/userpass/users/bench", object{"password": "bench", "token_policies": "bench"}},
		{"auth/userpass/users/lean", object{"password": "bench", "token_policies": "bench", "token_no_default_policy": true}},
	}); err != nil {
		return err
	}
	if b.token, err = b.login(ctx, "bench"); err != nil {
		return err
	}
	b.leanToken, err = b.login(ctx, "lean")
	return err
}

func (b *bench) login(ctx context.Context, user string) (string, error) {
	answer, err := b.write(ctx, "auth/userpass/login/"+user, object{"password": "bench"})
	if err != nil {
		return "", err
	}
	auth, _ := answer["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	return token, nil
}

func (b *bench) privateKey() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(b.key)}))
}

// mountEngine mounts a build of the engine, with a role named bench. The label tells its
// targets from those of other builds.
func (b *bench) mountEngine(ctx context.Context, mount, plugin, label string) (*engine, error) {
	creds := mount + "/creds/bench"
	lean := b.get(creds + anyRoom)
	lean.Header = http.Header{"X-Vault-Token": {b.leanToken}}
	tokens := func(name string, n uint64, request vegeta.Target) *target {
		return &target{name: name + ", " + label, processes: []string{"vault", plugin}, requests: []vegeta.Target{request}, tokens: n, check: true}
	}
	e := &engine{
		label: label, plugin: plugin,
		single:   tokens("creds", 1, b.get(creds+anyRoom)),
		lean:     tokens("creds without default policy", 1, lean),
		batch:    tokens("creds, batch of 100", 100, b.post(creds, batchOf(100))),
		thousand: tokens("creds, batch of 1,000", 1000, b.post(creds, batchOf(1000))),
	}
	return e, b.writeAll(ctx, []writing{
		{"sys/mounts/" + mount, object{"type": plugin}},
		{mount + "/config", object{"consumer_id": "acme", "private_key": b.privateKey()}},
		{mount + "/roles/bench", object{"allowed_rooms": "room-*", "ttl": "5m"}},
	})
}

func roomOf(i int) string { return fmt.Sprintf("room-%d", i) }

func batchOf(n int) string {
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprintf(`{"room":%q}`, roomOf(i))
	}
	return `{"batch_input":[` + strings.Join(items, ",") + `]}`
}

func (b *bench) get(path string) vegeta.Target {
	return vegeta.Target{Method: http.MethodGet, URL: b.vault.Addr + "/v1/" + path, Header: http.Header{"X-Vault-Token": {b.token}}}
}

func (b *bench) post(path, body string) vegeta.Target {
	request := b.get(path)
	request.Method, request.Body = http.MethodPost, []byte(body)
	return request
}

// mountPeers mounts the engines to compare with.
func (b *bench) mountPeers(ctx context.Context) ([]*target, error) {
	peer := func(name string, tokens uint64, request vegeta.Target, processes ...string) *target {
		return &target{name: name, processes: processes, requests: []vegeta.Target{request}, tokens: tokens}
	}
	// A signing input with the length of the engine's own.
	input := fmt.Sprintf(`"input":%q`, base64.StdEncoding.EncodeToString(make([]byte, 230)))
	inputs := strings.TrimSuffix(strings.Repeat("{"+input+"},", 100), ",")
	const transit, body = "transit/sign/bench/sha2-256", `{"signature_algorithm":"pkcs1v15",%s}`
	peers := []*target{
		peer("transit sign", 1, b.post(transit, fmt.Sprintf(body, input)), "vault"),
		peer("identity OIDC token", 1, b.get("identity/oidc/token/bench"), "vault"),
		peer("empty plugin", 1, b.get("empty/empty?room=room-1"), "vault", emptyPlugin),
		peer("plugin that only signs, Go", 1, b.get("empty/signature"+anyRoom), "vault", emptyPlugin),
		peer("kv read", 1, b.get("kv1/bench"), "vault"),
		peer("transit sign, batch of 100", 100, b.post(transit, fmt.Sprintf(body, `"batch_input":[`+inputs+`]`)), "vault"),
	}
	return peers, b.writeAll(ctx, []writing{
		{"sys/mounts/empty", object{"type": emptyPlugin}},
		{"sys/mounts/transit", object{"type": "transit"}},
		{"sys/mounts/kv1", object{"type": "kv", "options": object{"version": "1"}}},
		{"transit/keys/bench", object{"type": "rsa-2048"}},
		{"identity/oidc/key/bench", object{"algorithm": "RS256", "allowed_client_ids": "*"}},
		{"identity/oidc/role/bench", object{"key": "bench", "ttl": "5m"}},
		{"kv1/bench", object{"value": "something"}},
	})
}

// startVendor runs the vendor's snippet in Node, until it is stopped.
func (b *bench) startVendor(ctx context.Context, modules string) (*target, func(), error) {
	keyFile := filepath.Join(b.dir, "key.pem")
	if err := os.WriteFile(keyFile, []byte(b.privateKey()), 0o600); err != nil {
		return nil, nil, fmt.Errorf("writing the key: %w", err)
	}
	cmd := exec.CommandContext(ctx, "node", filepath.Join("scripts", "bench", "vendor.js"), keyFile)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, fmt.Errorf("starting node: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("starting node: %w", err)
	}
	b.vendorPID = cmd.Process.Pid
	stop := func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	var port string
	if _, err := fmt.Fscan(out, &port); err != nil {
		stop()
		return nil, nil, fmt.Errorf("node prints no port: %w", err)
	}
	request := vegeta.Target{Method: http.MethodGet, URL: "http://127.0.0.1:" + port + "/" + anyRoom}
	return &target{name: "jsonwebtoken in Node", processes: []string{"node"}, requests: []vegeta.Target{request}, tokens: 1, check: true}, stop, nil
}

// A writing is a request that sets something up.
type writing struct {
	path string
	body object
}

type object = map[string]any

func (b *bench) writeAll(ctx context.Context, all []writing) error {
	for _, w := range all {
		if _, err := b.write(ctx, w.path, w.body); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) write(ctx context.Context, path string, body object) (devvault.Answer, error) {
	status, answer, err := b.vault.Call(ctx, b.vault.RootToken, http.MethodPost, path, body)
	if err != nil {
		return nil, err
	}
	if status >= http.StatusBadRequest {
		return nil, fmt.Errorf("writing %s: %s", path, answer.Errors())
	}
	return answer, nil
}
