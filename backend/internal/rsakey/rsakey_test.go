// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package rsakey

import (
	"cmp"
	"crypto"
	"crypto/fips140"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
	bits := map[string]int{"bits-2049.pem": 2049, "rsa8192.pem": 8192}
	for _, file := range files {
		k, err := Parse(readFile(t, "accepted/"+file.Name()))
		require.NoError(t, err, file.Name())
		requireSigns(t, k, file.Name())
		require.Equal(t, cmp.Or(bits[file.Name()], 2048), k.Public().Bits, file.Name())
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
		"a JSON string":           `"` + strings.ReplaceAll(strings.TrimSpace(plain), "\n", `\n`) + `"`,
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

// That a key which is accepted signs is a property that FuzzParse tests.
func TestRepairedForms(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"pkcs1.pem", "openssh.pem"} {
		plain := readFile(t, "accepted/"+file)
		for name, input := range repairable(plain) {
			_, err := Parse(input)
			require.NoError(t, err, "%s: %s", file, name)
		}
	}
}

// What a refusal says of each file: of its kind, and what would be right.
var refusedFiles = map[string]string{
	"base64-of-der-ec.txt":          "without its -----BEGIN and -----END lines",
	"base64-of-der-unpadded.txt":    "without its -----BEGIN and -----END lines",
	"base64-of-der.txt":             "without its -----BEGIN and -----END lines",
	"base64-of-pem-one-line.txt":    "decode it first: base64 -d",
	"base64-of-pem-utf-16.txt":      "decode it first: base64 -d",
	"base64-of-pem.txt":             "decode it first: base64 -d",
	"base64url-of-der-unpadded.txt": "without its -----BEGIN and -----END lines",
	"base64url-of-der.txt":          "without its -----BEGIN and -----END lines",
	"ber-indefinite-length.pem":     "convert it: openssl rsa",
	"ber-long-length.pem":           "convert it: openssl rsa",
	"ber-long-number.pem":           "convert it: openssl rsa",
	"bits-1024.pem":                 "has 1024 bits; an RSA key of 2048 to 8192 bits is needed",
	"bits-17000-openssh.pem":        "has more than 8192 bits",
	"bits-2047-openssh.pem":         "has 2047 bits",
	"bits-2047.pem":                 "has 2047 bits",
	"bits-8200.pem":                 "has 8200 bits",
	"certificate.pem":               "is a public key or a certificate; give the private key",
	"close-primes-openssh.pem":      "is easy to break",
	"close-primes.pem":              "is easy to break",
	"composite-factor.pem":          "do not make an RSA key",
	"dsa.pem":                       "is not an RSA key",
	"ec-pkcs8.pem":                  "is not an RSA key",
	"ec-sec1.pem":                   "is not an RSA key",
	"ed25519-openssh.pem":           "is not an RSA key",
	"ed25519-pkcs8.pem":             "is not an RSA key",
	"encrypted-openssh.pem":         "is encrypted; give a copy without passphrase, by ssh-keygen -p",
	"encrypted-pkcs1.pem":           "is encrypted; give a copy without passphrase, by openssl rsa -in",
	"encrypted-pkcs8.pem":           "is encrypted; give a copy without passphrase, by openssl rsa -in",
	"exponent-32-bits-openssh.pem":  "has a public exponent of more than 31 bits",
	"exponent-32-bits.pem":          "has a public exponent of more than 31 bits, which Go does not support",
	"inconsistent.pem":              "is damaged: its parts are inconsistent",
	"no-primes.pem":                 "is damaged: its parts are inconsistent",
	"pss.pem":                       "is an RSA key for PSS signatures only",
	"public-openssh.txt":            "is a public key or a certificate",
	"public-pkcs1.pem":              "is a public key or a certificate",
	"public-spki.pem":               "is a public key or a certificate",
	"public-ssh2.txt":               "is a public key or a certificate",
	"putty-3.ppk":                   "is in PuTTY's format; convert it: puttygen",
	"trusted-certificate.pem":       "is a public key or a certificate",
	"unknown-type-openssh.pem":      "is not an RSA key",
}

func TestRefusedFiles(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir("testdata/refused")
	require.NoError(t, err)
	require.Len(t, files, len(refusedFiles))
	for name, want := range refusedFiles {
		input := readFile(t, "refused/"+name)
		requireRefused(t, name, input, want)
		if !strings.HasPrefix(name, "base64") { // nobody has that in UTF-16
			requireRefused(t, name+" in UTF-16", byJSON(inUTF16(input, binary.LittleEndian)), want)
		}
	}
}

func requireRefused(t testing.TB, name, input, text string) {
	t.Helper()
	_, err := Parse(input)
	mistake := new(InputError)
	require.ErrorAs(t, err, &mistake, name)
	require.Contains(t, mistake.Error(), text, name)
	requireNothingOf(t, input, mistake.Error(), 8)
}

// requireNothingOf fails if a message repeats so many characters of the input that are not
// the messages' own words.
func requireNothingOf(t testing.TB, input, message string, characters int) {
	t.Helper()
	for _, own := range []string{
		"-----BEGIN", "-----END", "PRIVATE KEY", "PUBLIC KEY", "private_key", "cm-api-key.pem", "OPENSSH", "base64", "-openssh",
	} {
		message, input = strings.ReplaceAll(message, own, ""), strings.ReplaceAll(input, own, "")
	}
	for i := 0; i+characters <= len(input); i++ {
		require.NotContains(t, message, input[i:i+characters])
	}
}

func TestRefusedTexts(t *testing.T) {
	t.Parallel()
	plain := readFile(t, "accepted/pkcs1.pem")
	named := func(file, name, newName string) string { return strings.ReplaceAll(readFile(t, file), name, newName) }
	for name, test := range map[string]struct{ input, text string }{
		"only line ends":      {`\n\n`, "is empty"},
		"one quote":           {`"` + plain, "is not a PEM"},
		"a text on JWKs":      {`with "kty" and so on`, "is not a PEM"},
		"in one line":         {strings.ReplaceAll(plain, "\n", " "), "with its line breaks"},
		"one byte too long":   {plain + strings.Repeat("\n", maxLength+1-len(plain)), "give the key's file alone"},
		"text after it":       {plain + "trailing", "has more than one PEM block, or text after it; leave only"},
		"a broken one before": {"-----BEGIN X-----\n!\n" + plain, "one PEM block"},
		"damaged DER":         {"-----BEGIN PRIVATE KEY-----\nMAMCAQA=\n-----END PRIVATE KEY-----", "is damaged: the text"},
		"damaged OpenSSH":     {named("accepted/pkcs1.pem", "RSA", "OPENSSH"), "is damaged"},
		"public, as private":  {named("refused/public-spki.pem", "PUBLIC", "PRIVATE"), "is a public key"},
		"EC, as PKCS#8":       {named("refused/ec-sec1.pem", "EC PRIVATE", "PRIVATE"), "is not an RSA key"},
		"another kind":        {named("accepted/pkcs1.pem", "RSA", "PGP"), "another kind"},
		"a JWK":               {`{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AQAB"}`, "is a JSON Web Key (JWK)"},
	} {
		requireRefused(t, name, test.input, test.text)
	}
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

// halves returns the DER of a file in PKCS#8, and of its public half.
func halves(t testing.TB, name string) (pkcs8, spki []byte) {
	t.Helper()
	block, _ := pem.Decode([]byte(readFile(t, name)))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err, name)
	spki, err = x509.MarshalPKIXPublicKey(key.(crypto.Signer).Public())
	require.NoError(t, err, name)
	return block.Bytes, spki
}

// What was stored is refused if it is not a key that Parse would accept.
func TestRefusedDER(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"ec-pkcs8.pem":  "is not an RSA key",
		"bits-8200.pem": "has 8200 bits; an RSA key of 2048 to 8192 bits is needed",
	} {
		pkcs8, spki := halves(t, "refused/"+file)
		_, err := Decode(pkcs8)
		require.EqualError(t, err, "its private key "+want)
		_, err = ParsePublic(spki)
		require.EqualError(t, err, "its public key "+want)
	}
	_, err := Decode([]byte("no key"))
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
		pkcs8, spki := halves(t, "accepted/"+file)
		_, err := Decode(pkcs8)
		require.EqualError(t, err, "its private key "+refusal)
		if file == "exponent-3.pem" { // a public half does not tell the number of primes
			_, err = ParsePublic(spki)
			require.EqualError(t, err, "its public key "+refusal)
		}
	}
}

// The error of a signature tells its reader nothing about the key. The log gets the rest.
func TestSignErrors(t *testing.T) {
	t.Parallel()
	k := &PrivateKey{sign: func([sha256.Size]byte) ([]byte, error) { return nil, errors.New("the detail") }}
	_, err := k.Sign([]byte("message"))
	mistake := new(SignError)
	require.ErrorAs(t, err, &mistake)
	require.Equal(t, "the detail", mistake.Detail)
	require.NotContains(t, err.Error(), "detail")
}

func TestLibrary(t *testing.T) {
	require.Regexp(t, `^(Go 1|OpenSSL 3)\.`, Library())
}

// Many keys are loaded and dropped, while they are in use. Goroutines that share a key get
// the signatures of their own messages. `make leaks` runs this with LeakSanitizer, which at
// the end looks for keys that OpenSSL did not free.
func TestKeysAreSharedAndFreed(t *testing.T) {
	t.Parallel()
	const keys = 100
	der, _ := halves(t, "accepted/pkcs8.pem")
	var dropped atomic.Int64
	var wg sync.WaitGroup
	for i := range keys {
		k, err := Decode(der)
		require.NoError(t, err)
		runtime.AddCleanup(k, func(count *atomic.Int64) { count.Add(1) }, &dropped)
		for j := range 4 {
			wg.Go(func() {
				message := fmt.Appendf(nil, "%d %d", i, j)
				signature, err := k.Sign(message)
				assert.NoError(t, err)
				assert.NoError(t, k.Public().Verify(message, signature))
			})
		}
		runtime.GC()
	}
	wg.Wait()
	require.Eventually(t, func() bool {
		runtime.GC()
		return dropped.Load() == keys
	}, time.Minute, time.Millisecond)
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
	f.Add("")
	f.Fuzz(func(t *testing.T, input string) {
		k, err := Parse(input)
		if err != nil {
			require.ErrorAs(t, err, new(*InputError))
			requireNothingOf(t, input, err.Error(), 16)
			return
		}
		requireSigns(t, k, "accepted")
	})
}
