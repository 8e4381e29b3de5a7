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
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/crypto/ssh"
)

const (
	// RFC 7518, section 3.3: a key of 2048 bits or more must be used with RS256.
	minKeyBits = 2048
	// Above this a signature takes longer than a request should.
	maxKeyBits = 8192
	// A PEM of the largest key has some 7,000 characters in any of the three
	// forms. Whatever is longer is not worth parsing.
	maxPEMLength = 32 << 10
)

// keyPrefix is where key versions are stored, each below its number.
const keyPrefix = "keys/"

// keySource tells how a key came into Vault.
type keySource string

const (
	sourceImported  keySource = "imported"
	sourceGenerated keySource = "generated"
)

// keyEntry is a key version in storage.
type keyEntry struct {
	// PKCS8 is the private key in DER.
	PKCS8       []byte    `json:"pkcs8"`
	Source      keySource `json:"source"`
	CreatedTime time.Time `json:"created_time"`

	key *rsa.PrivateKey
}

// check parses the key, so that an entry that passed it holds one.
func (e *keyEntry) check() error {
	parsed, err := x509.ParsePKCS8PrivateKey(e.PKCS8)
	if err != nil {
		return errors.New("its private key can't be parsed")
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return errors.New("its private key is not an RSA key")
	}
	if bits := key.N.BitLen(); bits < minKeyBits || bits > maxKeyBits {
		return fmt.Errorf("its private key has %d bits", bits)
	}
	e.key = key
	return nil
}

func newKeyEntry(key *rsa.PrivateKey, source keySource, created time.Time) (*keyEntry, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the private key: %w", err)
	}
	return &keyEntry{PKCS8: der, Source: source, CreatedTime: created.UTC(), key: key}, nil
}

func keyPath(version int) string { return keyPrefix + strconv.Itoa(version) }

// loadKey returns nil where there is no such version.
func loadKey(ctx context.Context, s logical.Storage, version int) (*keyEntry, error) {
	return load[keyEntry](ctx, s, keyPath(version))
}

// listKeys returns the stored versions, in their order.
func listKeys(ctx context.Context, s logical.Storage) ([]int, error) {
	names, err := s.List(ctx, keyPrefix)
	if err != nil {
		return nil, fmt.Errorf("listing %q in storage: %w", keyPrefix, err)
	}
	versions := make([]int, len(names))
	for i, name := range names {
		if versions[i], err = strconv.Atoi(name); err != nil {
			return nil, fmt.Errorf("storage holds %q, which is no key version", keyPrefix+name)
		}
	}
	slices.Sort(versions)
	return versions, nil
}

// publicKey identifies a key without giving anything away.
type publicKey struct {
	pem    string // SubjectPublicKeyInfo, the form that the meeting server reads
	sha256 string // hex of the SHA-256 of the SubjectPublicKeyInfo's DER
	bits   int
}

func newPublicKey(key *rsa.PublicKey) (publicKey, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return publicKey{}, fmt.Errorf("encoding the public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return publicKey{
		pem:    string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		sha256: hex.EncodeToString(sum[:]),
		bits:   key.N.BitLen(),
	}, nil
}

// parsePrivateKey reads an RSA private key from a PEM in any of the forms in which
// the vendor's cm-api-key.pem arrives: PKCS#1, PKCS#8 or OpenSSH. Its errors are
// the caller's mistakes and repeat nothing of the input.
func parsePrivateKey(input string) (*rsa.PrivateKey, error) {
	block, err := decodePEM(input)
	if err != nil {
		return nil, err
	}
	parsed, err := parseBlock(block)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errNotRSA()
	}
	if bits := key.N.BitLen(); bits < minKeyBits || bits > maxKeyBits {
		return nil, invalid("%s has %d bits; an RSA key of %d to %d bits is needed", fieldPrivateKey, bits, minKeyBits, maxKeyBits)
	}
	if err := trySigning(key); err != nil {
		return nil, errInconsistentKey()
	}
	return key, nil
}

func errInconsistentKey() error {
	return invalid("%s is damaged: its parts do not make an RSA key; use the file as you received it", fieldPrivateKey)
}

// decodePEM returns the one block of the input, mended where copying is known to
// damage it.
func decodePEM(input string) (*pem.Block, error) {
	if len(input) > maxPEMLength {
		return nil, invalid("%s is longer than a PEM of an RSA key of %d bits can be; give the key's file alone, as in %s=@cm-api-key.pem", fieldPrivateKey, maxKeyBits, fieldPrivateKey)
	}
	text := mendPEM(input)
	if text == "" {
		return nil, invalid("%s is empty; give the content of cm-api-key.pem, as in %s=@cm-api-key.pem", fieldPrivateKey, fieldPrivateKey)
	}
	if strings.HasPrefix(text, "ssh-") || strings.HasPrefix(text, "---- BEGIN SSH2 PUBLIC KEY") {
		return nil, errPublicKey()
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil {
		return nil, invalid("%s is not a PEM; give the whole file, from its -----BEGIN line to its -----END line and with its line breaks, as in %s=@cm-api-key.pem",
			fieldPrivateKey, fieldPrivateKey)
	}
	if strings.TrimSpace(string(rest)) != "" || strings.Count(text, "-----BEGIN ") != 1 {
		return nil, invalid("%s has more than one PEM block, or text after it; leave only the private key's block", fieldPrivateKey)
	}
	return block, nil
}

// mendPEM undoes what editors, environment variables and JSON files do to a PEM:
// a byte-order mark, CRLF, indentation, and line breaks written as \n.
func mendPEM(input string) string {
	input = strings.TrimPrefix(input, "\ufeff")
	input = strings.NewReplacer("\r\n", "\n", "\r", "\n", `\r`, "", `\n`, "\n").Replace(input)
	lines := strings.Split(input, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

// parseBlock reads the block by its type; the result is a key of any algorithm.
func parseBlock(block *pem.Block) (crypto.PrivateKey, error) {
	key, err := parseDER(block)
	mistake, encrypted := new(invalidError), new(ssh.PassphraseMissingError)
	switch {
	case errors.As(err, &mistake):
		return nil, err
	case errors.As(err, &encrypted):
		return nil, errEncryptedKey("ssh-keygen -p -N '' -f copy.pem")
	case err != nil:
		return nil, errInconsistentKey()
	}
	return key, nil
}

func parseDER(block *pem.Block) (crypto.PrivateKey, error) {
	switch {
	case strings.HasSuffix(block.Type, "PUBLIC KEY"), strings.Contains(block.Type, "CERTIFICATE"):
		return nil, errPublicKey()
	// The header is how OpenSSL marks a PKCS#1 key that a passphrase protects: RFC
	// 1421, section 4.6.1.1.
	case block.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
		return nil, errEncryptedKey("openssl rsa -in cm-api-key.pem -out copy.pem")
	}
	switch block.Type {
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PRIVATE KEY":
		return parsePKCS8(block.Bytes)
	case "OPENSSH PRIVATE KEY":
		return ssh.ParseRawPrivateKey(pem.EncodeToMemory(block))
	case "EC PRIVATE KEY", "DSA PRIVATE KEY":
		return nil, errNotRSA()
	}
	return nil, invalid("%s is a PEM of another kind; RSA PRIVATE KEY, PRIVATE KEY and OPENSSH PRIVATE KEY are accepted", fieldPrivateKey)
}

// oidRSA is rsaEncryption: RFC 8017, appendix A.1.
var oidRSA = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}

// parsePKCS8 tells a key of an algorithm that the standard library does not know
// from a damaged one.
func parsePKCS8(der []byte) (crypto.PrivateKey, error) {
	var info struct { // RFC 5208, section 5
		Version    int
		Algorithm  pkix.AlgorithmIdentifier
		PrivateKey []byte
	}
	if _, err := asn1.Unmarshal(der, &info); err == nil && !info.Algorithm.Algorithm.Equal(oidRSA) {
		return nil, errNotRSA()
	}
	return x509.ParsePKCS8PrivateKey(der)
}

// errEncryptedKey names the command that takes a passphrase off a key of this form.
func errEncryptedKey(command string) error {
	return invalid("%s is encrypted; give a copy without passphrase, by %s, and delete the copy afterwards", fieldPrivateKey, command)
}

func errNotRSA() error {
	return invalid("%s is not an RSA key; RS256 needs one of %d to %d bits", fieldPrivateKey, minKeyBits, maxKeyBits)
}

func errPublicKey() error {
	return invalid("%s is a public key or a certificate; give the private key, cm-api-key.pem", fieldPrivateKey)
}

// trySigning signs a sample and verifies it, so that no key is stored that could
// not make a token.
func trySigning(key *rsa.PrivateKey) error {
	if err := key.Validate(); err != nil {
		return err
	}
	sample := sha256.Sum256([]byte("sample"))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sample[:])
	if err != nil {
		return err
	}
	return rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, sample[:], signature)
}
