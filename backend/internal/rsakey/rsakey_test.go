// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package rsakey

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

func readFile(t testing.TB, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return string(raw)
}

// requireSigns makes sure that a key signs what the standard library verifies.
func requireSigns(t testing.TB, k *PrivateKey, name string) {
	t.Helper()
	message := []byte("header.claims")
	signer, err := k.Signer()
	require.NoError(t, err, name)
	signature, err := signer.Sign(message)
	require.NoError(t, err, name)
	block, _ := pem.Decode([]byte(k.Public().PEM))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	require.NoError(t, err, name)
	sum := sha256.Sum256(message)
	require.NoError(t, rsa.VerifyPKCS1v15(public.(*rsa.PublicKey), crypto.SHA256, sum[:], signature), name)
	require.NoError(t, k.Public().Verify(message, signature), name)
	signature[7] ^= 1
	require.Error(t, k.Public().Verify(message, signature), name)
}

// The files are what real tools write; testdata/README.md says which.
func TestAcceptedFiles(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir("testdata/accepted")
	require.NoError(t, err)
	bits := map[string]int{"rsa8192.pem": 8192}
	for _, file := range files {
		k, err := Parse(readFile(t, "accepted/"+file.Name()))
		require.NoError(t, err, file.Name())
		requireSigns(t, k, file.Name())
		want := bits[file.Name()]
		if want == 0 {
			want = 2048
		}
		require.Equal(t, want, k.Public().Bits, file.Name())

		der, err := k.Encode()
		require.NoError(t, err, file.Name())
		decoded, err := Decode(der)
		require.NoError(t, err, file.Name())
		requireSigns(t, decoded, file.Name())
		require.True(t, k.Public().Equal(decoded.Public()), file.Name())
	}
}

// inUTF16 is a text as PowerShell's ">" writes it, in the byte order given.
func inUTF16(text string, big bool) []byte {
	raw := []byte{0xff, 0xfe}
	if big {
		raw = []byte{0xfe, 0xff}
	}
	for _, r := range []byte(strings.ReplaceAll(text, "\n", "\r\n")) {
		if big {
			raw = append(raw, 0, r)
		} else {
			raw = append(raw, r, 0)
		}
	}
	return raw
}

// byJSON is a file as Vault's CLI sends it and the plugin receives it.
func byJSON(t testing.TB, raw []byte) string {
	t.Helper()
	sent, err := json.Marshal(string(raw))
	require.NoError(t, err)
	var received string
	require.NoError(t, json.Unmarshal(sent, &received))
	return received
}

// repairable returns the forms that copying and tools often give a PEM.
func repairable(t testing.TB, plain string) map[string]string {
	t.Helper()
	oneLine := strings.ReplaceAll(strings.TrimSpace(plain), "\n", `\n`)
	return map[string]string{
		"CRLF":                    strings.ReplaceAll(plain, "\n", "\r\n"),
		"CR":                      strings.ReplaceAll(plain, "\n", "\r"),
		"byte-order mark":         "\ufeff" + plain,
		"indented":                "  " + strings.ReplaceAll(plain, "\n", "\n\t  "),
		`literal \n`:              strings.ReplaceAll(plain, "\n", `\n`),
		`literal \r\n`:            strings.ReplaceAll(plain, "\n", `\r\n`),
		"no last line end":        strings.TrimSpace(plain),
		"blank lines around":      "\n\n" + plain + "\n \n",
		"double quotes":           `"` + plain + `"`,
		"single quotes":           "'" + strings.TrimSpace(plain) + "'\n",
		"a JSON string":           `"` + oneLine + `"`,
		"UTF-16":                  byJSON(t, inUTF16(plain, false)),
		"UTF-16, big endian":      byJSON(t, inUTF16(plain, true)),
		"UTF-16, not by JSON":     string(inUTF16(plain, false)),
		"big endian, not by JSON": string(inUTF16(plain, true)),
		"UTF-16 without a mark":   byJSON(t, inUTF16(plain, false)[2:]),
		"UTF-16 in quotes":        byJSON(t, inUTF16(`"`+plain+`"`, false)),
		"a text before it":        "this is not a \"kty\":\n" + plain,
		"as long as can be":       plain + strings.Repeat("\n", maxLength-len(plain)),
		"all but UTF-16 at once":  "\ufeff '" + strings.ReplaceAll(strings.TrimSpace(plain), "\n", "  \r\n  ") + `\n'`,
	}
}

func TestRepairedForms(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"pkcs1.pem", "pkcs8.pem", "openssh.pem", "pkcs8-named-pkcs1.pem"} {
		plain := readFile(t, "accepted/"+file)
		want, err := Parse(plain)
		require.NoError(t, err)
		for name, input := range repairable(t, plain) {
			k, err := Parse(input)
			require.NoError(t, err, "%s: %s", file, name)
			require.True(t, k.Public().Equal(want.Public()), "%s: %s", file, name)
		}
	}
}

// What a refusal says of each file: of its kind, and what would be right.
var refusedFiles = map[string]struct {
	problem Problem
	text    string
}{
	"base64-of-der.txt":          {Base64, "without its -----BEGIN and -----END lines"},
	"base64-of-pem-one-line.txt": {Base64, "decode it first: base64 -d"},
	"base64-of-pem.txt":          {Base64, "decode it first: base64 -d"},
	"bits-1024.pem":              {WrongSize, "has 1024 bits; an RSA key of 2048 to 8192 bits is needed"},
	"bits-2047-openssh.pem":      {WrongSize, "has 2047 bits"},
	"bits-2047.pem":              {WrongSize, "has 2047 bits"},
	"bits-512.pem":               {WrongSize, "has 512 bits"},
	"bits-8200.pem":              {WrongSize, "has 8200 bits"},
	"certificate.pem":            {Public, "is a public key or a certificate; give the private key"},
	"close-primes.pem":           {Weak, "is easy to break"},
	"composite-factor.pem":       {Damaged, "do not make an RSA key"},
	"dsa.pem":                    {NotRSA, "is not an RSA key"},
	"ec-pkcs8.pem":               {NotRSA, "is not an RSA key"},
	"ec-sec1.pem":                {NotRSA, "is not an RSA key"},
	"ed25519-openssh.pem":        {NotRSA, "is not an RSA key"},
	"ed25519-pkcs8.pem":          {NotRSA, "is not an RSA key"},
	"encrypted-openssh.pem":      {Encrypted, "is encrypted; give a copy without passphrase, by ssh-keygen -p"},
	"encrypted-pkcs1.pem":        {Encrypted, "is encrypted; give a copy without passphrase, by openssl rsa -in"},
	"encrypted-pkcs8.pem":        {Encrypted, "is encrypted; give a copy without passphrase, by openssl rsa -in"},
	"exponent-33-bits.pem":       {BigExponent, "has a public exponent of more than 31 bits, which Go does not support"},
	"inconsistent.pem":           {Damaged, "is damaged: its parts are inconsistent"},
	"no-primes.pem":              {Damaged, "is damaged: its parts are inconsistent"},
	"pss.pem":                    {PSSOnly, "is an RSA key for PSS signatures only"},
	"public-openssh.txt":         {Public, "is a public key or a certificate"},
	"public-pkcs1.pem":           {Public, "is a public key or a certificate"},
	"public-spki.pem":            {Public, "is a public key or a certificate"},
	"public-ssh2.txt":            {Public, "is a public key or a certificate"},
	"putty-3.ppk":                {PuTTY, "is in PuTTY's format; convert it: puttygen"},
	"trusted-certificate.pem":    {Public, "is a public key or a certificate"},
}

func TestRefusedFiles(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir("testdata/refused")
	require.NoError(t, err)
	require.Len(t, files, len(refusedFiles))
	for _, file := range files {
		input := readFile(t, "refused/"+file.Name())
		want := refusedFiles[file.Name()]
		requireRefused(t, file.Name(), input, want.problem, want.text)
		if want.problem == Base64 {
			continue // in quotes it is nothing that anybody has
		}
		requireRefused(t, file.Name()+" in UTF-16", byJSON(t, inUTF16(input, false)), want.problem, want.text)
	}
}

func requireRefused(t testing.TB, name, input string, problem Problem, text string) {
	t.Helper()
	_, err := Parse(input)
	mistake := new(InputError)
	require.ErrorAs(t, err, &mistake, name)
	require.Equal(t, problem, mistake.Problem, "%s: %s", name, mistake)
	require.Contains(t, mistake.Error(), text, name)
	requireNothingOf(t, input, mistake.Error())
}

// requireNothingOf fails if a message repeats any eight characters of the input that
// are not the messages' own words.
func requireNothingOf(t testing.TB, input, message string) {
	t.Helper()
	for _, own := range []string{"-----BEGIN", "-----END", "PRIVATE KEY", "PUBLIC KEY", "private_key", "cm-api-key.pem", "OPENSSH", "base64", "-openssh"} {
		message, input = strings.ReplaceAll(message, own, ""), strings.ReplaceAll(input, own, "")
	}
	for i := 0; i+8 <= len(input); i++ {
		require.NotContains(t, message, input[i:i+8])
	}
}

func TestRefusedTexts(t *testing.T) {
	t.Parallel()
	pkcs1 := readFile(t, "accepted/pkcs1.pem")
	certificate := readFile(t, "refused/certificate.pem")
	block, _ := pem.Decode([]byte(pkcs1))
	pemOf := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	// The same numbers in BER: of indefinite length, and with a length in more bytes
	// than it needs.
	indefinite := append([]byte{0x30, 0x80}, append(block.Bytes[4:], 0, 0)...)
	long := append([]byte{0x30, 0x83, 0x00}, block.Bytes[2:]...)
	// And with a version of two bytes where one is enough.
	padded := append([]byte{0x30, 0x82, block.Bytes[2], block.Bytes[3] + 1, 2, 2, 0, 0}, block.Bytes[7:]...)
	for name, test := range map[string]struct {
		input   string
		problem Problem
		text    string
	}{
		"empty":                  {"", Empty, "is empty"},
		"white space":            {" \r\n\t", Empty, "is empty"},
		"an empty pair":          {`""`, Empty, "is empty"},
		"only line ends":         {`\n\n`, Empty, "is empty"},
		"one quote":              {`"` + pkcs1, NotPEM, "is not a PEM"},
		"a text on JWKs":         {`with "kty" and so on`, NotPEM, "is not a PEM"},
		"one byte too long":      {pkcs1 + strings.Repeat("\n", maxLength+1-len(pkcs1)), TooLong, "give the key's file alone"},
		"not PEM":                {"hunter2-not-a-pem", NotPEM, "is not a PEM"},
		"a path":                 {"/etc/keys/cm-api-key.pem", NotPEM, "is not a PEM"},
		"the path alone":         {"cm-api-key.pem", NotPEM, "as in private_key=@cm-api-key.pem"},
		"cut short":              {pkcs1[:len(pkcs1)/2], NotPEM, "to its -----END line"},
		"in one line":            {strings.ReplaceAll(pkcs1, "\n", " "), NotPEM, "with its line breaks"},
		"two blocks":             {pkcs1 + pkcs1, SeveralParts, "has more than one PEM block, or text after it; leave only"},
		"text after it":          {pkcs1 + "trailing", SeveralParts, "one PEM block"},
		"a certificate before":   {certificate + pkcs1, SeveralParts, "one PEM block"},
		"a broken one before":    {"-----BEGIN X-----\n!\n" + pkcs1, SeveralParts, "one PEM block"},
		"damaged DER":            {pemOf("RSA PRIVATE KEY", block.Bytes[:200]), Damaged, "is damaged"},
		"damaged PKCS#8":         {pemOf("PRIVATE KEY", []byte{0x30, 0x03, 2, 1, 0}), Damaged, "is damaged"},
		"damaged OpenSSH":        {pemOf("OPENSSH PRIVATE KEY", block.Bytes), Damaged, "is damaged"},
		"BER":                    {pemOf("RSA PRIVATE KEY", indefinite), Unusual, "have OpenSSL write it anew"},
		"BER, long length":       {pemOf("RSA PRIVATE KEY", long), Unusual, "have OpenSSL write it anew"},
		"BER, long number":       {pemOf("RSA PRIVATE KEY", padded), Unusual, "have OpenSSL write it anew"},
		"DSA":                    {pemOf("DSA PRIVATE KEY", block.Bytes), NotRSA, "is not an RSA key"},
		"public, as private":     {pemOf("PRIVATE KEY", publicDER(t, pkcs1)), Public, "is a public key"},
		"EC, as PKCS#8":          {strings.ReplaceAll(readFile(t, "refused/ec-sec1.pem"), "EC PRIVATE", "PRIVATE"), NotRSA, "is not an RSA key"},
		"another kind":           {pemOf("PGP PRIVATE KEY BLOCK", block.Bytes), OtherPEM, "another kind"},
		"a JWK":                  {`{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AQAB"}`, JWK, "is a JSON Web Key (JWK)"},
		"a set of JWKs":          {"{\n \"keys\": [{\"kty\": \"RSA\"}]}", JWK, "is a JSON Web Key (JWK)"},
		"endless":                {strings.Repeat("A", maxLength+1), TooLong, "give the key's file alone"},
		"a modulus beyond sense": {pemOf("RSA PRIVATE KEY", hugeKey(t)), WrongSize, "has 160000 bits"},
	} {
		requireRefused(t, name, test.input, test.problem, test.text)
	}
}

// Base64 is known in each of its four forms, whatever it holds and wherever its lines
// break.
func TestBase64IsNamed(t *testing.T) {
	t.Parallel()
	plain := readFile(t, "accepted/pkcs1.pem")
	plain += strings.Repeat("\n", 3-(len(plain)+1)%3) // so that there is padding
	block, _ := pem.Decode([]byte(readFile(t, "accepted/pkcs8.pem")))
	ec, _ := pem.Decode([]byte(readFile(t, "refused/ec-sec1.pem")))
	for name, encoding := range map[string]*base64.Encoding{
		"standard": base64.StdEncoding, "standard, raw": base64.RawStdEncoding, "URL": base64.URLEncoding, "URL, raw": base64.RawURLEncoding,
	} {
		requireRefused(t, name, encoding.EncodeToString([]byte(plain)), Base64, "decode it first")
		requireRefused(t, name, encoding.EncodeToString(inUTF16(plain, false)), Base64, "decode it first")
		// Bytes of which all four forms differ; what follows a key is ignored.
		der := append(append([]byte{}, block.Bytes...), bytes.Repeat([]byte{0xff}, 3)...)
		der = append(der, make([]byte, 1+(3-len(der)%3)%3)...)
		requireRefused(t, name, encoding.EncodeToString(der), Base64, "without its -----BEGIN")
	}
	requireRefused(t, "of another key", base64.StdEncoding.EncodeToString(ec.Bytes), Base64, "without its -----BEGIN")
	spaced := strings.Join(strings.SplitAfter(base64.StdEncoding.EncodeToString([]byte(plain)), "M"), " ")
	requireRefused(t, "with blanks", spaced, Base64, "decode it first")
}

// keyWith is a key of the primes of an accepted file, with the public exponent given.
func keyWith(t testing.TB, exponent int64) *rsa.PrivateKey {
	t.Helper()
	block, _ := pem.Decode([]byte(readFile(t, "accepted/pkcs1.pem")))
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	require.NoError(t, err)
	one, totient := big.NewInt(1), big.NewInt(1)
	for _, p := range key.Primes {
		totient.Mul(totient, new(big.Int).Sub(p, one))
	}
	d := new(big.Int).ModInverse(big.NewInt(exponent), totient)
	require.NotNil(t, d)
	return &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: key.N, E: int(exponent)}, D: d, Primes: key.Primes}
}

// The largest public exponent that Go supports has 31 bits.
func TestPublicExponents(t *testing.T) {
	t.Parallel()
	inPKCS1 := func(exponent int64) string {
		key, one := keyWith(t, exponent), big.NewInt(1)
		der, err := asn1.Marshal(pkcs1{N: key.N, E: big.NewInt(exponent), D: key.D, P: key.Primes[0], Q: key.Primes[1], DP: one, DQ: one, QInv: one})
		require.NoError(t, err)
		return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: der}))
	}
	k, err := Parse(inPKCS1(1<<31 - 1))
	require.NoError(t, err)
	requireSigns(t, k, "31 bits")
	requireRefused(t, "32 bits", inPKCS1(1<<31+11), BigExponent, "of more than 31 bits")
}

// What OpenSSH's form holds is refused for the same reasons as in the other forms.
func TestRefusedOpenSSH(t *testing.T) {
	t.Parallel()
	inOpenSSH := func(key *rsa.PrivateKey) string {
		key.Precomputed.Qinv = big.NewInt(1) // not read
		block, err := ssh.MarshalPrivateKey(key, "")
		require.NoError(t, err)
		return string(pem.EncodeToMemory(block))
	}
	requireRefused(t, "exponent", inOpenSSH(keyWith(t, 1<<31+11)), BigExponent, "of more than 31 bits")

	one := big.NewInt(1)
	huge := new(big.Int).SetBit(one, 17_000-1, 1)
	requireRefused(t, "modulus", inOpenSSH(&rsa.PrivateKey{PublicKey: rsa.PublicKey{N: huge, E: 3}, D: one, Primes: []*big.Int{one, one}}),
		WrongSize, "has more than 8192 bits")

	block, _ := pem.Decode([]byte(readFile(t, "refused/close-primes.pem")))
	weak, err := unwrap(block.Bytes)
	require.NoError(t, err)
	requireRefused(t, "weak", inOpenSSH(&rsa.PrivateKey{PublicKey: rsa.PublicKey{N: weak.N, E: int(weak.E.Int64())}, D: weak.D, Primes: []*big.Int{weak.P, weak.Q}}),
		Weak, "is easy to break")

	block, _ = pem.Decode([]byte(readFile(t, "refused/ed25519-openssh.pem")))
	block.Bytes = bytes.ReplaceAll(block.Bytes, []byte("ssh-ed25519"), []byte("ssh-unknown"))
	requireRefused(t, "type", string(pem.EncodeToMemory(block)), NotRSA, "is not an RSA key")
}

func publicDER(t testing.TB, private string) []byte {
	t.Helper()
	k, err := Parse(private)
	require.NoError(t, err)
	block, _ := pem.Decode([]byte(k.Public().PEM))
	return block.Bytes
}

// hugeKey is the DER of numbers with which no computation would ever end.
func hugeKey(t testing.TB) []byte {
	t.Helper()
	one := big.NewInt(1)
	huge := new(big.Int).SetBit(one, 160_000-1, 1)
	der, err := asn1.Marshal(pkcs1{N: huge, E: big.NewInt(3), D: one, P: one, Q: one, DP: one, DQ: one, QInv: one})
	require.NoError(t, err)
	return der
}

// OpenSSL ignores what follows the key in its block.
func TestTrailingBytesAreIgnored(t *testing.T) {
	t.Parallel()
	block, _ := pem.Decode([]byte(readFile(t, "accepted/pkcs1.pem")))
	k, err := Parse(string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: append(block.Bytes, 0, 0, 0)})))
	require.NoError(t, err)
	requireSigns(t, k, "trailing bytes")
}

func TestGenerate(t *testing.T) {
	t.Parallel()
	a, err := Generate(t.Context(), 2048)
	require.NoError(t, err)
	requireSigns(t, a, "generated")
	require.Equal(t, 2048, a.Public().Bits)
	b, err := Generate(t.Context(), 2048)
	require.NoError(t, err)
	require.False(t, a.Public().Equal(b.Public()))
	// What the standard library thinks of it when it reads it again.
	der, err := a.Encode()
	require.NoError(t, err)
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	require.NoError(t, err)
	require.NoError(t, parsed.(*rsa.PrivateKey).Validate())
	require.Equal(t, 65537, parsed.(*rsa.PrivateKey).E)
	for _, p := range parsed.(*rsa.PrivateKey).Primes {
		require.Equal(t, 1024, p.BitLen())
		require.True(t, p.ProbablyPrime(64))
	}
}

// The product of two primes has twice their bits, because both are at least three
// quarters of what their bits can hold.
func TestPrimesAreLarge(t *testing.T) {
	t.Parallel()
	for range 30 {
		p, err := prime(t.Context(), 64)
		require.NoError(t, err)
		require.Equal(t, 64, p.BitLen())
		require.EqualValues(t, 1, p.Bit(62))
		require.True(t, p.ProbablyPrime(64))
	}
}

// A generation ends with its context, however long it would take: these bits take
// minutes.
func TestGenerateEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := Generate(ctx, 16384)
		ended <- err
	}()
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"refused/ec-pkcs8.pem":  "not an RSA key",
		"refused/bits-1024.pem": "has 1024 bits",
		"refused/bits-8200.pem": "has 8200 bits",
	} {
		block, _ := pem.Decode([]byte(readFile(t, name)))
		der := block.Bytes
		if block.Type == "RSA PRIVATE KEY" {
			key, err := x509.ParsePKCS1PrivateKey(der)
			require.NoError(t, err)
			der, err = x509.MarshalPKCS8PrivateKey(key)
			require.NoError(t, err)
		}
		_, err := Decode(der)
		require.ErrorContains(t, err, want, name)
	}
	_, err := Decode([]byte("no key"))
	require.ErrorContains(t, err, "can't be parsed")
}

// A key is refused with a message that repeats nothing of it, or it is one that signs
// and that its stored form gives back.
func FuzzParse(f *testing.F) {
	for _, folder := range []string{"accepted", "refused"} {
		files, err := os.ReadDir("testdata/" + folder)
		require.NoError(f, err)
		for _, file := range files {
			if strings.Contains(file.Name(), "8") {
				continue // keys of 8192 bits would take all the time
			}
			f.Add(readFile(f, folder+"/"+file.Name()))
		}
	}
	plain := readFile(f, "accepted/pkcs1.pem")
	for _, input := range repairable(f, plain) {
		f.Add(input)
	}
	f.Add(plain[:len(plain)/2])
	f.Add(plain + plain)
	f.Add(base64.URLEncoding.EncodeToString([]byte(plain)))
	f.Add("")
	f.Fuzz(func(t *testing.T, input string) {
		k, err := Parse(input)
		if err != nil {
			require.ErrorAs(t, err, new(*InputError))
			message := strings.ReplaceAll(err.Error(), "private_key=@cm-api-key.pem", "")
			for i := 0; i+16 <= len(input); i++ {
				if part := input[i : i+16]; !strings.Contains(part, " ") {
					require.NotContains(t, message, part)
				}
			}
			return
		}
		require.GreaterOrEqual(t, k.Public().Bits, MinBits)
		require.LessOrEqual(t, k.Public().Bits, MaxBits)
		requireSigns(t, k, "accepted")
		der, err := k.Encode()
		require.NoError(t, err)
		decoded, err := Decode(der)
		require.NoError(t, err)
		require.True(t, k.Public().Equal(decoded.Public()))
	})
}
