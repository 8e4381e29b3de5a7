// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package rsakey

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
)

// A Signer signs with one private key. It is immutable, and several goroutines may use it.
// The memory that its library uses for the key is freed after the Signer's last use.
type Signer struct{ library digestSigner }

// A digestSigner makes RS256 signatures of a SHA-256 digest, with Go or with OpenSSL.
// sign_go.go and sign_openssl.go each have a loadSigner; a build contains one of them.
type digestSigner interface {
	sign(digest [sha256.Size]byte) ([]byte, error)
}

// goSigner signs with the standard library.
type goSigner struct{ key *rsa.PrivateKey }

func (s goSigner) sign(digest [sha256.Size]byte) ([]byte, error) {
	return rsa.SignPKCS1v15(nil, s.key, crypto.SHA256, digest[:])
}

// Signer loads the key into the library that signs. The error is a [*SignError].
func (k *PrivateKey) Signer() (*Signer, error) {
	library, err := loadSigner(k.key)
	if err != nil {
		return nil, &SignError{err.Error()}
	}
	return &Signer{library}, nil
}

// Sign signs a message with RS256: RFC 7518, section 3.3. The error is a [*SignError].
func (s *Signer) Sign(message []byte) ([]byte, error) {
	signature, err := s.library.sign(sha256.Sum256(message))
	if err != nil {
		return nil, &SignError{err.Error()}
	}
	return signature, nil
}

var sample = sha256.Sum256([]byte("sample"))

// try makes sure that the key signs. The standard library's validation does not notice
// factors that are not prime; a signature does.
func (k *PrivateKey) try() error {
	signature, err := goSigner{k.key}.sign(sample)
	if err != nil {
		return err
	}
	if err := k.public.verify(sample, signature); err != nil {
		return err
	}
	_, err = k.Signer()
	return err
}

// compare makes sure that another library signs as the standard library does. An RS256
// signature has no random part: there is one for each message and key.
func compare(other digestSigner, key *rsa.PrivateKey) error {
	signature, err := other.sign(sample)
	if err != nil {
		return err
	}
	want, err := goSigner{key}.sign(sample)
	if err != nil {
		return err
	}
	if !bytes.Equal(signature, want) {
		return errors.New("its signature is not the one that Go makes")
	}
	return nil
}
