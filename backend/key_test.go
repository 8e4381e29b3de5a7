// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func pkcs8Of(t testing.TB, key crypto.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return pemOf("PRIVATE KEY", der)
}

func TestParsePrivateKeyForms(t *testing.T) {
	t.Parallel()
	pkcs1 := readTestdata(t, "rsa2048.pkcs1.pem")
	key := testKey(t)
	openSSH, err := ssh.MarshalPrivateKey(key, "")
	require.NoError(t, err)

	for name, input := range map[string]string{
		"PKCS#1":            pkcs1,
		"PKCS#8":            pkcs8Of(t, key),
		"OpenSSH":           string(pem.EncodeToMemory(openSSH)),
		"CRLF":              strings.ReplaceAll(pkcs1, "\n", "\r\n"),
		"CR":                strings.ReplaceAll(pkcs1, "\n", "\r"),
		"byte-order mark":   "\ufeff" + pkcs1,
		"indented":          "  " + strings.ReplaceAll(pkcs1, "\n", "\n\t  "),
		`literal \n`:        strings.ReplaceAll(pkcs1, "\n", `\n`),
		`literal \r\n`:      strings.ReplaceAll(pkcs1, "\n", `\r\n`),
		"no last line end":  strings.TrimSpace(pkcs1),
		"blank lines round": "\n\n" + pkcs1 + "\n \n",
		"all at once":       "\ufeff  " + strings.ReplaceAll(strings.TrimSpace(pkcs1), "\n", "  \r\n  ") + `\n`,
	} {
		got, err := parsePrivateKey(input)
		require.NoError(t, err, name)
		require.True(t, got.Equal(key), name)
	}

	// What ssh-keygen writes by default, not what this module's library does.
	got, err := parsePrivateKey(readTestdata(t, "rsa2048.openssh.pem"))
	require.NoError(t, err)
	require.NoError(t, trySigning(got))
}

func TestParsePrivateKeyRefusals(t *testing.T) {
	t.Parallel()
	pkcs1 := readTestdata(t, "rsa2048.pkcs1.pem")
	key := testKey(t)

	for name, test := range refusedKeys(t, pkcs1, key) {
		_, err := parsePrivateKey(test.input)
		require.Error(t, err, name)
		mistake := new(invalidError)
		require.ErrorAs(t, err, &mistake, name)
		require.Contains(t, err.Error(), test.want, name)
		require.Contains(t, err.Error(), fieldPrivateKey, name)
		requireNoEcho(t, err.Error(), test.input)
	}
}

type refusedKey struct{ input, want string }

func refusedKeys(t testing.TB, pkcs1 string, key *rsa.PrivateKey) map[string]refusedKey {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	ecDER, err := x509.MarshalECPrivateKey(ec)
	require.NoError(t, err)
	edSSH, err := ssh.MarshalPrivateKey(ed, "")
	require.NoError(t, err)
	encryptedSSH, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("secret"))
	require.NoError(t, err)
	small, err := rsa.GenerateKey(rand.Reader, 2047)
	require.NoError(t, err)
	smallSSH, err := ssh.MarshalPrivateKey(small, "")
	require.NoError(t, err)
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	require.NoError(t, err)
	certificate, err := x509.CreateCertificate(rand.Reader,
		&x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	require.NoError(t, err)
	pkcs8DER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	sshPublic, err := ssh.NewPublicKey(&key.PublicKey)
	require.NoError(t, err)
	block, _ := pem.Decode([]byte(pkcs1))

	return map[string]refusedKey{
		"empty":                {"", "is empty"},
		"white space":          {" \r\n\t", "is empty"},
		"not PEM":              {"hunter2-not-a-pem", "is not a PEM"},
		"a path":               {"/etc/keys/cm-api-key.pem", "is not a PEM"},
		"cut short":            {pkcs1[:len(pkcs1)/2], "to its -----END line"},
		"in one line":          {strings.ReplaceAll(pkcs1, "\n", " "), "with its line breaks"},
		"encrypted PKCS#1":     {strings.Replace(pkcs1, "KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0011223344556677\n\n", 1), "is encrypted"},
		"encrypted PKCS#8":     {pemOf("ENCRYPTED PRIVATE KEY", block.Bytes), "is encrypted; give a copy without passphrase, by openssl rsa -in"},
		"encrypted OpenSSH":    {string(pem.EncodeToMemory(encryptedSSH)), "is encrypted; give a copy without passphrase, by ssh-keygen -p"},
		"public SPKI":          {pemOf("PUBLIC KEY", spki), "public key or a certificate"},
		"public PKCS#1":        {pemOf("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&key.PublicKey)), "public key or a certificate"},
		"public OpenSSH":       {string(ssh.MarshalAuthorizedKey(sshPublic)), "public key or a certificate"},
		"certificate":          {pemOf("CERTIFICATE", certificate), "public key or a certificate"},
		"trusted certificate":  {pemOf("TRUSTED CERTIFICATE", certificate), "public key or a certificate"},
		"SSH2 public key":      {"---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----\n", "public key or a certificate"},
		"RSA-PSS, PKCS#8":      {pemOf("PRIVATE KEY", bytes.Replace(pkcs8DER, []byte{0x86, 0xf7, 0x0d, 1, 1, 1}, []byte{0x86, 0xf7, 0x0d, 1, 1, 10}, 1)), "is not an RSA key"},
		"EC, SEC 1":            {pemOf("EC PRIVATE KEY", ecDER), "is not an RSA key"},
		"EC, PKCS#8":           {pkcs8Of(t, ec), "is not an RSA key"},
		"Ed25519, PKCS#8":      {pkcs8Of(t, ed), "is not an RSA key"},
		"Ed25519, OpenSSH":     {string(pem.EncodeToMemory(edSSH)), "is not an RSA key"},
		"2047 bits":            {pkcs8Of(t, small), "has 2047 bits"},
		"2047 bits, OpenSSH":   {string(pem.EncodeToMemory(smallSSH)), "has 2047 bits"},
		"1024 bits":            {readTestdata(t, "rsa1024.pem"), "has 1024 bits"},
		"512 bits":             {readTestdata(t, "rsa512.pem"), "has 512 bits"},
		"8200 bits":            {readTestdata(t, "rsa8200.pem"), "has 8200 bits"},
		"two blocks":           {pkcs1 + pkcs1, "has more than one PEM block, or text after it; leave only"},
		"text after it":        {pkcs1 + "trailing", "one PEM block"},
		"a certificate before": {pemOf("CERTIFICATE", certificate) + pkcs1, "one PEM block"},
		"a broken one before":  {"-----BEGIN X-----\n!\n" + pkcs1, "one PEM block"},
		"inconsistent":         {pemOf("RSA PRIVATE KEY", inconsistent(key)), "is damaged"},
		"damaged DER":          {pemOf("RSA PRIVATE KEY", block.Bytes[:200]), "is damaged"},
		"another kind":         {pemOf("PGP PRIVATE KEY BLOCK", block.Bytes), "another kind"},
		"endless":              {strings.Repeat("A", maxPEMLength+1), "give the key's file alone"},
	}
}

// inconsistent is the key with another private exponent.
func inconsistent(key *rsa.PrivateKey) []byte {
	broken := *key
	broken.D = new(big.Int).Add(key.D, big.NewInt(2))
	broken.Precomputed = rsa.PrecomputedValues{}
	return x509.MarshalPKCS1PrivateKey(&broken)
}

// requireNoEcho fails if the text repeats any eight characters of the input that
// are not the message's own words.
func requireNoEcho(t testing.TB, text, input string) {
	t.Helper()
	for _, own := range []string{"-----BEGIN", "-----END", "PRIVATE KEY", "PUBLIC KEY", "cm-api-key.pem", "OPENSSH"} {
		text, input = strings.ReplaceAll(text, own, ""), strings.ReplaceAll(input, own, "")
	}
	for i := 0; i+8 <= len(input); i++ {
		require.NotContains(t, text, input[i:i+8])
	}
}

// No bad key changes what is stored or shows up in an answer or the log, whatever
// JSON type it is wrapped in.
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
	for name, test := range refusedKeys(t, pkcs1, testKey(t)) {
		inputs[name] = test.input
	}
	secret := strings.Split(pkcs1, "\n")[5]
	for name, input := range inputs {
		message := m.refused(logical.UpdateOperation, "config", map[string]any{fieldPrivateKey: input, fieldDomain: "changed.example.com"})
		require.Contains(t, message, fieldPrivateKey, name)
		require.NotContains(t, message, secret, name)
	}
	require.Equal(t, before, m.mustRead("config", nil))
	require.Equal(t, writes, m.storage.written(), "a refused key must write nothing")
	require.NotContains(t, m.log.String(), secret)
}
