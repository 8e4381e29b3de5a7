// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package rsakey

import "fmt"

// A Problem says what is wrong with a private key in a request.
type Problem int

// The problems that an input can have. Each has a message of its own.
const (
	Empty        Problem = iota + 1
	TooLong              // longer than any PEM of a key
	NotPEM               // no PEM block, and nothing else that is known
	SeveralParts         // more than one PEM block, or text after it
	Base64               // a PEM, or the content of one, encoded in base64
	PuTTY                // PuTTY's own format
	JWK                  // a JSON Web Key
	OtherPEM             // a PEM block of an unknown kind
	Encrypted            // protected by a passphrase
	Public               // a public key, or a certificate
	NotRSA               // a key of another algorithm
	PSSOnly              // an RSA key that may sign with PSS only
	WrongSize            // fewer bits than MinBits or more than MaxBits
	BigExponent          // a public exponent of more than 31 bits
	Unusual              // an encoding that Go does not read
	Weak                 // numbers that make the key easy to break
	Damaged              // not the content of a key, or not of one key
)

// An InputError says what is wrong with a private key in a request, and what would be
// right. Its text continues a sentence that begins with the name of the field. It repeats
// nothing of the input.
type InputError struct {
	Problem Problem

	text string
}

func (e *InputError) Error() string { return e.text }

func problem(p Problem, format string, args ...any) *InputError {
	return &InputError{p, fmt.Sprintf(format, args...)}
}

func errSize(bits int) *InputError {
	return problem(WrongSize, "has %d bits; an RSA key of %d to %d bits is needed", bits, MinBits, MaxBits)
}

// The errors that need no details.
var (
	errEmpty   = problem(Empty, "is empty; give the content of cm-api-key.pem, as in private_key=@cm-api-key.pem")
	errTooLong = problem(TooLong, "is longer than a PEM of an RSA key of %d bits can be; give the key's file alone, as in private_key=@cm-api-key.pem", MaxBits)
	errNotPEM  = problem(NotPEM, "is not a PEM; give the whole file, from its -----BEGIN line to its -----END line and with its line breaks, as in private_key=@cm-api-key.pem")
	errSeveral = problem(SeveralParts, "has more than one PEM block, or text after it; leave only the private key's block")
	errBase64  = problem(Base64, "is a PEM that was encoded in base64 once more; decode it first: base64 -d encoded.txt > cm-api-key.pem")
	errBare    = problem(Base64, "is the base64 of a key without its -----BEGIN and -----END lines; give the whole file, with both lines")
	errPuTTY   = problem(PuTTY, "is in PuTTY's format; convert it: puttygen key.ppk -O private-openssh -o cm-api-key.pem")
	errJWK     = problem(JWK, "is a JSON Web Key (JWK); give the key as a PEM")
	errOther   = problem(OtherPEM, "is a PEM of another kind; RSA PRIVATE KEY, PRIVATE KEY and OPENSSH PRIVATE KEY are accepted")
	errPublic  = problem(Public, "is a public key or a certificate; give the private key, cm-api-key.pem")
	errNotRSA  = problem(NotRSA, "is not an RSA key; RS256 needs one of %d to %d bits", MinBits, MaxBits)
	errPSS     = problem(PSSOnly, "is an RSA key for PSS signatures only; RS256 needs an ordinary RSA key, as openssl genrsa makes")
	errBigE    = problem(BigExponent, "has a public exponent of more than 31 bits, which Go does not support; use a key with the usual exponent, 65537")
	errUnusual = problem(Unusual, "is encoded in a way that Go does not read; have OpenSSL write it anew: openssl rsa -in cm-api-key.pem -out copy.pem")
	errWeak    = problem(Weak, "is easy to break: its primes are too close to each other, or its private exponent is too small; use another key")
	errDamaged = problem(Damaged, "is damaged: what stands between its BEGIN and END lines is not a key; use the file as you received it")
	errMixed   = problem(Damaged, "is damaged: its parts are inconsistent and do not make an RSA key; use the file as you received it")
)

// A SignError means that a key could not be loaded or did not sign. Detail is the error of
// the library, for a log. The text does not repeat it.
type SignError struct{ Detail string }

func (e *SignError) Error() string {
	return "the signing library failed; the plugin's log has its error"
}

// errEncrypted names the command that removes the passphrase from a key of this form.
func errEncrypted(command string) *InputError {
	return problem(Encrypted, "is encrypted; give a copy without passphrase, by %s, and delete the copy afterwards", command)
}
