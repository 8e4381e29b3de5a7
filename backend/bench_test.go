// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
	"github.com/stretchr/testify/require"
)

var benchBits = []int{2048, 3072, 4096}

// benchMount is a mount with an active key of that size.
func benchMount(b *testing.B, bits int) *testMount {
	b.Helper()
	m := newTestMount(b)
	m.mustWrite("keys/generate", map[string]any{fieldKeyBits: bits})
	m.mustWrite("config", map[string]any{fieldConsumerID: testConsumer, fieldActiveKey: 1})
	m.mustWrite("roles/support", map[string]any{fieldAllowedRooms: "support-*"})
	return m
}

func (m *testMount) credsRequest() *logical.Request {
	return &logical.Request{Operation: logical.ReadOperation, Path: "creds/support", Data: map[string]any{fieldRoom: "support-4711"}, Storage: m.storage}
}

// checkRequest does everything that credsRequest does, except the signature.
func (m *testMount) checkRequest(role string) *logical.Request {
	return &logical.Request{Operation: logical.ReadOperation, Path: "check/" + role, Data: map[string]any{fieldRoom: "support-4711"}, Storage: m.storage}
}

// emptyWire is a plugin that does nothing, behind the same protocol. It shows what a call
// alone costs.
func emptyWire(b *testing.B) logical.Backend {
	b.Helper()
	nothing := &framework.Path{
		Pattern: "empty",
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: func(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
					return &logical.Response{Data: map[string]any{"empty": true}}, nil
				},
			},
		},
	}
	client, _ := goplugin.TestPluginGRPCConn(b, false, map[string]goplugin.Plugin{
		plugin.BackendPluginName: &plugin.GRPCBackendPlugin{
			Factory: func(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
				backend := &framework.Backend{Paths: []*framework.Path{nothing}, BackendType: logical.TypeLogical}
				return backend, backend.Setup(ctx, conf)
			},
		},
	})
	b.Cleanup(func() { _ = client.Close() })
	raw, err := client.Dispense(plugin.BackendPluginName)
	require.NoError(b, err)
	wire := raw.(logical.Backend)
	require.NoError(b, wire.Setup(b.Context(), &logical.BackendConfig{
		System: &logical.StaticSystemView{MaxLeaseTTLVal: time.Hour}, StorageView: &logical.InmemStorage{},
	}))
	return wire
}

func mustHandle(b *testing.B, backend logical.Backend, req *logical.Request) {
	resp, err := backend.HandleRequest(context.Background(), req)
	if err != nil || resp.IsError() {
		b.Errorf("%v %v", resp, err)
	}
}

func mustSign(b *testing.B, key *rsa.PrivateKey) {
	sum := sha256.Sum256([]byte("header.claims"))
	if _, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:]); err != nil {
		b.Error(err)
	}
}

func benchKey(b *testing.B, m *testMount) *rsa.PrivateKey {
	b.Helper()
	active, err := load[storedKey](b.Context(), m.storage, keyPath(1))
	require.NoError(b, err)
	key, err := x509.ParsePKCS8PrivateKey(active.PKCS8)
	require.NoError(b, err)
	return key.(*rsa.PrivateKey)
}

// each runs a benchmark with one goroutine and in parallel.
func each(b *testing.B, op func()) {
	b.Helper()
	op()
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			op()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				op()
			}
		})
	})
}

func BenchmarkSignature(b *testing.B) {
	for _, bits := range benchBits {
		key := benchKey(b, benchMount(b, bits))
		b.Run(fmt.Sprint(bits), func(b *testing.B) { each(b, func() { mustSign(b, key) }) })
	}
}

func BenchmarkEmptyWire(b *testing.B) {
	wire := emptyWire(b)
	each(b, func() {
		mustHandle(b, wire, &logical.Request{Operation: logical.ReadOperation, Path: "empty", Data: map[string]any{fieldRoom: "support-4711"}})
	})
}

func BenchmarkCredsBackend(b *testing.B) {
	for _, bits := range benchBits {
		m := benchMount(b, bits)
		b.Run(fmt.Sprint(bits), func(b *testing.B) { each(b, func() { mustHandle(b, m.inside, m.credsRequest()) }) })
	}
}

func BenchmarkCredsWire(b *testing.B) {
	for _, bits := range benchBits {
		m := benchMount(b, bits)
		b.Run(fmt.Sprint(bits), func(b *testing.B) { each(b, func() { mustHandle(b, m.wire, m.credsRequest()) }) })
	}
}

func BenchmarkBatchWire(b *testing.B) {
	m := benchMount(b, 2048)
	items := make([]any, 100)
	for i := range items {
		items[i] = map[string]any{fieldRoom: fmt.Sprintf("support-%d", i)}
	}
	b.ReportAllocs()
	for b.Loop() {
		mustHandle(b, m.wire, &logical.Request{
			Operation: logical.UpdateOperation, Path: "creds/support", Data: map[string]any{fieldBatchInput: items}, Storage: m.storage,
		})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(items)), "ns/token")
}

// BenchmarkRatio is the figure to report: creds over the wire, divided by the sum of a
// bare signature and an empty call over the wire. The three alternate, so that the ratio
// holds on a machine whose speed changes.
func BenchmarkRatio(b *testing.B) {
	for _, bits := range benchBits {
		m := benchMount(b, bits)
		key := benchKey(b, m)
		empty := emptyWire(b)
		b.Run(fmt.Sprint(bits), func(b *testing.B) {
			var creds, signature, call time.Duration
			timed := func(total *time.Duration, op func()) {
				start := time.Now()
				op()
				*total += time.Since(start)
			}
			for b.Loop() {
				timed(&creds, func() { mustHandle(b, m.wire, m.credsRequest()) })
				timed(&signature, func() { mustSign(b, key) })
				timed(&call, func() {
					mustHandle(b, empty, &logical.Request{Operation: logical.ReadOperation, Path: "empty", Data: map[string]any{fieldRoom: "support-4711"}})
				})
			}
			b.ReportMetric(float64(creds)/float64(signature+call), "x")
			b.ReportMetric(float64(signature.Microseconds())/float64(b.N), "µs/signature")
			b.ReportMetric(float64(call.Microseconds())/float64(b.N), "µs/call")
		})
	}
}

// BenchmarkRoles shows the cost of more stored data: many roles, many rooms in a role,
// many key versions. Each mount alternates with one that has one of each, and the figure
// to report is the ratio. It measures check, because the signature of creds would hide a
// difference.
func BenchmarkRoles(b *testing.B) {
	rooms := make([]string, 1000)
	globs := make([]string, 1000)
	for i := range rooms {
		rooms[i], globs[i] = fmt.Sprintf("support-%d", 4711-i), fmt.Sprintf("x%d-*", i)
	}
	globs[999] = "support-*"
	for _, c := range []struct {
		name    string
		prepare func(m *testMount)
	}{
		{"1-role", func(*testMount) {}},
		{"1000-rooms", func(m *testMount) { m.mustWrite("roles/support", map[string]any{fieldAllowedRooms: rooms}) }},
		{"1000-globs", func(m *testMount) { m.mustWrite("roles/support", map[string]any{fieldAllowedRooms: globs}) }},
		{"1000-roles", func(m *testMount) { m.writeRoles(1000) }},
		{"64-keys", func(m *testMount) { m.addKeys(b, 63) }},
	} {
		one, many := benchMount(b, 2048), benchMount(b, 2048)
		c.prepare(many)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			compare(b, one, many, func(m *testMount) { mustHandle(b, m.wire, m.checkRequest("support")) })
		})
	}
}

// BenchmarkCache reads more roles in turn than the cache holds, and compares that with
// having no cache. It shows the cost of a cache that never has the role.
func BenchmarkCache(b *testing.B) {
	const roles = 20_000
	m := benchMount(b, 2048)
	m.writeRoles(roles)
	turn := 0
	var took [2]time.Duration
	for b.Loop() {
		name := fmt.Sprintf("r%d", turn%roles)
		turn++
		for i, get := range []func() (*role, error){
			func() (*role, error) { return loadRole(b.Context(), m.storage, name) },
			func() (*role, error) { return m.inside.currentRole(b.Context(), m.storage, name) },
		} {
			start := time.Now()
			r, err := get()
			took[i] += time.Since(start)
			if r == nil || err != nil {
				b.Fatal(r, err)
			}
		}
	}
	reportRatio(b, took)
}

// compare reports how long an operation takes on two mounts. The mounts alternate.
func compare(b *testing.B, one, other *testMount, op func(*testMount)) {
	b.Helper()
	op(one)
	op(other)
	var took [2]time.Duration
	for b.Loop() {
		for i, m := range []*testMount{one, other} {
			start := time.Now()
			op(m)
			took[i] += time.Since(start)
		}
	}
	reportRatio(b, took)
}

func reportRatio(b *testing.B, took [2]time.Duration) {
	b.Helper()
	b.ReportMetric(float64(took[0].Nanoseconds())/float64(b.N)/1000, "µs/one")
	b.ReportMetric(float64(took[1].Nanoseconds())/float64(b.N)/1000, "µs/other")
	b.ReportMetric(float64(took[1])/float64(took[0]), "x")
}

func (m *testMount) writeRoles(n int) {
	for i := range n {
		m.mustWrite(fmt.Sprintf("roles/r%d", i), map[string]any{fieldAllowedRooms: "support-*"})
	}
}

func (m *testMount) addKeys(b *testing.B, n int) {
	b.Helper()
	for range n {
		m.mustWrite("keys/generate", nil)
	}
	m.wire.InvalidateKey(b.Context(), "config")
}
