// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// keyFiles returns test files of the rsakey package: name and content.
func keyFiles(t testing.TB, kind string, atLeast int) map[string]string {
	t.Helper()
	names, err := filepath.Glob("../../backend/internal/rsakey/testdata/" + kind + "/*")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(names), atLeast, "files of keys that are %s", kind)
	files := map[string]string{}
	for _, name := range names {
		raw, err := os.ReadFile(name)
		require.NoError(t, err)
		files[filepath.Base(name)] = string(raw)
	}
	return files
}

// inUTF16 encodes a text as PowerShell's ">" does.
func inUTF16(order binary.ByteOrder, text string) string {
	var raw []byte
	for _, unit := range utf16.Encode([]rune("\ufeff" + strings.ReplaceAll(text, "\n", "\r\n"))) {
		raw = append(raw, 0, 0)
		order.PutUint16(raw[len(raw)-2:], unit)
	}
	return string(raw)
}

// A file that a tool writes is imported, or refused with a message that says what it is.
// Vault's CLI sends the same JSON as this test.
func TestKeyFiles(t *testing.T) {
	mount := enable(t)
	accepted, refused := keyFiles(t, "accepted", 10), keyFiles(t, "refused", 25)
	plain := accepted["pkcs8.pem"]
	for name, text := range map[string]string{
		"UTF-16, little endian": inUTF16(binary.LittleEndian, plain), "UTF-16, big endian": inUTF16(binary.BigEndian, plain), "quotes": `"` + plain + `"`, "single quotes": "'" + strings.TrimSpace(plain) + "'\n",
		"CRLF": strings.ReplaceAll(plain, "\n", "\r\n"), "CR": strings.ReplaceAll(plain, "\n", "\r"), "a byte-order mark": "\ufeff" + plain, "indented": "    " + strings.ReplaceAll(plain, "\n", "\n    "),
		`\n`: strings.ReplaceAll(plain, "\n", `\n`), `\n in quotes`: `"` + strings.ReplaceAll(plain, "\n", `\n`) + `"`,
	} {
		accepted[name] = text
	}
	for name, text := range map[string]string{
		"base64": base64.StdEncoding.EncodeToString([]byte(plain)), "twice": plain + plain, "half": plain[:len(plain)/2], "JWK": `{"kty":"RSA","n":"AQAB"}`, "blanks": strings.ReplaceAll(plain, "\n", " "), "empty": "", "a name": "cm-api-key.pem", "long": strings.Repeat(plain, 40),
	} {
		refused[name] = text
	}
	for name, text := range accepted {
		r := root(t).sendJSON(mount+"/keys/import", "private_key", asJSON(t, text))
		require.Equal(t, http.StatusOK, r.status, "%s: %s", name, r.raw)
	}
	stored := root(t).read(mount + "/keys?list=true")["keys"].([]any)
	require.Less(t, len(stored), len(accepted)-10, "the files of one key are one version")

	for name, text := range refused {
		r := root(t).sendJSON(mount+"/keys/import", "private_key", asJSON(t, text))
		r.refused(t, "private_key ", name)
		for part, needle := range refusedBecause {
			if strings.Contains(name, part) {
				require.Contains(t, r.answer.Errors(), needle, name)
			}
		}
		if name != "inconsistent.pem" && name != "composite-factor.pem" && name != "half" && name != "no-primes.pem" {
			require.NotContains(t, r.answer.Errors(), "damaged", name)
		}
	}
	require.Equal(t, stored, root(t).read(mount + "/keys?list=true")["keys"], "what is refused is not stored")
}

// refusedBecause has the text of the refusal for a part of the file's name.
var refusedBecause = map[string]string{
	"base64-of-pem": "base64 once more", "base64-of-der": "without its -----BEGIN", "bits-": "of 2048 to 8192 bits", "certificate": "public key or a certificate", "public-": "public key or a certificate",
	"close-primes": "easy to break", "dsa": "not an RSA key", "ec-": "not an RSA key", "ed25519": "not an RSA key", "encrypted-": "is encrypted", "exponent-33-bits": "more than 31 bits", "pss": "PSS", "putty": "PuTTY",
	"base64": "base64", "twice": "more than one PEM block", "JWK": "JSON Web Key", "empty": "is empty", "a name": "not a PEM", "long": "longer than",
}

// The CLI's ways to send a file.
func TestKeyFilesByCLI(t *testing.T) {
	mount := enable(t)
	root(t).write(mount+"/config", map[string]any{"consumer_id": "acme"})
	_, pkcs8, runs := newPEMs(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return file
	}
	utf16File := write("utf16.pem", inUTF16(binary.LittleEndian, pkcs8))
	var group errgroup.Group
	group.SetLimit(2)
	for name, test := range map[string]struct {
		args  []string
		stdin string
		want  string
	}{
		"a file":             {[]string{mount + "/keys/import", "private_key=@" + write("plain.pem", pkcs8)}, "", "version"},
		"a file in UTF-16":   {[]string{mount + "/config", "private_key=@" + utf16File}, "", ""},
		"standard input":     {[]string{mount + "/keys/import", "private_key=-"}, inUTF16(binary.BigEndian, pkcs8), "version"},
		"in quotes":          {[]string{mount + "/keys/import", "private_key=@" + write("quoted.pem", `"`+pkcs8+`"`)}, "", "version"},
		"as an argument":     {[]string{mount + "/keys/import", "private_key=" + strings.ReplaceAll(pkcs8, "\n", `\n`)}, "", "version"},
		"base64":             {[]string{mount + "/keys/import", "private_key=@" + write("base64.txt", base64.StdEncoding.EncodeToString([]byte(pkcs8)))}, "", "base64 once more"},
		"no @":               {[]string{mount + "/keys/import", "private_key=plain.pem"}, "", "is not a PEM"},
		"an empty file":      {[]string{mount + "/keys/import", "private_key=@" + write("empty.pem", "")}, "", "is empty"},
		"as the whole body":  {[]string{mount + "/config", "-"}, pkcs8, ""},
		"a list in YAML":     {[]string{mount + "/roles/r", "-"}, `{"allowed_rooms":[true]}`, "entry 1 of allowed_rooms must be a string"},
		"a time with a plus": {[]string{mount + "/creds/none", "not_before=2030-01-31T09:00:00 02:00"}, "", `role "none" not found`},
	} {
		group.Go(func() error {
			cli := vault.Command(t.Context(), vault.RootToken, append([]string{"write"}, test.args...)...)
			cli.Stdin = strings.NewReader(test.stdin)
			out, _ := cli.CombinedOutput() // the output says whether it failed
			assert.Contains(t, string(out), test.want, name)
			if !strings.Contains(string(out), "public_key") { // the public key has the modulus
				assert.Empty(t, runs.in(string(out)), name)
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
	data := root(t).read(mount + "/config")
	require.Equal(t, "1", asJSON(t, data["active_key"]), "all of them are one key")
	require.Equal(t, []any{"1"}, root(t).read(mount + "/keys?list=true")["keys"])
}
