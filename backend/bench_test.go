// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

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

func mustHandle(b *testing.B, m *testMount, req *logical.Request) {
	resp, err := m.wire.HandleRequest(b.Context(), req)
	if err != nil || resp.IsError() {
		b.Errorf("%v %v", resp, err)
	}
}

func BenchmarkBatch(b *testing.B) {
	m := benchMount(b, 2048)
	items := manyItems(100)
	b.ReportAllocs()
	for b.Loop() {
		mustHandle(b, m, &logical.Request{
			Operation: logical.UpdateOperation, Path: "creds/support", Data: map[string]any{fieldBatchInput: items}, Storage: m.storage,
		})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(items)), "ns/token")
}

// BenchmarkCreds compares creds over the wire with a bare signature. The two alternate, so
// that the ratio holds on a machine whose speed changes.
func BenchmarkCreds(b *testing.B) {
	for _, bits := range []int{2048, 3072, 4096} {
		m := benchMount(b, bits)
		key, err := rsa.GenerateKey(rand.Reader, bits)
		require.NoError(b, err)
		sum := sha256.Sum256([]byte("header.claims"))
		b.Run(fmt.Sprint(bits), func(b *testing.B) {
			b.ReportAllocs()
			var creds, signature time.Duration
			for b.Loop() {
				start := time.Now()
				mustHandle(b, m, m.credsRequest())
				answered := time.Now()
				if _, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:]); err != nil {
					b.Fatal(err)
				}
				creds += answered.Sub(start)
				signature += time.Since(answered)
			}
			b.ReportMetric(float64(creds)/float64(signature), "x")
			b.ReportMetric(float64(signature.Microseconds())/float64(b.N), "µs/signature")
			b.ReportMetric(float64(creds.Microseconds())/float64(b.N), "µs/token")
		})
	}
}
