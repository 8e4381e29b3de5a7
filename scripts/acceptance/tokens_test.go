// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

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
