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

	"github.com/stretchr/testify/require"
)

// BenchmarkCreds compares creds over the wire with a bare signature. The two alternate, so
// that the ratio holds on a machine whose speed changes.
func BenchmarkCreds(b *testing.B) {
	for _, bits := range []int{2048, 3072, 4096} {
		m := configured(b)
		version := m.mustWrite("keys/generate", map[string]any{fieldKeyBits: bits}).Data[fieldVersion]
		m.mustWrite("config", map[string]any{fieldActiveKey: version})
		key, err := rsa.GenerateKey(rand.Reader, bits)
		require.NoError(b, err)
		sum := sha256.Sum256([]byte("header.claims"))
		b.Run(fmt.Sprint(bits), func(b *testing.B) {
			b.ReportAllocs()
			var creds, signature time.Duration
			for b.Loop() {
				start := time.Now()
				m.creds()
				answered := time.Now()
				_, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
				require.NoError(b, err)
				creds += answered.Sub(start)
				signature += time.Since(answered)
			}
			b.ReportMetric(float64(creds)/float64(signature), "x")
			b.ReportMetric(float64(signature.Microseconds())/float64(b.N), "µs/signature")
			b.ReportMetric(float64(creds.Microseconds())/float64(b.N), "µs/token")
		})
	}
}
