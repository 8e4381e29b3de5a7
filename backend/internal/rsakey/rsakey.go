// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Package rsakey holds private RSA keys that sign with RS256. [Parse] reads one from a
// PEM, [Generate] makes one, and [Decode] reads the form in which [PrivateKey.Encode]
// stored one. If a [PrivateKey] exists, it has 2048 to 8192 bits, its numbers are
// consistent, and it has signed a sample.
//
// Signatures are made by Go's crypto/rsa or, in a build with the tag openssl, by
// OpenSSL. Everything else, including verification, is Go's in both builds.
//
// The private half leaves a PrivateKey only through Encode.
package rsakey

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	// MinBits is the minimum size: RFC 7518, section 3.3, requires 2048 bits or more.
	MinBits = 2048
	// MaxBits is the maximum size. A signature with more bits would take too long for a
	// request.
	MaxBits = 8192
)

// A PrivateKey is a private RSA key. It is immutable, and several goroutines may use it.
// The memory that OpenSSL uses for it is freed after its last use.
type PrivateKey struct {
	key    *rsa.PrivateKey
	public *PublicKey
	sign   signFunc
}

// A signFunc makes the RS256 signature of a SHA-256 digest with one key, in Go or in
// OpenSSL. sign_go.go and sign_openssl.go each have a newSignFunc; a build contains one
// of them.
type signFunc func(digest [sha256.Size]byte) ([]byte, error)

// signInGo returns a signFunc of the standard library.
func signInGo(key *rsa.PrivateKey) signFunc {
	return func(digest [sha256.Size]byte) ([]byte, error) {
		return rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:])
	}
}

var sample = sha256.Sum256([]byte("sample"))

// newPrivateKey checks a key and lets it sign a sample. The standard library's validation
// does not notice factors that are not prime; a signature does. The error is an
// [*InputError] if the key is sound but can't be used, and a [*SignError] if OpenSSL does
// not sign with a key with which Go does.
func newPrivateKey(key *rsa.PrivateKey) (*PrivateKey, error) {
	public, err := newPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	key.Precompute()
	if err := key.Validate(); err != nil {
		return nil, err
	}
	signature, err := signInGo(key)(sample)
	if err == nil {
		err = public.verify(sample, signature)
	}
	if err != nil {
		return nil, nameMode(err)
	}
	sign, err := newSignFunc(key, signature)
	if err != nil {
		return nil, &SignError{err.Error()}
	}
	return &PrivateKey{key: key, public: public, sign: sign}, nil
}

// Generate makes a key of the given size in bits. It can't be interrupted, and for 4096
// bits it takes seconds.
func Generate(bits int) (*PrivateKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, fmt.Errorf("generating a key: %w", err)
	}
	k, err := newPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("generating a key: %w", err)
	}
	return k, nil
}

// Decode reads a key as [PrivateKey.Encode] wrote it. The text of its error continues a
// sentence about what was stored.
func Decode(pkcs8 []byte) (*PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, errors.New("its private key can't be parsed")
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("its private key is not an RSA key")
	}
	k, err := newPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("its private key %w", err)
	}
	return k, nil
}

// Encode returns the private key in PKCS#8, as DER.
func (k *PrivateKey) Encode() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.key)
	if err != nil {
		return nil, fmt.Errorf("encoding the private key: %w", err)
	}
	return der, nil
}

// Sign signs a message with RS256: RFC 7518, section 3.3. The error is a [*SignError].
func (k *PrivateKey) Sign(message []byte) ([]byte, error) {
	signature, err := k.sign(sha256.Sum256(message))
	if err != nil {
		return nil, &SignError{err.Error()}
	}
	return signature, nil
}

// Public returns the public half.
func (k *PrivateKey) Public() *PublicKey { return k.public }

// A PublicKey is the public half of a key. It is immutable.
type PublicKey struct {
	// DER is the key as a SubjectPublicKeyInfo: RFC 5280, section 4.1.
	DER []byte
	// PEM has the same, in the form that the meeting server reads.
	PEM string
	// SHA256 is the hex of the DER's SHA-256.
	SHA256 string
	// Bits is the size of the modulus.
	Bits int

	key *rsa.PublicKey
}

// ParsePublic reads a public half from its DER. The text of its error continues a sentence
// about what was stored.
func ParsePublic(der []byte) (*PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errors.New("its public key can't be parsed")
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("its public key is not an RSA key")
	}
	k, err := newPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("its public key %w", err)
	}
	return k, nil
}

// newPublicKey checks that the key can verify. The error is an [*InputError] if it can't.
func newPublicKey(key *rsa.PublicKey) (*PublicKey, error) {
	if bits := key.N.BitLen(); bits < MinBits || bits > MaxBits {
		return nil, errSize(bits)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the public key: %w", err)
	}
	sum := sha256.Sum256(der)
	k := &PublicKey{
		DER:    der,
		PEM:    string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		SHA256: hex.EncodeToString(sum[:]),
		Bits:   key.N.BitLen(),
		key:    key,
	}
	// An empty signature never verifies. Any other error says why the key can't verify.
	if err := k.verify(sample, nil); !errors.Is(err, rsa.ErrVerification) {
		return nil, nameMode(err)
	}
	return k, nil
}

// Verify returns nil if the signature is an RS256 signature of the message by this
// key.
func (k *PublicKey) Verify(message, signature []byte) error {
	return k.verify(sha256.Sum256(message), signature)
}

func (k *PublicKey) verify(digest [sha256.Size]byte, signature []byte) error {
	return rsa.VerifyPKCS1v15(k.key, crypto.SHA256, digest[:], signature)
}

// Equal reports whether both are the same key.
func (k *PublicKey) Equal(other *PublicKey) bool { return k.SHA256 == other.SHA256 }
