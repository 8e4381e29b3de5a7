// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package rsakey

import (
	"fmt"
	"strings"
)

// An InputError says what is wrong with a private key in a request, and what would be
// right. Its text continues a sentence that begins with the name of the field. It repeats
// nothing of the input.
type InputError struct{ text string }

func (e *InputError) Error() string { return e.text }

func inputError(format string, args ...any) *InputError {
	return &InputError{fmt.Sprintf(format, args...)}
}

func errSize(bits int) *InputError {
	return inputError("has %d bits; an RSA key of %d to %d bits is needed", bits, MinBits, MaxBits)
}

// The errors that need no details.
var (
	errEmpty   = inputError("is empty; give the content of cm-api-key.pem, as in private_key=@cm-api-key.pem")
	errTooLong = inputError("is longer than a PEM of an RSA key of %d bits can be; give the key's file alone, as in private_key=@cm-api-key.pem", MaxBits)
	errNotPEM  = inputError("is not a PEM; give the whole file, from its -----BEGIN line to its -----END line and with its line breaks, as in private_key=@cm-api-key.pem")
	errSeveral = inputError("has more than one PEM block, or text after it; leave only the private key's block")
	errBase64  = inputError("is a PEM that was encoded in base64 once more; decode it first: base64 -d encoded.txt > cm-api-key.pem")
	errBare    = inputError("is the base64 of a key without its -----BEGIN and -----END lines; give the whole file, with both lines")
	errPuTTY   = inputError("is in PuTTY's format; convert it: puttygen key.ppk -O private-openssh -o cm-api-key.pem")
	errJWK     = inputError("is a JSON Web Key (JWK); give the key as a PEM")
	errOther   = inputError("is a PEM of another kind; RSA PRIVATE KEY, PRIVATE KEY and OPENSSH PRIVATE KEY are accepted")
	errPublic  = inputError("is a public key or a certificate; give the private key, cm-api-key.pem")
	errNotRSA  = inputError("is not an RSA key; RS256 needs one of %d to %d bits", MinBits, MaxBits)
	errPSS     = inputError("is an RSA key for PSS signatures only; RS256 needs an ordinary RSA key, as openssl genrsa makes")
	errBigE    = inputError("has a public exponent of more than 31 bits, which Go does not support; use a key with the usual exponent, 65537")
	errUnusual = inputError("is encoded in a way that Go does not read; convert it: openssl rsa -in cm-api-key.pem -out copy.pem")
	errWeak    = inputError("is easy to break: its primes are too close to each other, or its private exponent is too small; use another key")
	errDamaged = inputError("is damaged: the text between its BEGIN and END lines is not a key; use the file as you received it")
	errMixed   = inputError("is damaged: its parts are inconsistent and do not make an RSA key; use the file as you received it")
)

// nameMode makes an [*InputError] of an error with which the standard library refuses a key
// only because of GODEBUG=fips140=only. The error has no type. Its text says what the mode
// forbids, and has nothing of the key.
func nameMode(err error) error {
	text := strings.TrimPrefix(err.Error(), "crypto/rsa: ")
	if !strings.Contains(text, "FIPS 140-only mode") {
		return err
	}
	return inputError("can't be used while the plugin runs with GODEBUG=fips140=only: %s", text)
}

// A SignError means that a key could not be loaded or did not sign. Detail is the error of
// the library, for a log. The text does not repeat it.
type SignError struct{ Detail string }

func (e *SignError) Error() string {
	return "the signing library failed; the plugin's log has its error"
}

// errEncrypted names the command that removes the passphrase from a key of this form.
func errEncrypted(command string) *InputError {
	return inputError("is encrypted; give a copy without passphrase, by %s, and delete the copy afterwards", command)
}
