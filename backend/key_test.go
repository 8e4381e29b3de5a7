// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"crypto/rsa"
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
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

// refusedKeys are private keys that the engine refuses.
func refusedKeys(t testing.TB) map[string]string {
	t.Helper()
	files, err := os.ReadDir(rsakeyTestdata + "refused")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	inputs := map[string]string{"empty": "", "a path": "cm-api-key.pem"}
	for _, file := range files {
		inputs[file.Name()] = readKey(t, "refused/"+file.Name())
	}
	return inputs
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

// A bad key changes nothing in storage, and no part of it appears in an answer or the log,
// whatever JSON type it is in.
func TestRefusedKeysLeaveNoTrace(t *testing.T) {
	m := configured(t)
	pkcs1 := readTestdata(t, "rsa2048.pkcs1.pem")
	before := m.mustRead("config", nil)
	writes := m.storage.written()

	inputs := map[string]any{
		"a list":   []any{pkcs1},
		"an array": []any{pkcs1, pkcs1},
		"a map":    map[string]any{"pem": pkcs1},
		"a number": 1234567890123,
		"true":     true,
	}
	for name, input := range refusedKeys(t) {
		inputs[name] = input
	}
	secret := strings.Split(pkcs1, "\n")[5]
	for name, input := range inputs {
		message := m.refused(logical.UpdateOperation, "config", map[string]any{fieldPrivateKey: input, fieldDomain: "changed.example.com"})
		require.Contains(t, message, fieldPrivateKey, name)
		require.NotContains(t, message, secret, name)
		require.Equal(t, message, m.refused(logical.UpdateOperation, "keys/import", map[string]any{fieldPrivateKey: input}), name)
	}
	require.Equal(t, before, m.mustRead("config", nil))
	require.Equal(t, writes, m.storage.written(), "a refused key must write nothing")
	require.NotContains(t, m.log.String(), secret)
}
