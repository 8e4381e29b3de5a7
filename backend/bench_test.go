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

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func (m *testMount) credsRequest() *logical.Request {
	return &logical.Request{Operation: logical.ReadOperation, Path: "creds/support", Data: map[string]any{fieldRoom: "support-4711"}, Storage: m.storage}
}

// BenchmarkCreds compares a token, read over the plugin protocol, with a bare signature: x is
// the ratio. The two alternate, so that it holds on a machine whose speed changes.
func BenchmarkCreds(b *testing.B) {
	for _, bits := range []int{2048, 3072, 4096} {
		m := newTestMount(b)
		m.mustWrite("keys/generate", map[string]any{fieldKeyBits: bits})
		m.mustWrite("config", map[string]any{fieldConsumerID: testConsumer, fieldActiveKey: 1})
		m.mustWrite("roles/support", map[string]any{fieldAllowedRooms: "support-*"})
		active, err := loadKey(b.Context(), m.storage, 1)
		require.NoError(b, err)
		parsed, err := x509.ParsePKCS8PrivateKey(active.PKCS8)
		require.NoError(b, err)
		key, sum := parsed.(*rsa.PrivateKey), sha256.Sum256([]byte("header.claims"))
		b.Run(fmt.Sprint(bits), func(b *testing.B) {
			b.ReportAllocs()
			var creds, signature time.Duration
			for b.Loop() {
				start := time.Now()
				mustHandle(b, m.wire, m.credsRequest())
				creds += time.Since(start)
				start = time.Now()
				_, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
				signature += time.Since(start)
				require.NoError(b, err)
			}
			b.ReportMetric(float64(creds)/float64(signature), "x")
			b.ReportMetric(float64(signature.Microseconds())/float64(b.N), "µs/signature")
		})
	}
}

func BenchmarkBatch(b *testing.B) {
	m := configured(b)
	items := manyItems(100)
	b.ReportAllocs()
	for b.Loop() {
		mustHandle(b, m.wire, &logical.Request{
			Operation: logical.UpdateOperation, Path: "creds/support", Data: map[string]any{fieldBatchInput: items}, Storage: m.storage,
		})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(items)), "ns/token")
}

func mustHandle(b *testing.B, backend logical.Backend, req *logical.Request) {
	resp, err := backend.HandleRequest(context.Background(), req)
	require.NoError(b, err)
	require.NoError(b, resp.Error())
}
