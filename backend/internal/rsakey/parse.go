// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package rsakey

import (
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"

	"golang.org/x/crypto/ssh"
)

// maxLength is the longest input that is parsed. A PEM of the largest key has about 7,000
// characters in each of the three forms, and twice as many bytes in UTF-16.
const maxLength = 32 << 10

// Parse reads a private key from a PEM in one of the forms that the vendor's
// cm-api-key.pem may have: PKCS#1, PKCS#8 or OpenSSH. It repairs what tools and copying
// often do to a PEM. The error is an [*InputError], or a [*SignError] if the
// key seems to be right and yet does not sign.
func Parse(input string) (*PrivateKey, error) {
	block, err := decodePEM(input)
	if err != nil {
		return nil, err
	}
	key, err := parseBlock(block)
	if err != nil {
		return nil, err
	}
	k, err := newPrivateKey(key)
	switch mistake, fault := new(InputError), new(SignError); {
	case err == nil:
		return k, nil
	case errors.As(err, &mistake), errors.As(err, &fault):
		return nil, err
	// The standard library's error has no type. It says this of two primes that are
	// too close to each other, and of a private exponent that is too small.
	case strings.Contains(err.Error(), "too small"):
		return nil, errWeak
	}
	return nil, errMixed
}

// decodePEM returns the only block of the input.
func decodePEM(input string) (*pem.Block, error) {
	if len(input) > maxLength {
		return nil, errTooLong
	}
	text := repair(input)
	block, rest := pem.Decode([]byte(text))
	switch {
	case text == "":
		return nil, errEmpty
	case strings.HasPrefix(text, "ssh-"), strings.HasPrefix(text, "---- BEGIN SSH2 PUBLIC KEY"):
		return nil, errPublic
	case strings.HasPrefix(text, "PuTTY-User-Key-File-"):
		return nil, errPuTTY
	case strings.HasPrefix(text, "{") && strings.Contains(text, `"kty"`):
		return nil, errJWK
	case block == nil:
		return nil, notPEM(text)
	case strings.TrimSpace(string(rest)) != "", strings.Count(text, "-----BEGIN ") != 1:
		return nil, errSeveral
	}
	return block, nil
}

// repair undoes what shells, editors, environment variables and JSON files do to a PEM:
// UTF-16, a byte-order mark, quotes around it, CRLF, indentation, and line breaks that are
// written as \n.
func repair(input string) string {
	// PowerShell's ">" writes UTF-16. Vault's CLI sends JSON, in which each byte of the
	// byte-order mark has become U+FFFD.
	if strings.Contains(input, "\x00-\x00") {
		input = strings.NewReplacer("\x00", "", "\ufffd", "", "\xff\xfe", "", "\xfe\xff", "").Replace(input)
	}
	input = strings.TrimSpace(strings.TrimPrefix(input, "\ufeff"))
	for _, quote := range []string{`"`, `'`} {
		if inner, ok := strings.CutPrefix(input, quote); ok && strings.HasSuffix(inner, quote) {
			input = strings.TrimSuffix(inner, quote)
			break
		}
	}
	input = strings.NewReplacer("\r\n", "\n", "\r", "\n", `\r`, "", `\n`, "\n").Replace(input)
	lines := strings.Split(input, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

// notPEM returns the error for a text without a PEM block.
func notPEM(text string) error {
	raw := strings.Join(strings.Fields(text), "")
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		decoded, err := encoding.DecodeString(raw)
		if err != nil {
			continue
		}
		if strings.Contains(repair(string(decoded)), "-----BEGIN ") {
			return errBase64
		}
		if _, err := unwrap(decoded); !errors.Is(err, errDamaged) {
			return errBare
		}
	}
	return errNotPEM
}

// parseBlock parses a block according to its type.
func parseBlock(block *pem.Block) (*rsa.PrivateKey, error) {
	switch {
	case strings.HasSuffix(block.Type, "PUBLIC KEY"), strings.Contains(block.Type, "CERTIFICATE"):
		return nil, errPublic
	// OpenSSL marks an encrypted PKCS#1 key with this header: RFC 1421, section
	// 4.6.1.1.
	case block.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
		return nil, errEncrypted("openssl rsa -in cm-api-key.pem -out copy.pem")
	}
	switch block.Type {
	// Some tools write one form under the name of the other. OpenSSL accepts that too.
	case "RSA PRIVATE KEY", "PRIVATE KEY":
		return parseDER(block.Bytes)
	case "OPENSSH PRIVATE KEY":
		return parseOpenSSH(pem.EncodeToMemory(block))
	case "EC PRIVATE KEY", "DSA PRIVATE KEY":
		return nil, errNotRSA
	}
	return nil, errOther
}

// The algorithms of RFC 8017, appendix A.2: rsaEncryption and id-RSASSA-PSS.
var (
	oidRSA = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidPSS = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
)

// pkcs1 is an RSAPrivateKey: RFC 8017, appendix A.1.2. DP, DQ and QInv follow from the
// other numbers and are computed again. So they may be wrong, which OpenSSL allows too.
type pkcs1 struct {
	Version          int
	N, E, D, P, Q    *big.Int
	DP, DQ, QInv     *big.Int
	AdditionalPrimes []struct {
		Prime, Exponent, Coefficient *big.Int
	} `asn1:"optional"`
}

// unwrap reads the DER of a PKCS#1 key, or of a PKCS#8 key that contains one. It ignores
// bytes after the key, as OpenSSL does.
func unwrap(der []byte) (*pkcs1, error) {
	var info struct { // RFC 5208, section 5
		Version    int
		Algorithm  pkix.AlgorithmIdentifier
		PrivateKey []byte
	}
	if _, err := asn1.Unmarshal(der, &info); err == nil {
		switch {
		case info.Algorithm.Algorithm.Equal(oidPSS):
			return nil, errPSS
		case !info.Algorithm.Algorithm.Equal(oidRSA):
			return nil, errNotRSA
		}
		der = info.PrivateKey
	}
	key := new(pkcs1)
	_, err := asn1.Unmarshal(der, key)
	if err == nil {
		return key, nil
	}
	if _, err := x509.ParseECPrivateKey(der); err == nil {
		return nil, errNotRSA
	}
	if _, err := x509.ParsePKIXPublicKey(der); err == nil {
		return nil, errPublic
	}
	// These errors mean BER, of which DER is the strict form. They all have one type.
	for _, loose := range []string{"indefinite length", "leading zeros in length", "minimal"} {
		if strings.Contains(err.Error(), loose) {
			return nil, errUnusual
		}
	}
	return nil, errDamaged
}

// parseDER makes a key from the numbers in the DER, and computes nothing with them: newPrivateKey
// first checks the size, on which the time depends.
func parseDER(der []byte) (*rsa.PrivateKey, error) {
	read, err := unwrap(der)
	if err != nil {
		return nil, err
	}
	if read.E.BitLen() > 31 {
		return nil, errBigE
	}
	numbers := []*big.Int{read.E, read.D, read.P, read.Q}
	for _, additional := range read.AdditionalPrimes {
		numbers = append(numbers, additional.Prime)
	}
	for _, number := range numbers {
		if number.Sign() <= 0 || number.Cmp(read.N) >= 0 {
			return nil, errMixed
		}
	}
	return &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: read.N, E: int(read.E.Int64())},
		D:         read.D,
		Primes:    append([]*big.Int{}, numbers[2:]...),
	}, nil
}

// parseOpenSSH reads the format that ssh-keygen writes by default.
func parseOpenSSH(block []byte) (*rsa.PrivateKey, error) {
	parsed, err := ssh.ParseRawPrivateKey(block)
	if encrypted := new(ssh.PassphraseMissingError); errors.As(err, &encrypted) {
		return nil, errEncrypted("ssh-keygen -p -N '' -f copy.pem")
	}
	if err != nil {
		return nil, openSSHError(err.Error())
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errNotRSA
	}
	return key, nil
}

// openSSHError looks at the text of the library's error, because the error has no type.
func openSSHError(text string) error {
	switch {
	case strings.Contains(text, "exponent too large"):
		return errBigE
	case strings.Contains(text, "modulus too large"), strings.Contains(text, "prime too large"):
		return inputError("has more than %d bits; an RSA key of %d to %d bits is needed", MaxBits, MinBits, MaxBits)
	case strings.Contains(text, "unhandled key type"):
		return errNotRSA
	case strings.Contains(text, "too small"):
		return errWeak
	}
	return errMixed
}
