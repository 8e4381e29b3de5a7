// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"crypto/rsa"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

const rsakeyTestdata = "internal/rsakey/testdata/"

func parsedKey(t testing.TB, pem string) *rsakey.PrivateKey {
	t.Helper()
	k, err := rsakey.Parse(pem)
	require.NoError(t, err)
	return k
}

// secondKey is a second key, read without this module.
func secondKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	k, err := ssh.ParseRawPrivateKey([]byte(readTestdata(t, "rsa2048.openssh.pem")))
	require.NoError(t, err)
	return k.(*rsa.PrivateKey)
}

// storedOf returns the entry of a key version.
func storedOf(t testing.TB, pem string) storedKey {
	t.Helper()
	k, err := newKey(parsedKey(t, pem), sourceImported, testNow)
	require.NoError(t, err)
	return k.storedKey
}

// readKey reads a key from the tests of rsakey.
func readKey(t testing.TB, name string) string {
	t.Helper()
	raw, err := os.ReadFile(rsakeyTestdata + name)
	require.NoError(t, err)
	return string(raw)
}

// requireNoEcho fails if the text repeats any eight characters of the input that
// are not the message's own words.
func requireNoEcho(t testing.TB, text, input string) {
	t.Helper()
	for _, own := range []string{"-----BEGIN", "-----END", "PRIVATE KEY", "PUBLIC KEY", "cm-api-key.pem", "OPENSSH", "private_key", "-openssh"} {
		text, input = strings.ReplaceAll(text, own, ""), strings.ReplaceAll(input, own, "")
	}
	for i := 0; i+8 <= len(input); i++ {
		require.NotContains(t, text, input[i:i+8])
	}
}
