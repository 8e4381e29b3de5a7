// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package hosttoken

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

var (
	consumer = Consumer{ID: "acme", Audience: "clanmeeting", Issuer: "production"}
	now      = time.Date(2030, 1, 31, 9, 0, 0, 0, time.UTC)
)

const goodHeader = `{"alg":"RS256","kid":"acme","typ":"JWT"}`

func encode(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// text returns the text of an error, which is empty for nil.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// compact returns a token whose signature is wrong.
func compact(header, claims string) string { return encode(header) + "." + encode(claims) + ".AAAA" }

// RS256 has no random part: the same key and claims always give the same token. It has the
// claims that were asked for, in the types that the server requires.
func TestSign(t *testing.T) {
	file, err := os.ReadFile("../../testdata/rsa2048.pkcs1.pem")
	require.NoError(t, err)
	key, err := rsakey.Parse(string(file))
	require.NoError(t, err)
	golden, err := os.ReadFile("../../testdata/golden.jwt")
	require.NoError(t, err)
	token, err := consumer.Sign(key, "support-4711", 1896080370, 1896081300)
	require.NoError(t, err)
	require.Equal(t, strings.TrimSpace(string(golden)), token)
	require.Equal(t, encode(goodHeader)+"."+
		encode(`{"aud":"clanmeeting","context":{},"exp":1896081300,"iss":"production","nbf":1896080370,"room":"support-4711","sub":"acme"}`),
		token[:strings.LastIndex(token, ".")])

	own, err := Decode(token)
	require.NoError(t, err)
	require.NoError(t, own.CheckHeader(consumer))
	require.NoError(t, own.CheckClaims(consumer, "support-4711", now))
	require.Empty(t, own.Remarks(consumer))
	require.True(t, own.SignedBy(key.Public()))
	own.signature[9] ^= 1
	require.False(t, own.SignedBy(key.Public()))

	// The server ignores padding, which a few libraries write.
	padded, err := Decode(token + "==")
	require.NoError(t, err)
	require.True(t, padded.SignedBy(key.Public()))
	require.Equal(t, []string{`the token has "=" at the end of a part, which RFC 7515 does not allow; the server ignores it`},
		padded.Remarks(consumer))
}

func TestDecodeRefuses(t *testing.T) {
	const (
		parts     = "malformed: a token is three parts of base64url, separated by dots, as after jwt="
		header    = "malformed: its header is not a JSON object"
		claims    = "malformed: its claims are not a JSON object"
		signature = "malformed: its signature is not base64url"
	)
	for token, want := range map[string]string{
		"e30.e30":                           parts,
		"e30.e30.AA\r\nAA":                  parts,
		"e30.e30.AA\nAA":                    parts,
		"e3A.e30.AAAA":                      header, // bits that no byte needs
		compact("null", "{}"):               header,
		compact("{}{}", "{}"):               header,
		"e30.e3A.AAAA":                      claims,
		compact("{}", "null"):               claims,
		compact("{}", "{}{}"):               claims,
		encode(goodHeader) + ".e30.AAAAAAB": signature,
		encode(goodHeader) + ".e30.AAAA=":   signature,

		compact("{}", nested(maxNesting+1)):       "malformed: its claims are nested more than 100 levels deep",
		strings.Repeat("A", maxLength-3) + "....": "too long: it has 10241 characters, and the meeting server accepts at most about 10240",
	} {
		_, err := Decode(token)
		require.ErrorContains(t, err, want, token)
		require.Less(t, len(err.Error()), 200)
	}
	longest := encode(goodHeader) + ".e30."
	longest += strings.Repeat("A", (maxLength-len(longest))/4*4)
	for _, token := range []string{compact(goodHeader, nested(maxNesting)), longest} {
		_, err := Decode(token)
		require.NoError(t, err)
	}
}

// nested returns claims with so many objects and lists in each other.
func nested(depth int) string {
	return `{"x":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + "}"
}

func TestCheckHeader(t *testing.T) {
	for header, want := range map[string]string{
		`{"alg":"RS256","kid":"acme","typ":"JWT","x5c":1}`: "",
		`{"alg":"none","kid":"acme","typ":"JWT"}`:          `signed with alg "none", not RS256`,
		`{"alg":["RS256"],"kid":"acme","typ":"JWT"}`:       `signed with alg ["RS256"], not RS256`,
		`{"kid":"acme","typ":"JWT"}`:                       `signed with alg missing, not RS256`,
		`{"alg":"RS256","kid":"acme","typ":"jwt"}`:         `typ is "jwt", not "JWT"`,
		`{"alg":"RS256","kid":"ACME","typ":"JWT"}`:         `kid is "ACME", not the consumer ID "acme"`,
	} {
		token, err := Decode(compact(header, "{}"))
		require.NoError(t, err)
		require.Equal(t, want, text(token.CheckHeader(consumer)), header)
	}
}

// Each claim alone, with what a real server does: refuse it for the reason, or accept it
// with the remark, or both empty. A value of "" leaves the claim out.
func TestClaimsAsTheServer(t *testing.T) {
	const notAnObject = ", not an object; the server accepts it, but the vendor says to keep it {}"
	at := now.Unix() // 1896080400
	for _, test := range []struct{ claim, value, reason, remark string }{
		{"exp", fmt.Sprint(at + 1), "", ""},
		{"exp", fmt.Sprint(at), "expired 0s ago", ""},
		{"exp", fmt.Sprintf("%d.5", at), "", fmt.Sprintf("exp is %d.5, not a whole number; the server treats it as %d", at, at+1)},
		{"exp", "1.8E+9", "expired 26689h0m0s ago", "exp is 1.8E+9, not a whole number; the server treats it as 1800000000"},
		{"exp", "false", "", "exp is false, which the server treats as missing: the token never expires"},
		{"exp", "", "", "the token has no exp: it never expires"},
		{"exp", "32503680000", "", ""}, // in the year 3000
		{"exp", "1895994060000", "", "exp seems to be in milliseconds; it must be in seconds"},
		{"exp", "1e999", "", "exp seems to be in milliseconds; it must be in seconds"},
		{"exp", "-1e999", "expired 100 years or more ago", ""},
		{"exp", `"4000000000"`, `exp is "4000000000", not a number of seconds`, ""},
		{"exp", "null", "exp is null, not a number of seconds", ""},
		{"nbf", fmt.Sprint(at), "", ""},
		{"nbf", fmt.Sprint(at + 12), "not valid for another 12s", ""},
		{"nbf", "false", "", "nbf is false, which the server treats as missing"},
		{"nbf", "", "", ""},
		{"nbf", "-5", "", ""},
		{"nbf", "1895994000000", "not valid for another 100 years or more", "nbf seems to be in milliseconds; it must be in seconds"},
		{"nbf", "true", "nbf is true, not a number of seconds", ""},
		{"aud", `["clanmeeting"]`, `wrong audience: aud is ["clanmeeting"], not "clanmeeting"`, ""},
		{"aud", "", `wrong audience: aud is missing, not "clanmeeting"`, ""},
		{"iss", `"Production"`, `wrong issuer: iss is "Production", not "production"`, ""},
		{"sub", `"ACME"`, "", `sub is "ACME", not "acme"; the server ignores the case`},
		{"sub", `"evil"`, `wrong consumer: sub is "evil", not "acme"`, ""},
		{"room", `"HALL"`, "", ""},
		{"room", `"*"`, "", ""},
		{"room", `"hall "`, `for room "hall ", not "hall"`, `room is "hall ", a name that Clan Meeting's SDK does not accept; the server does`},
		{"room", "5", "room is 5, not a name", ""}, // on purpose: the server takes it as text
		{"context", `{"room":{"regex":true},"tenant":"acme","user":null}`, "", ""},
		{"context", "", "", "context is missing" + notAnObject},
		{"context", `["x"]`, "", `context is ["x"]` + notAnObject},
		{"context", `"text"`, "", `context is "text"` + notAnObject},
		{"context", "null", "context is null, not an object, which ends the server's session", ""},
		{"context", "false", "context is false, not an object, which ends the server's session", ""},
		{"context", `{"tenant":null}`, "tenant in context is null, which ends the server's session", ""},
		{"context", `{"room":null}`, "room in context is null, which ends the server's session", ""},
	} {
		name := fmt.Sprintf("%s %s", test.claim, test.value)
		claims := consumer.Claims("hall", at-30, at+60)
		delete(claims, test.claim)
		if test.value != "" {
			claims[test.claim] = json.RawMessage(test.value)
		}
		raw, err := json.Marshal(claims)
		require.NoError(t, err, name)
		token, err := Decode(compact(goodHeader, string(raw)))
		require.NoError(t, err, name)
		require.Equal(t, test.reason, text(token.CheckClaims(consumer, "hall", now)), name)
		require.Equal(t, test.remark, strings.Join(token.Remarks(consumer), "\n"), name)
	}
}

// The server lowers ASCII letters only: the Kelvin sign is no k.
func TestSubIsASCII(t *testing.T) {
	for sub, good := range map[string]bool{"kK": true, "\u212ak": false} {
		token := &Token{Claims: map[string]any{"sub": sub}}
		require.Equal(t, good, token.checkConsumer("kk") == nil, sub)
	}
}

// All reasons are named, and long values are shortened. Of two members with the same name
// the last one counts, as on the server.
func TestEveryReasonIsNamed(t *testing.T) {
	claims := fmt.Sprintf(`{"exp":1,"aud":"x","iss":%q,"sub":"z","room":"hall","room":"other","context":null}`, strings.Repeat("é", 3000))
	token, err := Decode(compact(goodHeader, claims))
	require.NoError(t, err)
	reasons := strings.Split(text(token.CheckClaims(consumer, "hall", now)), "\n")
	require.Len(t, reasons, 6)
	for _, reason := range reasons {
		require.Less(t, len(reason), 300)
	}
	require.NotContains(t, text(token.CheckClaims(consumer, "", now)), "room", "no room was asked for")
}
