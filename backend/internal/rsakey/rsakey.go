// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Package rsakey holds a private RSA key for RS256 signatures. [Parse] reads one
// from a PEM, and [Generate] makes one; both try the key before they return it.
// [Decode] reads the form in which [PrivateKey.Encode] stored one. If a [PrivateKey]
// exists, it has 2048 to 8192 bits, and its numbers are consistent. A [Signer] signs
// with it.
//
// Signatures are made by Go's crypto/rsa or, in a build with the tag openssl, by
// OpenSSL. Everything else, including verification, is Go's in both builds.
//
// The private half leaves a PrivateKey only through Encode.
package rsakey

import (
	"crypto"
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
type PrivateKey struct {
	key    *rsa.PrivateKey
	public *PublicKey
}

// newPrivateKey checks that the key has the right size and that its numbers are consistent.
// The error is an [*InputError] if the size is wrong.
func newPrivateKey(key *rsa.PrivateKey) (*PrivateKey, error) {
	if bits := key.N.BitLen(); bits < MinBits || bits > MaxBits {
		return nil, errSize(bits)
	}
	key.Precompute()
	if err := key.Validate(); err != nil {
		return nil, err
	}
	public, err := newPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	return &PrivateKey{key: key, public: public}, nil
}

// Decode reads a key as [PrivateKey.Encode] wrote it.
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

// Public returns the public half.
func (k *PrivateKey) Public() *PublicKey { return k.public }

// A PublicKey is the public half of a key. It is immutable.
type PublicKey struct {
	// PEM is the key as a SubjectPublicKeyInfo, the form that the meeting server reads.
	PEM string
	// SHA256 is the hex of the SHA-256 of the SubjectPublicKeyInfo's DER.
	SHA256 string
	// Bits is the size of the modulus.
	Bits int

	key *rsa.PublicKey
}

func newPublicKey(key *rsa.PublicKey) (*PublicKey, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return &PublicKey{
		PEM:    string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		SHA256: hex.EncodeToString(sum[:]),
		Bits:   key.N.BitLen(),
		key:    key,
	}, nil
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
