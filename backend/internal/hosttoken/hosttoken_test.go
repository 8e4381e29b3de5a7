// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package hosttoken

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

var (
	consumer = Consumer{ID: "acme", Audience: "clanmeeting", Issuer: "production"}
	now      = time.Date(2030, 1, 31, 9, 0, 0, 0, time.UTC)
)

const goodHeader = `{"alg":"RS256","kid":"acme","typ":"JWT"}`

func testKey(t testing.TB) *rsakey.PrivateKey {
	t.Helper()
	file, err := os.ReadFile("../../testdata/rsa2048.pkcs1.pem")
	require.NoError(t, err)
	key, err := rsakey.Parse(string(file))
	require.NoError(t, err)
	return key
}

func encode(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// compact returns a token whose signature is wrong.
func compact(header, claims string) string { return encode(header) + "." + encode(claims) + ".AAAA" }

// claimsWith returns the JSON of good claims with a value in place of another; "" leaves the
// claim out.
func claimsWith(t testing.TB, claim, value string) string {
	t.Helper()
	claims := consumer.Claims("hall", now.Unix()-30, now.Unix()+60)
	delete(claims, claim)
	if value != "" {
		claims[claim] = json.RawMessage(value)
	}
	raw, err := json.Marshal(claims)
	require.NoError(t, err)
	return string(raw)
}

// What is signed verifies with the standard library alone, and has the claims that were
// asked for, in the types that the server requires. RS256 has no random part: the same key
// and claims always give the same token.
func TestSign(t *testing.T) {
	key := testKey(t)
	golden, err := os.ReadFile("../../testdata/golden.jwt")
	require.NoError(t, err)
	token, err := consumer.Sign(key, "support-4711", 1896080370, 1896081300)
	require.NoError(t, err)
	require.Equal(t, strings.TrimSpace(string(golden)), token)

	block, _ := pem.Decode([]byte(key.Public().PEM))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	require.NoError(t, err)
	for _, name := range []room.Name{"hall", room.Every} {
		token, err := consumer.Sign(key, name, now.Unix()-30, now.Unix()+60)
		require.NoError(t, err)
		parts := strings.Split(token, ".")
		require.Len(t, parts, 3)
		signature, err := base64.RawURLEncoding.DecodeString(parts[2])
		require.NoError(t, err)
		sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		require.NoError(t, rsa.VerifyPKCS1v15(public.(*rsa.PublicKey), crypto.SHA256, sum[:], signature))
		require.Equal(t, encode(goodHeader), parts[0])
		require.Equal(t, encode(fmt.Sprintf(`{"aud":"clanmeeting","context":{},"exp":%d,"iss":"production","nbf":%d,"room":"%s","sub":"acme"}`,
			now.Unix()+60, now.Unix()-30, name)), parts[1])

		own, err := Decode(token)
		require.NoError(t, err)
		require.NoError(t, own.CheckHeader(consumer))
		require.NoError(t, own.CheckClaims(consumer, "hall", now))
		require.Empty(t, own.Remarks(consumer))
		require.True(t, own.SignedBy(key.Public()))
		own.signature[9] ^= 1
		require.False(t, own.SignedBy(key.Public()))
	}
}

func TestDecodeRefuses(t *testing.T) {
	const (
		parts     = "malformed: a token is three parts of base64url, separated by dots, as after jwt="
		header    = "malformed: its header is not a JSON object"
		claims    = "malformed: its claims are not a JSON object"
		signature = "malformed: its signature is not base64url"
	)
	for text, want := range map[string]string{
		"":                                  parts,
		"hello":                             parts,
		"e30.e30":                           parts,
		"e30.e30\n.AAAA":                    parts,
		"e30.e30.AA\r\nAA":                  parts,
		" e30.e30.AAAA":                     header,
		"e3A.e30.AAAA":                      header, // bits that no byte needs
		compact("[]", "{}"):                 header,
		compact("null", "{}"):               header,
		compact("{}{}", "{}"):               header,
		"e30.e3A.AAAA":                      claims,
		compact("{}", "[]"):                 claims,
		compact("{}", "null"):               claims,
		compact("{}", "{}{}"):               claims,
		compact("{}", "{"):                  claims,
		encode(goodHeader) + ".e30.AAAAAAB": signature,
		encode(goodHeader) + ".e30.AAAA=":   signature,
		encode(goodHeader) + ".e30.AAA+":    signature,

		compact("{}", nested(maxNesting+1)):       "malformed: its claims are nested more than 100 levels deep",
		strings.Repeat("A", maxLength-3) + "....": "too long: it has 10241 characters, and the meeting server accepts at most about 10240",
	} {
		_, err := Decode(text)
		require.ErrorContains(t, err, want, text)
		require.Less(t, len(err.Error()), 200)
	}
	for _, text := range []string{compact(goodHeader, nested(maxNesting)), encode(goodHeader) + ".e30." + strings.Repeat("A", 4*((maxLength-60)/4))} {
		_, err := Decode(text)
		require.NoError(t, err)
	}
}

// nested returns claims with so many objects and lists in each other.
func nested(depth int) string {
	return `{"x":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + "}"
}

func TestCheckHeader(t *testing.T) {
	for header, want := range map[string]string{
		goodHeader: "",
		`{"alg":"RS256","kid":"acme","typ":"JWT","x5c":1}`: "",
		`{"alg":"none","kid":"acme","typ":"JWT"}`:          `signed with alg "none", not RS256`,
		`{"alg":"HS256","kid":"acme","typ":"JWT"}`:         `signed with alg "HS256", not RS256`,
		`{"alg":"rs256","kid":"acme","typ":"JWT"}`:         `signed with alg "rs256", not RS256`,
		`{"alg":["RS256"],"kid":"acme","typ":"JWT"}`:       `signed with alg ["RS256"], not RS256`,
		`{"kid":"acme","typ":"JWT"}`:                       `signed with alg missing, not RS256`,
		`{"alg":"RS256","kid":"acme","typ":"jwt"}`:         `typ is "jwt", not "JWT"`,
		`{"alg":"RS256","kid":"acme"}`:                     `typ is missing, not "JWT"`,
		`{"alg":"RS256","kid":"evil","typ":"JWT"}`:         `kid is "evil", not the consumer ID "acme"`,
		`{"alg":"RS256","kid":"ACME","typ":"JWT"}`:         `kid is "ACME", not the consumer ID "acme"`,
		`{"alg":"RS256","typ":"JWT"}`:                      `kid is missing, not the consumer ID "acme"`,
	} {
		token, err := Decode(compact(header, "{}"))
		require.NoError(t, err)
		if err = token.CheckHeader(consumer); want == "" {
			require.NoError(t, err, header)
			continue
		}
		require.EqualError(t, err, want)
	}
}

// Each claim alone, with what a real server does: refuse it for the reason, or accept it
// with the remark, or both empty.
func TestClaimsAsTheServer(t *testing.T) {
	at := now.Unix() // 1896080400
	for _, test := range []struct{ claim, value, reason, remark string }{
		{"exp", fmt.Sprint(at + 1), "", ""},
		{"exp", fmt.Sprint(at), "expired 0s ago", ""},
		{"exp", fmt.Sprint(at - 40), "expired 40s ago", ""},
		{"exp", fmt.Sprintf("%d.5", at), "", fmt.Sprintf("exp is %d.5, not a whole number; the server treats it as %d", at, at+1)},
		{"exp", fmt.Sprintf("%d.0", at), "expired 0s ago", fmt.Sprintf("exp is %d.0, not a whole number; the server treats it as %d", at, at)},
		{"exp", "1.9e9", "", "exp is 1.9e9, not a whole number; the server treats it as 1900000000"},
		{"exp", "1.8E+9", "expired 26689h0m0s ago", "exp is 1.8E+9, not a whole number; the server treats it as 1800000000"},
		{"exp", "false", "", "exp is false, which the server treats as missing: the token never expires"},
		{"exp", "", "", "the token has no exp: it never expires"},
		{"exp", "1895994060000", "", "exp seems to be in milliseconds; it must be in seconds"},
		{"exp", "1e999", "", "exp seems to be in milliseconds; it must be in seconds"},
		{"exp", "32503680000", "", ""}, // in the year 3000
		{"exp", "-1e999", "expired 100 years or more ago", ""},
		{"exp", "-9223372036854775809", "expired 100 years or more ago", ""},
		{"exp", `"4000000000"`, `exp is "4000000000", not a number of seconds`, ""},
		{"exp", "null", "exp is null, not a number of seconds", ""},
		{"exp", "true", "exp is true, not a number of seconds", ""},
		{"exp", "[4e9]", "exp is [4e9], not a number of seconds", ""},
		{"nbf", fmt.Sprint(at), "", ""},
		{"nbf", fmt.Sprint(at + 12), "not valid for another 12s", ""},
		{"nbf", fmt.Sprintf("%d.5", at-1), "", fmt.Sprintf("nbf is %d.5, not a whole number; the server treats it as %d", at-1, at)},
		{"nbf", fmt.Sprintf("%d.001", at), "not valid for another 1s", fmt.Sprintf("nbf is %d.001, not a whole number; the server treats it as %d", at, at+1)},
		{"nbf", "false", "", "nbf is false, which the server treats as missing"},
		{"nbf", "", "", ""},
		{"nbf", "-5", "", ""},
		{"nbf", "1895994000000", "not valid for another 100 years or more", "nbf seems to be in milliseconds; it must be in seconds"},
		{"nbf", "1e999", "not valid for another 100 years or more", "nbf seems to be in milliseconds; it must be in seconds"},
		{"nbf", `"1"`, `nbf is "1", not a number of seconds`, ""},
		{"nbf", "true", "nbf is true, not a number of seconds", ""},
		{"nbf", "null", "nbf is null, not a number of seconds", ""},
		{"aud", `["clanmeeting"]`, `wrong audience: aud is ["clanmeeting"], not "clanmeeting"`, ""},
		{"aud", `"Clanmeeting"`, `wrong audience: aud is "Clanmeeting", not "clanmeeting"`, ""},
		{"aud", "", `wrong audience: aud is missing, not "clanmeeting"`, ""},
		{"iss", `"staging"`, `wrong issuer: iss is "staging", not "production"`, ""},
		{"iss", `"Production"`, `wrong issuer: iss is "Production", not "production"`, ""},
		{"sub", `"ACME"`, "", `sub is "ACME", not "acme"; the server ignores the case`},
		{"sub", `"evil"`, `wrong consumer: sub is "evil", not "acme"`, ""},
		{"sub", `"acme "`, `wrong consumer: sub is "acme ", not "acme"`, ""},
		{"sub", "", `wrong consumer: sub is missing, not "acme"`, ""},
		{"room", `"HALL"`, "", ""},
		{"room", `"*"`, "", ""},
		{"room", `"hall "`, `for room "hall ", not "hall"`, `room is "hall ", a name that Clan Meeting's SDK does not accept; the server does`},
		{"room", `"ha\u212al"`, "for room \"ha\u212al\", not \"hall\"", "room is \"ha\u212al\", a name that Clan Meeting's SDK does not accept; the server does"},
		{"room", "5", "room is 5, not a name", ""}, // on purpose: the server takes it as text
		{"room", `["hall"]`, `room is ["hall"], not a name`, ""},
		{"room", "", "room is missing, not a name", ""},
		{"context", `{"user":{"name":null}}`, "", ""},
		{"context", `{"room":{"regex":true},"tenant":"acme"}`, "", ""},
		{"context", "", "", "context is missing, not an object; the server accepts it, but the vendor says to keep it {}"},
		{"context", "[]", "", "context is [], not an object; the server accepts it, but the vendor says to keep it {}"},
		{"context", `["x"]`, "", `context is ["x"], not an object; the server accepts it, but the vendor says to keep it {}`},
		{"context", `"text"`, "", `context is "text", not an object; the server accepts it, but the vendor says to keep it {}`},
		{"context", "null", "context is null, not an object, which ends the server's session", ""},
		{"context", "5", "context is 5, not an object, which ends the server's session", ""},
		{"context", "false", "context is false, not an object, which ends the server's session", ""},
		{"context", `{"tenant":null}`, "tenant in context is null, which ends the server's session", ""},
		{"context", `{"room":null}`, "room in context is null, which ends the server's session", ""},
		{"iat", "1", "", ""},
	} {
		name := fmt.Sprintf("%s %s", test.claim, test.value)
		token, err := Decode(compact(goodHeader, claimsWith(t, test.claim, test.value)))
		require.NoError(t, err, name)
		var reason string
		if err := token.CheckClaims(consumer, "hall", now); err != nil {
			reason = err.Error()
		}
		require.Equal(t, test.reason, reason, name)
		require.Equal(t, test.remark, strings.Join(token.Remarks(consumer), "\n"), name)
	}
}

// The server lowers ASCII letters only: the Kelvin sign is no k.
func TestSubIsASCII(t *testing.T) {
	for sub, good := range map[string]bool{"kK": true, "\u212ak": false, "\u212a": false} {
		token := &Token{Claims: map[string]any{"sub": sub}}
		require.Equal(t, good, token.checkConsumer("kk") == nil, sub)
	}
}

// The last of two members counts, as on the server.
func TestDuplicateMembers(t *testing.T) {
	token, err := Decode(compact(goodHeader, `{"room":"a","room":"hall","context":{"room":null},"context":{}}`))
	require.NoError(t, err)
	require.NoError(t, token.checkRoom("hall"))
	require.NoError(t, token.checkContext())
}

// The server ignores padding, which a few libraries write.
func TestPadding(t *testing.T) {
	key := testKey(t)
	token, err := consumer.Sign(key, "hall", now.Unix()-30, now.Unix()+60)
	require.NoError(t, err)
	padded, err := Decode(token + "==")
	require.NoError(t, err)
	require.True(t, padded.SignedBy(key.Public()))
	require.Equal(t, []string{`the token has "=" at the end of a part, which RFC 7515 does not allow; the server ignores it`}, padded.Remarks(consumer))
	_, err = Decode(token + "===")
	require.EqualError(t, err, "malformed: its signature is not base64url")
}

// All reasons are named, and long values are shortened.
func TestCheckClaimsNamesEveryReason(t *testing.T) {
	claims := fmt.Sprintf(`{"exp":1,"aud":"x","iss":%q,"sub":"z","room":"other","context":null}`, strings.Repeat("é", 3000))
	token, err := Decode(compact(goodHeader, claims))
	require.NoError(t, err)
	reasons := strings.Split(token.CheckClaims(consumer, "hall", now).Error(), "\n")
	require.Len(t, reasons, 6)
	for _, reason := range reasons {
		require.Less(t, len(reason), 300)
	}
	other, err := Decode(compact(goodHeader, claimsWith(t, "room", `"Other.1"`)))
	require.NoError(t, err)
	require.NoError(t, other.CheckClaims(consumer, "", now), "no room was asked for")
}
