// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package rsakey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
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

// requireSigns makes sure that a key of an allowed size signs what the standard library
// verifies, and that its stored forms give it back.
func requireSigns(t testing.TB, k *PrivateKey, name string) {
	t.Helper()
	message := []byte("header.claims")
	signature, err := k.Sign(message)
	require.NoError(t, err, name)
	block, _ := pem.Decode([]byte(k.Public().PEM))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	require.NoError(t, err, name)
	sum := sha256.Sum256(message)
	require.NoError(t, rsa.VerifyPKCS1v15(public.(*rsa.PublicKey), crypto.SHA256, sum[:], signature), name)
	require.NoError(t, k.Public().Verify(message, signature), name)
	require.GreaterOrEqual(t, k.Public().Bits, MinBits, name)
	require.LessOrEqual(t, k.Public().Bits, MaxBits, name)

	der, err := k.Encode()
	require.NoError(t, err, name)
	decoded, err := Decode(der)
	require.NoError(t, err, name)
	require.True(t, k.Public().Equal(decoded.Public()), name)
	again, err := decoded.Sign(message)
	require.NoError(t, err, name)
	require.Equal(t, signature, again, name)
	parsed, err := ParsePublic(k.Public().DER)
	require.NoError(t, err, name)
	require.Equal(t, k.Public(), parsed, name)

	signature[7] ^= 1
	require.Error(t, k.Public().Verify(message, signature), name)
}

// The files are what real tools write; testdata/README.md says which.
func TestAcceptedFiles(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir("testdata/accepted")
	require.NoError(t, err)
	for _, file := range files {
		k, err := Parse(readFile(t, "accepted/"+file.Name()))
		require.NoError(t, err, file.Name())
		requireSigns(t, k, file.Name())
		want := 2048
		if file.Name() == "rsa8192.pem" {
			want = 8192
		}
		require.Equal(t, want, k.Public().Bits, file.Name())
	}
}

// inUTF16 is a text as PowerShell's ">" writes it, in the byte order given.
func inUTF16(text string, order binary.AppendByteOrder) string {
	raw := order.AppendUint16(nil, 0xfeff)
	for _, char := range strings.ReplaceAll(text, "\n", "\r\n") {
		raw = order.AppendUint16(raw, uint16(char)) //nolint:gosec // G115: it is ASCII
	}
	return string(raw)
}

// byJSON is a file as Vault's CLI sends it and the plugin receives it: each byte that is not
// UTF-8 has become U+FFFD.
func byJSON(file string) string { return string([]rune(file)) }

// repairable returns the forms that copying and tools often give a PEM.
func repairable(plain string) map[string]string {
	oneLine := strings.ReplaceAll(strings.TrimSpace(plain), "\n", `\n`)
	little, big := inUTF16(plain, binary.LittleEndian), inUTF16(plain, binary.BigEndian)
	return map[string]string{
		"CRLF":                    strings.ReplaceAll(plain, "\n", "\r\n"),
		"CR":                      strings.ReplaceAll(plain, "\n", "\r"),
		"byte-order mark":         "\ufeff" + plain,
		"indented":                "  " + strings.ReplaceAll(plain, "\n", "\n\t  "),
		`literal \n`:              strings.ReplaceAll(plain, "\n", `\n`),
		`literal \r\n`:            strings.ReplaceAll(plain, "\n", `\r\n`),
		"blank lines around":      "\n\n" + plain + "\n \n",
		"single quotes":           "'" + strings.TrimSpace(plain) + "'\n",
		"a JSON string":           `"` + oneLine + `"`,
		"UTF-16":                  byJSON(little),
		"UTF-16, big endian":      byJSON(big),
		"UTF-16, not by JSON":     little,
		"big endian, not by JSON": big,
		"UTF-16 without a mark":   byJSON(little[2:]),
		"UTF-16 in quotes":        byJSON(inUTF16(`"`+plain+`"`, binary.LittleEndian)),
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
		for name, input := range repairable(plain) {
			k, err := Parse(input)
			require.NoError(t, err, "%s: %s", file, name)
			require.True(t, k.Public().Equal(want.Public()), "%s: %s", file, name)
		}
	}
}

// What a refusal says of each file: of its kind, and what would be right.
var refusedFiles = map[string]string{
	"base64-of-der.txt":          "without its -----BEGIN and -----END lines",
	"base64-of-pem-one-line.txt": "decode it first: base64 -d",
	"base64-of-pem.txt":          "decode it first: base64 -d",
	"bits-1024.pem":              "has 1024 bits; an RSA key of 2048 to 8192 bits is needed",
	"bits-2047-openssh.pem":      "has 2047 bits",
	"bits-2047.pem":              "has 2047 bits",
	"bits-512.pem":               "has 512 bits",
	"bits-8200.pem":              "has 8200 bits",
	"certificate.pem":            "is a public key or a certificate; give the private key",
	"close-primes.pem":           "is easy to break",
	"composite-factor.pem":       "do not make an RSA key",
	"dsa.pem":                    "is not an RSA key",
	"ec-pkcs8.pem":               "is not an RSA key",
	"ec-sec1.pem":                "is not an RSA key",
	"ed25519-openssh.pem":        "is not an RSA key",
	"ed25519-pkcs8.pem":          "is not an RSA key",
	"encrypted-openssh.pem":      "is encrypted; give a copy without passphrase, by ssh-keygen -p",
	"encrypted-pkcs1.pem":        "is encrypted; give a copy without passphrase, by openssl rsa -in",
	"encrypted-pkcs8.pem":        "is encrypted; give a copy without passphrase, by openssl rsa -in",
	"exponent-33-bits.pem":       "has a public exponent of more than 31 bits, which Go does not support",
	"inconsistent.pem":           "is damaged: its parts are inconsistent",
	"no-primes.pem":              "is damaged: its parts are inconsistent",
	"pss.pem":                    "is an RSA key for PSS signatures only",
	"public-openssh.txt":         "is a public key or a certificate",
	"public-pkcs1.pem":           "is a public key or a certificate",
	"public-spki.pem":            "is a public key or a certificate",
	"public-ssh2.txt":            "is a public key or a certificate",
	"putty-3.ppk":                "is in PuTTY's format; convert it: puttygen",
	"trusted-certificate.pem":    "is a public key or a certificate",
}

func TestRefusedFiles(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir("testdata/refused")
	require.NoError(t, err)
	require.Len(t, files, len(refusedFiles))
	for _, file := range files {
		input := readFile(t, "refused/"+file.Name())
		want := refusedFiles[file.Name()]
		requireRefused(t, file.Name(), input, want)
		if strings.HasPrefix(file.Name(), "base64") {
			continue // nobody has that in UTF-16
		}
		requireRefused(t, file.Name()+" in UTF-16", byJSON(inUTF16(input, binary.LittleEndian)), want)
	}
}

func requireRefused(t testing.TB, name, input, text string) {
	t.Helper()
	_, err := Parse(input)
	mistake := new(InputError)
	require.ErrorAs(t, err, &mistake, name)
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
	certificate, one := readFile(t, "refused/certificate.pem"), big.NewInt(1)
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
	for name, test := range map[string]struct{ input, text string }{
		"empty":                {"", "is empty"},
		"only line ends":       {`\n\n`, "is empty"},
		"one quote":            {`"` + pkcs1, "is not a PEM"},
		"a text on JWKs":       {`with "kty" and so on`, "is not a PEM"},
		"one byte too long":    {pkcs1 + strings.Repeat("\n", maxLength+1-len(pkcs1)), "give the key's file alone"},
		"not PEM":              {"hunter2-not-a-pem", "is not a PEM"},
		"the path alone":       {"cm-api-key.pem", "as in private_key=@cm-api-key.pem"},
		"cut short":            {pkcs1[:len(pkcs1)/2], "to its -----END line"},
		"in one line":          {strings.ReplaceAll(pkcs1, "\n", " "), "with its line breaks"},
		"two blocks":           {pkcs1 + pkcs1, "has more than one PEM block, or text after it; leave only"},
		"text after it":        {pkcs1 + "trailing", "one PEM block"},
		"a certificate before": {certificate + pkcs1, "one PEM block"},
		"a broken one before":  {"-----BEGIN X-----\n!\n" + pkcs1, "one PEM block"},
		"damaged DER":          {pemOf("RSA PRIVATE KEY", block.Bytes[:200]), "is damaged"},
		"damaged PKCS#8":       {pemOf("PRIVATE KEY", []byte{0x30, 0x03, 2, 1, 0}), "is damaged"},
		"damaged OpenSSH":      {pemOf("OPENSSH PRIVATE KEY", block.Bytes), "is damaged"},
		"BER":                  {pemOf("RSA PRIVATE KEY", indefinite), "convert it: openssl rsa"},
		"BER, long length":     {pemOf("RSA PRIVATE KEY", long), "convert it: openssl rsa"},
		"BER, long number":     {pemOf("RSA PRIVATE KEY", padded), "convert it: openssl rsa"},
		"public, as private":   {strings.ReplaceAll(readFile(t, "refused/public-spki.pem"), "PUBLIC", "PRIVATE"), "is a public key"},
		"EC, as PKCS#8":        {strings.ReplaceAll(readFile(t, "refused/ec-sec1.pem"), "EC PRIVATE", "PRIVATE"), "is not an RSA key"},
		"another kind":         {pemOf("PGP PRIVATE KEY BLOCK", block.Bytes), "another kind"},
		"a JWK":                {`{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AQAB"}`, "is a JSON Web Key (JWK)"},
		// No computation with it would ever end.
		"a modulus beyond sense": {inPKCS1(t, new(big.Int).SetBit(one, 160_000-1, 1), one, one, one, one), "has 160000 bits"},
	} {
		requireRefused(t, name, test.input, test.text)
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
	// Bytes of which all four forms differ; what follows a key is ignored.
	der := append(block.Bytes, 0xff, 0xff, 0xff)
	der = append(der, make([]byte, 1+(3-len(der)%3)%3)...)
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		text := encoding.EncodeToString([]byte(plain))
		requireRefused(t, text, text, "decode it first")
		requireRefused(t, text, strings.ReplaceAll(text, "M", "M "), "decode it first")
		requireRefused(t, text, encoding.EncodeToString([]byte(inUTF16(plain, binary.LittleEndian))), "decode it first")
		requireRefused(t, text, encoding.EncodeToString(der), "without its -----BEGIN")
	}
	requireRefused(t, "of another key", base64.StdEncoding.EncodeToString(ec.Bytes), "without its -----BEGIN")
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

// inPKCS1 is the PEM of a key whose numbers need not make sense.
func inPKCS1(t testing.TB, n, e, d, p, q *big.Int) string {
	t.Helper()
	one := big.NewInt(1)
	der, err := asn1.Marshal(pkcs1{N: n, E: e, D: d, P: p, Q: q, DP: one, DQ: one, QInv: one})
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: der}))
}

// The largest public exponent that Go supports has 31 bits.
func TestPublicExponents(t *testing.T) {
	t.Parallel()
	with := func(exponent int64) string {
		key := keyWith(t, exponent)
		return inPKCS1(t, key.N, big.NewInt(exponent), key.D, key.Primes[0], key.Primes[1])
	}
	k, err := Parse(with(1<<31 - 1))
	require.NoError(t, err)
	requireSigns(t, k, "31 bits")
	requireRefused(t, "32 bits", with(1<<31+11), "of more than 31 bits")
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
	requireRefused(t, "exponent", inOpenSSH(keyWith(t, 1<<31+11)), "of more than 31 bits")

	one := big.NewInt(1)
	huge := new(big.Int).SetBit(one, 17_000-1, 1)
	requireRefused(t, "modulus", inOpenSSH(&rsa.PrivateKey{PublicKey: rsa.PublicKey{N: huge, E: 3}, D: one, Primes: []*big.Int{one, one}}),
		"has more than 8192 bits")

	block, _ := pem.Decode([]byte(readFile(t, "refused/close-primes.pem")))
	weak, err := unwrap(block.Bytes)
	require.NoError(t, err)
	requireRefused(t, "weak", inOpenSSH(&rsa.PrivateKey{PublicKey: rsa.PublicKey{N: weak.N, E: int(weak.E.Int64())}, D: weak.D, Primes: []*big.Int{weak.P, weak.Q}}),
		"is easy to break")

	block, _ = pem.Decode([]byte(readFile(t, "refused/ed25519-openssh.pem")))
	block.Bytes = bytes.ReplaceAll(block.Bytes, []byte("ssh-ed25519"), []byte("ssh-unknown"))
	requireRefused(t, "type", string(pem.EncodeToMemory(block)), "is not an RSA key")
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
	k, err := Generate(3072)
	require.NoError(t, err)
	requireSigns(t, k, "generated")
	require.Equal(t, 3072, k.Public().Bits)
	_, err = Generate(1)
	require.ErrorContains(t, err, "generating a key: ")
	_, err = Generate(1024)
	require.EqualError(t, err, "generating a key: has 1024 bits; an RSA key of 2048 to 8192 bits is needed")
}

// inGo reads a file with the standard library alone, whatever its size.
func inGo(t testing.TB, name string) *rsa.PrivateKey {
	t.Helper()
	block, _ := pem.Decode([]byte(readFile(t, name)))
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err, name)
	return key.(*rsa.PrivateKey)
}

// halves returns the DER of a private key and of its public half.
func halves(t testing.TB, private crypto.Signer) (pkcs8, spki []byte) {
	t.Helper()
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	spki, err = x509.MarshalPKIXPublicKey(private.Public())
	require.NoError(t, err)
	return pkcs8, spki
}

// What was stored is refused if it is not a key that Parse would accept.
func TestRefusedDER(t *testing.T) {
	t.Parallel()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	for want, key := range map[string]crypto.Signer{
		"is not an RSA key": ec,
		"has 1024 bits; an RSA key of 2048 to 8192 bits is needed": inGo(t, "refused/bits-1024.pem"),
		"has 8200 bits; an RSA key of 2048 to 8192 bits is needed": inGo(t, "refused/bits-8200.pem"),
	} {
		pkcs8, spki := halves(t, key)
		_, err := Decode(pkcs8)
		require.EqualError(t, err, "its private key "+want)
		_, err = ParsePublic(spki)
		require.EqualError(t, err, "its public key "+want)
	}
	_, err = Decode([]byte("no key"))
	require.EqualError(t, err, "its private key can't be parsed")
	_, err = ParsePublic([]byte("no key"))
	require.EqualError(t, err, "its public key can't be parsed")
}

// Go's FIPS 140-3 modes are chosen when a process starts, so this test runs itself again
// in each of them. The mode "on" changes nothing for a user. The mode "only" refuses keys
// of unusual forms, and the refusal names it.
func TestFIPSModes(t *testing.T) {
	if !fips140.Enabled() {
		for _, mode := range []string{"on", "only"} {
			again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFIPSModes$")
			again.Env = append(os.Environ(), "GODEBUG=fips140="+mode)
			output, err := again.CombinedOutput()
			require.NoError(t, err, "%s: %s", mode, output)
		}
		return
	}
	generated, err := Generate(MinBits)
	require.NoError(t, err)
	requireSigns(t, generated, "generated")
	for file, reason := range map[string]string{
		"pkcs1.pem": "", "pkcs8.pem": "", "openssh.pem": "", "rsa8192.pem": "",
		"exponent-3.pem":   "use of public exponent <= 2¹⁶ is not allowed in FIPS 140-only mode",
		"three-primes.pem": "use of multi-prime keys is not allowed in FIPS 140-only mode",
	} {
		input := readFile(t, "accepted/"+file)
		if reason == "" || !fips140.Enforced() {
			k, err := Parse(input)
			require.NoError(t, err, file)
			requireSigns(t, k, file)
			continue
		}
		refusal := "can't be used while the plugin runs with GODEBUG=fips140=only: " + reason
		requireRefused(t, file, input, refusal)

		// The same for a key that was stored before the mode was chosen.
		pkcs8, spki := halves(t, inGo(t, "accepted/"+file))
		_, err := Decode(pkcs8)
		require.EqualError(t, err, "its private key "+refusal)
		if _, err = ParsePublic(spki); file == "exponent-3.pem" {
			require.EqualError(t, err, "its public key "+refusal)
		} else {
			require.NoError(t, err, "a public half does not tell the number of primes")
		}
	}
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
	for _, input := range repairable(plain) {
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
		requireSigns(t, k, "accepted")
	})
}
