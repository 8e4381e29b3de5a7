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
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// bench is the measured Vault, and the targets in it.
type bench struct {
	vault   *devvault.Server
	keyFile string
	key     *rsa.PrivateKey
	targets []*target

	token     string // an ordinary service token with an entity
	leanToken string // the same without the policy named default

	vendorAddr string
	vendorPID  int
	processes  map[string]int // pid by name

	engines []engine
}

// An engine is a build of the engine, on a mount of its own.
type engine struct{ signer, mount, plugin string }

// engines are the builds that are measured. The second one may be missing.
var engines = []engine{
	{"Go", "clanmeeting", devvault.PluginName},
	{"OpenSSL", "clanmeeting-openssl", devvault.PluginName + "-openssl"},
}

func (e engine) target(name string) string { return name + ", " + e.signer }

// A target is a request that is repeated.
type target struct {
	name   string
	method string
	token  string // empty means the ordinary one
	url    func(n int64) string
	body   func(n int64) string
	batch  int                                // tokens in one answer; 0 for one
	check  func(n int64, answer []byte) error // for sampled answers; nil for none
	charge []string                           // the processes that work for it
}

const (
	targetCreds   = "creds"
	targetLean    = "creds without default policy"
	targetTransit = "transit sign"
	targetOIDC    = "identity OIDC token"
	targetEmpty   = "empty plugin"
	targetFloor   = "plugin that only signs, Go"
	targetKV      = "kv read"
	targetVendor  = "jsonwebtoken in Node"
	targetBatch   = "creds, batch of 100"
	targetTBatch  = "transit sign, batch of 100"
)

const batchSize = 100

// A signing input with the length of the engine's own.
var signingInput = base64.StdEncoding.EncodeToString(make([]byte, 230))

// prepare makes the key, and the caller of all measured requests.
func (b *bench) prepare(ctx context.Context) error {
	var err error
	if b.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(b.key)})
	if err := os.WriteFile(b.keyFile, private, 0o600); err != nil {
		return fmt.Errorf("writing the key: %w", err)
	}
	if err := b.writeAll(ctx, []writing{
		{"sys/auth/userpass", map[string]any{"type": "userpass"}},
		{"sys/policies/acl/bench", map[string]any{"policy": `
path "+/creds/*" { capabilities = ["read", "update"] }
path "empty/*" { capabilities = ["read"] }
path "transit/sign/bench/sha2-256" { capabilities = ["update"] }
path "identity/oidc/token/bench" { capabilities = ["read"] }
path "kv1/bench" { capabilities = ["read"] }`}},
		{"auth/userpass/users/bench", map[string]any{"password": "bench", "token_policies": "bench"}},
		{"auth/userpass/users/lean", map[string]any{"password": "bench", "token_policies": "bench", "token_no_default_policy": true}},
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
	answer, err := b.write(ctx, "auth/userpass/login/"+user, map[string]any{"password": "bench"})
	if err != nil {
		return "", err
	}
	auth, _ := answer["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	return token, nil
}

// mountEngine mounts a build of the engine, with a role named bench.
func (b *bench) mountEngine(ctx context.Context, mount, plugin string) error {
	private, err := os.ReadFile(b.keyFile)
	if err != nil {
		return fmt.Errorf("the key: %w", err)
	}
	return b.writeAll(ctx, []writing{
		{"sys/mounts/" + mount, map[string]any{"type": plugin}},
		{mount + "/config", map[string]any{"consumer_id": "acme", "private_key": string(private)}},
		{mount + "/roles/bench", map[string]any{"allowed_rooms": "room-*", "ttl": "5m"}},
	})
}

// mountPeers mounts the engines to compare with.
func (b *bench) mountPeers(ctx context.Context) error {
	return b.writeAll(ctx, []writing{
		{"sys/mounts/empty", map[string]any{"type": "vault-plugin-empty"}},
		{"sys/mounts/transit", map[string]any{"type": "transit"}},
		{"sys/mounts/kv1", map[string]any{"type": "kv", "options": map[string]any{"version": "1"}}},
		{"transit/keys/bench", map[string]any{"type": "rsa-2048"}},
		{"identity/oidc/key/bench", map[string]any{"algorithm": "RS256", "allowed_client_ids": "*"}},
		{"identity/oidc/role/bench", map[string]any{"key": "bench", "ttl": "5m"}},
		{"kv1/bench", map[string]any{"value": "something"}},
	})
}

// A writing is a request that sets something up.
type writing struct {
	path string
	body map[string]any
}

func (b *bench) writeAll(ctx context.Context, all []writing) error {
	for _, w := range all {
		if _, err := b.write(ctx, w.path, w.body); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) write(ctx context.Context, path string, body any) (devvault.Answer, error) {
	status, answer, err := b.vault.Call(ctx, b.vault.RootToken, http.MethodPost, path, body)
	if err != nil {
		return nil, err
	}
	if status >= http.StatusBadRequest {
		return nil, fmt.Errorf("writing %s: %s", path, answer.Errors())
	}
	return answer, nil
}

// at returns the same path for every request.
func (b *bench) at(path string) func(int64) string {
	return func(int64) string { return b.vault.Addr + "/v1/" + path }
}

// addCreds adds the single reads of an engine.
func (b *bench) addCreds(e engine) {
	creds := &target{
		name: e.target(targetCreds), method: http.MethodGet, charge: []string{"vault", e.plugin},
		url: func(n int64) string {
			return fmt.Sprintf("%s/v1/%s/creds/bench?room=%s", b.vault.Addr, e.mount, roomOf(n))
		},
		check: b.checkToken,
	}
	lean := *creds
	lean.name, lean.token = e.target(targetLean), b.leanToken
	b.targets = append(b.targets, creds, &lean)
}

func (b *bench) addBatch(e engine) {
	b.targets = append(b.targets, &target{
		name: e.target(targetBatch), method: http.MethodPost, charge: []string{"vault", e.plugin}, url: b.at(e.mount + "/creds/bench"),
		body: batchBody, batch: batchSize, check: b.checkBatch,
	})
}

func (b *bench) addPeers() {
	sign := fmt.Sprintf(`"input":%q`, signingInput)
	b.targets = append(b.targets, []*target{
		{
			name: targetTransit, method: http.MethodPost, charge: []string{"vault"}, url: b.at("transit/sign/bench/sha2-256"),
			body: func(int64) string { return `{"signature_algorithm":"pkcs1v15",` + sign + `}` },
		},
		{name: targetOIDC, method: http.MethodGet, charge: []string{"vault"}, url: b.at("identity/oidc/token/bench")},
		{name: targetEmpty, method: http.MethodGet, charge: []string{"vault", "vault-plugin-empty"}, url: b.at("empty/empty?room=room-1")},
		{
			name: targetFloor, method: http.MethodGet, charge: []string{"vault", "vault-plugin-empty"},
			url: func(n int64) string { return fmt.Sprintf("%s/v1/empty/signature?room=%s", b.vault.Addr, roomOf(n)) },
		},
		{name: targetKV, method: http.MethodGet, charge: []string{"vault"}, url: b.at("kv1/bench")},
		{
			name: targetTBatch, method: http.MethodPost, charge: []string{"vault"}, url: b.at("transit/sign/bench/sha2-256"), batch: batchSize,
			body: func(int64) string {
				return `{"signature_algorithm":"pkcs1v15","batch_input":[` + repeat("{"+sign+"}", batchSize) + `]}`
			},
		},
	}...)
}

// startVendor runs the vendor's snippet on a free port.
func (b *bench) startVendor(ctx context.Context, modules string) (func(), error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("looking for a free port: %w", err)
	}
	b.vendorAddr = l.Addr().String()
	_, port, err := net.SplitHostPort(b.vendorAddr)
	if err != nil {
		return nil, fmt.Errorf("the port: %w", err)
	}
	if err := l.Close(); err != nil {
		return nil, fmt.Errorf("the port: %w", err)
	}
	cmd := exec.CommandContext(ctx, "node", filepath.Join("scripts", "bench", "vendor.js"), b.keyFile, port)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting node: %w", err)
	}
	b.vendorPID = cmd.Process.Pid
	stop := func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for range 100 {
		if conn, err := net.Dial("tcp", b.vendorAddr); err == nil {
			_ = conn.Close()
			b.targets = append(b.targets, &target{
				name: targetVendor, method: http.MethodGet, charge: []string{"node"},
				url:   func(n int64) string { return fmt.Sprintf("http://%s/?room=%s", b.vendorAddr, roomOf(n)) },
				check: b.checkToken,
			})
			return stop, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	return nil, fmt.Errorf("node does not listen on %s", b.vendorAddr)
}
