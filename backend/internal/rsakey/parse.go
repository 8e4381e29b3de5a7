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

// maxLength is the longest input worth parsing. A PEM of the largest key has some
// 7,000 characters in any of the three forms, and twice that in UTF-16.
const maxLength = 32 << 10

// Parse reads a private key from a PEM in any of the forms in which the vendor's
// cm-api-key.pem arrives: PKCS#1, PKCS#8 or OpenSSH. What tools and copying are
// known to do to a PEM is mended. The error is an [*InputError], or a [*SignError] if the
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
	if err == nil {
		err = k.try()
	}
	switch mistake, fault := new(InputError), new(SignError); {
	case err == nil:
		return k, nil
	case errors.As(err, &mistake), errors.As(err, &fault):
		return nil, err
	// The standard library's error has no type. Two primes too close to each other
	// and a private exponent too small are all that it calls so here.
	case strings.Contains(err.Error(), "too small"):
		return nil, errWeak
	}
	return nil, errMixed
}

// decodePEM returns the one block of the input.
func decodePEM(input string) (*pem.Block, error) {
	if len(input) > maxLength {
		return nil, errTooLong
	}
	text := mend(input)
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

// mend undoes what shells, editors, environment variables and JSON files do to a
// PEM: UTF-16, a byte-order mark, quotes around it, CRLF, indentation, and line
// breaks written as \n.
func mend(input string) string {
	// UTF-16, as PowerShell's ">" writes it. In JSON, which is what Vault's CLI sends,
	// each byte of its byte-order mark has become U+FFFD.
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

// notPEM says what a text without a PEM block is, if that is known.
func notPEM(text string) error {
	raw := strings.Join(strings.Fields(text), "")
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		decoded, err := encoding.DecodeString(raw)
		if err != nil {
			continue
		}
		if strings.Contains(mend(string(decoded)), "-----BEGIN ") {
			return errBase64
		}
		if _, err := unwrap(decoded); !errors.Is(err, errDamaged) {
			return errBare
		}
	}
	return errNotPEM
}

// parseBlock reads the block by its type.
func parseBlock(block *pem.Block) (*rsa.PrivateKey, error) {
	switch {
	case strings.HasSuffix(block.Type, "PUBLIC KEY"), strings.Contains(block.Type, "CERTIFICATE"):
		return nil, errPublic
	// The header is how OpenSSL marks a PKCS#1 key that a passphrase protects: RFC
	// 1421, section 4.6.1.1.
	case block.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
		return nil, errEncrypted("openssl rsa -in cm-api-key.pem -out copy.pem")
	}
	switch block.Type {
	// Some tools write either form under the other's name. OpenSSL reads that, and so
	// does this.
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

// pkcs1 is an RSAPrivateKey: RFC 8017, appendix A.1.2. The numbers that follow from
// the others are computed instead of read, so they may be wrong or missing, as they
// may for OpenSSL.
type pkcs1 struct {
	Version          int
	N, E, D, P, Q    *big.Int
	DP, DQ, QInv     *big.Int
	AdditionalPrimes []struct {
		Prime, Exponent, Coefficient *big.Int
	} `asn1:"optional"`
}

// unwrap reads the DER of a PKCS#1 key, or of a PKCS#8 key with one inside. What
// follows the key is ignored, as by OpenSSL.
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
	// BER, of which DER is the strict form. The library's errors have one type for all.
	for _, loose := range []string{"indefinite length", "leading zeros in length", "minimal"} {
		if strings.Contains(err.Error(), loose) {
			return nil, errUnusual
		}
	}
	return nil, errDamaged
}

// parseDER makes a key of the numbers in the DER. It looks at their sizes first:
// computing with numbers of any size would take any time.
func parseDER(der []byte) (*rsa.PrivateKey, error) {
	read, err := unwrap(der)
	if err != nil {
		return nil, err
	}
	if bits := read.N.BitLen(); bits < MinBits || bits > MaxBits {
		return nil, errSize(bits)
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

// parseOpenSSH reads what ssh-keygen writes by default.
func parseOpenSSH(block []byte) (*rsa.PrivateKey, error) {
	parsed, err := ssh.ParseRawPrivateKey(block)
	if encrypted := new(ssh.PassphraseMissingError); errors.As(err, &encrypted) {
		return nil, errEncrypted("ssh-keygen -p -N '' -f copy.pem")
	}
	if err != nil {
		return nil, openSSHProblem(err.Error())
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errNotRSA
	}
	return key, nil
}

// openSSHProblem goes by the text of the library's error, which has no types for
// them.
func openSSHProblem(text string) error {
	switch {
	case strings.Contains(text, "exponent too large"):
		return errBigE
	case strings.Contains(text, "modulus too large"), strings.Contains(text, "prime too large"):
		return problem(WrongSize, "has more than %d bits; an RSA key of %d to %d bits is needed", MaxBits, MinBits, MaxBits)
	case strings.Contains(text, "unhandled key type"):
		return errNotRSA
	case strings.Contains(text, "too small"):
		return errWeak
	}
	return errMixed
}
