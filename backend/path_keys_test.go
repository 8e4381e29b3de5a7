// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// No answer of any path contains a private key: neither a prime factor nor the private
// exponent, in any form.
func TestNoPathReturnsAPrivateKey(t *testing.T) {
	var answers strings.Builder
	var needles []string
	for name, o := range operations(t) {
		m := configured(t)
		resp, err := m.do(o)
		fmt.Fprintln(&answers, name, resp, err)
		ring, err := m.inside.currentKeyring(t.Context(), m.storage)
		require.NoError(t, err)
		for _, k := range ring.versions {
			needles = append(needles, privateParts(t, k)...)
		}
	}
	require.Contains(t, answers.String(), "PUBLIC KEY")
	require.NotContains(t, answers.String(), "PRIVATE")
	for _, needle := range needles {
		require.False(t, strings.Contains(answers.String(), needle))
	}
	require.Greater(t, len(needles), len(operations(t)))
}

// privateParts are pieces of the private parts of a key: in decimal, as bytes, in hex, and
// in base64 with any alignment.
func privateParts(t testing.TB, k *key) []string {
	t.Helper()
	parsed, err := x509.ParsePKCS8PrivateKey(k.PKCS8)
	require.NoError(t, err)
	key := parsed.(*rsa.PrivateKey)
	var parts []string
	for _, n := range []*big.Int{key.D, key.Primes[0], key.Primes[1]} {
		piece := n.Bytes()[20:50]
		parts = append(parts, n.String()[10:50], string(piece), hex.EncodeToString(piece))
		for shift := range 3 {
			parts = append(parts, base64.StdEncoding.EncodeToString(piece[shift : shift+27])[2:34])
		}
	}
	return parts
}

func TestKeyVersionsAreLimited(t *testing.T) {
	m := configured(t)
	for version := 2; version <= maxKeys; version++ {
		m.storeKey(version, storedOf(t, readTestdata(t, "rsa2048.openssh.pem")))
	}
	m.storeConfig(func(c *config) { c.LastKey = 50 }) // as after a restore of an older configuration
	m.wire.InvalidateKey(t.Context(), "config")
	other := map[string]any{fieldPrivateKey: readKey(t, "accepted/exponent-3.pem")}
	full := "100 key versions are stored, which is the maximum; delete one that is no longer used, such as keys/2"
	for path, data := range map[string]map[string]any{"keys/import": other, "config": other, "keys/generate": nil} {
		require.Equal(t, full, m.refused(logical.UpdateOperation, path, data))
	}
	m.mustWrite("config", map[string]any{fieldActiveKey: 7})
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/generate", nil), "such as keys/1")

	// A key that is stored already may be written again. After a deletion there is room
	// for a new one, whose number is above all others.
	m.mustWrite("keys/import", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.pkcs1.pem")})
	m.mustDelete("keys/3")
	require.EqualValues(t, 101, m.mustWrite("keys/import", other).Data[fieldVersion])
}

// The list is in the order of the numbers, and says of each version what a read of it does.
func TestKeyInfo(t *testing.T) {
	m := configured(t)
	m.mustWrite("keys/generate", map[string]any{fieldKeyBits: 3072})
	m.put("keys/10", "{")
	data := m.must(m.call(logical.ListOperation, "keys", nil)).Data
	require.Equal(t, []any{"1", "2", "10"}, data["keys"])
	infos := map[string]any{
		"10": map[string]any{fieldActive: false, fieldError: `corrupt entry in storage: "keys/10": it is not JSON of the right form`},
	}
	for _, version := range []string{"1", "2"} {
		read := m.mustRead("keys/"+version, nil)
		delete(read, fieldPublicKey)
		delete(read, fieldVersion)
		infos[version] = read
	}
	require.Equal(t, infos, data["key_info"])
	require.Subset(t, infos["2"], map[string]any{fieldSource: "generated", fieldActive: false, fieldKeyBits: 3072.0})
	require.Nil(t, m.must(m.call(logical.ReadOperation, "keys/3", nil)), "Vault answers nil with 404")
}

// A private half that does not belong to its public half is not used. Writing the key again
// stores it anew.
func TestHalvesOfAKey(t *testing.T) {
	m := configured(t)
	mixed := storedOf(t, readTestdata(t, "rsa2048.openssh.pem"))
	mixed.PublicKey = storedOf(t, readTestdata(t, "rsa2048.pkcs1.pem")).PublicKey
	broken := mixed
	broken.PKCS8 = []byte("x")
	for want, stored := range map[string]storedKey{
		`"keys/1": its public half is that of another key`: mixed,
		`"keys/1": its private key can't be parsed`:        broken,
	} {
		m.storeKey(1, stored)
		for _, name := range []string{"creds read", "config switch"} {
			_, err := m.do(operations(t)[name])
			require.ErrorContains(t, err, want)
		}
	}
	m.mustWrite("config", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.pkcs1.pem")})
	require.EqualValues(t, 2, m.creds()[fieldKeyVersion])
}
