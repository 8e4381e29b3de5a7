// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package hosttoken

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

var (
	consumer = Consumer{ID: "acme", Audience: "clanmeeting", Issuer: "production"}
	now      = time.Date(2030, 1, 31, 9, 0, 0, 0, time.UTC)
)

// token returns an unsigned token with good claims, except the given ones; nil leaves a
// claim out.
func token(t *testing.T, given map[string]any) *Token {
	t.Helper()
	claims := consumer.Claims("hall", now.Unix()-30, now.Unix()+60).Map()
	for name, value := range given {
		claims[name] = value
		if value == nil {
			delete(claims, name)
		}
	}
	raw, err := json.Marshal(claims)
	require.NoError(t, err)
	decoded, err := Decode(compact(`{"alg":"RS256","kid":"acme","typ":"JWT"}`, string(raw)))
	require.NoError(t, err)
	return decoded
}

func compact(header, claims string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".AAAA"
}

func problemOf(t *testing.T, err error) Problem {
	t.Helper()
	refused := new(RefusalError)
	require.ErrorAs(t, err, &refused)
	require.NotEmpty(t, err.Error())
	return refused.Problem
}

// What a creator makes, the library of the protocol verifies, with the claims as they were
// asked for.
func TestCreate(t *testing.T) {
	key, err := rsakey.Generate(t.Context(), rsakey.MinBits)
	require.NoError(t, err)
	signer, err := key.Signer()
	require.NoError(t, err)
	creator, err := NewCreator(consumer, signer)
	require.NoError(t, err)
	for _, name := range []room.Name{"hall", room.Every} {
		text, err := creator.Create(name, now.Unix()-30, now.Unix()+60)
		require.NoError(t, err)

		public, err := jwt.ParseRSAPublicKeyFromPEM([]byte(key.Public().PEM))
		require.NoError(t, err)
		parsed, err := jwt.Parse(text, func(*jwt.Token) (any, error) { return public, nil },
			jwt.WithValidMethods([]string{"RS256"}), jwt.WithTimeFunc(func() time.Time { return now }))
		require.NoError(t, err)
		require.Equal(t, map[string]any{"alg": "RS256", "kid": "acme", "typ": "JWT"}, parsed.Header)
		require.Equal(t, jwt.MapClaims{
			"aud": "clanmeeting", "context": map[string]any{}, "exp": float64(now.Unix() + 60), "iss": "production",
			"nbf": float64(now.Unix() - 30), "room": string(name), "sub": "acme",
		}, parsed.Claims)

		own, err := Decode(text)
		require.NoError(t, err)
		require.NoError(t, own.CheckHeader(consumer))
		require.Empty(t, own.CheckClaims(consumer, "hall", now))
		require.Empty(t, own.Remarks())
		require.True(t, own.SignedBy(key.Public()))
		own.signature[9] ^= 1
		require.False(t, own.SignedBy(key.Public()))
	}
}

// Map has the claims as they are in the token.
func TestMap(t *testing.T) {
	claims := consumer.Claims("hall", 1, 2)
	raw, err := json.Marshal(claims)
	require.NoError(t, err)
	mapped, err := json.Marshal(claims.Map())
	require.NoError(t, err)
	require.JSONEq(t, string(raw), string(mapped))
}

func TestDecodeRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty":           "",
		"no token":        "hello",
		"two parts":       "e30.e30",
		"four parts":      "e30.e30.AAAA.AAAA",
		"no signature":    "e30.e30.",
		"a line break":    "e30.e30\n.AAAA",
		"too long":        "e30.e30." + strings.Repeat("A", maxLength),
		"header a list":   compact("[]", "{}"),
		"header null":     compact("null", "{}"),
		"claims a list":   compact("{}", "[]"),
		"claims null":     compact("{}", "null"),
		"two objects":     compact("{}", "{}{}"),
		"not JSON":        compact("{}", "{"),
		"nested":          compact("{}", `{"x":`+strings.Repeat("[", maxNesting)+strings.Repeat("]", maxNesting)+"}"),
		"spare bits":      "e30.e31.AAAA",
		"signature's too": "e30.e30.AAAAAAB",
		"padding":         "e30=.e30.AAAA",
	} {
		_, err := Decode(text)
		require.Equal(t, Malformed, problemOf(t, err), name)
	}
	nested, err := Decode(compact("{}", `{"x":`+strings.Repeat("[", maxNesting-1)+strings.Repeat("]", maxNesting-1)+"}"))
	require.NoError(t, err)
	require.NotNil(t, nested)
}

// A segment whose last character has bits that no byte needs is not base64url, though
// a lenient decoder reads the same from it.
func TestSegmentsAreStrict(t *testing.T) {
	for segment, good := range map[string]bool{"e30": true, "e31": false, "e3A": false, "eyJhIjoxfQ": true, "eyJhIjoxfR": false, "e30=": false} {
		object, err := decodeSegment(segment)
		require.Equal(t, good, err == nil, segment)
		require.Equal(t, good, object != nil, segment)
	}
}

func TestCheckHeader(t *testing.T) {
	for header, want := range map[string]Problem{
		`{"alg":"none","kid":"acme","typ":"JWT"}`:          WrongAlgorithm,
		`{"alg":"HS256","kid":"acme","typ":"JWT"}`:         WrongAlgorithm,
		`{"alg":"rs256","kid":"acme","typ":"JWT"}`:         WrongAlgorithm,
		`{"alg":["RS256"],"kid":"acme","typ":"JWT"}`:       WrongAlgorithm,
		`{"kid":"acme","typ":"JWT"}`:                       WrongAlgorithm,
		`{"alg":"RS256","kid":"acme","typ":"jwt"}`:         WrongType,
		`{"alg":"RS256","kid":"acme"}`:                     WrongType,
		`{"alg":"RS256","kid":"evil","typ":"JWT"}`:         WrongKeyID,
		`{"alg":"RS256","typ":"JWT"}`:                      WrongKeyID,
		`{"alg":"RS256","kid":"acme","typ":"JWT","x5c":1}`: 0,
	} {
		decoded, err := Decode(compact(header, "{}"))
		require.NoError(t, err)
		if err = decoded.CheckHeader(consumer); want == 0 {
			require.NoError(t, err, header)
			continue
		}
		require.Equal(t, want, problemOf(t, err), header)
	}
}

func TestCheckClaims(t *testing.T) {
	at := now.Unix()
	for _, test := range []struct {
		claim string
		value any
		want  Problem // 0 for none
	}{
		{"exp", at + 1, 0},
		{"exp", at, Expired},
		{"exp", nil, 0},
		{"exp", json.Number(fmt.Sprintf("%d.5", at+60)), WrongTime},
		{"exp", json.Number("4e9"), WrongTime},
		{"exp", "4000000000", WrongTime},
		{"exp", json.Number("-9223372036854775808"), Expired},
		{"nbf", at, 0},
		{"nbf", at + 1, NotYetValid},
		{"nbf", nil, 0},
		{"nbf", true, WrongTime},
		{"aud", []string{"clanmeeting"}, WrongAudience},
		{"aud", "Clanmeeting", WrongAudience},
		{"aud", nil, WrongAudience},
		{"iss", "staging", WrongIssuer},
		{"sub", "evil", WrongSubject},
		{"room", "HALL", 0},
		{"room", "*", 0},
		{"room", "hall ", WrongRoom},
		{"room", "ha\u212al", WrongRoom},
		{"room", []string{"hall"}, WrongRoom},
		{"room", nil, WrongRoom},
		{"context", nil, 0},
		{"context", map[string]any{"user": 1}, 0},
		{"context", []string{}, WrongContext},
		{"context", json.RawMessage("null"), WrongContext},
		{"iat", 1, 0},
	} {
		problems := token(t, map[string]any{test.claim: test.value}).CheckClaims(consumer, "hall", now)
		if test.want == 0 {
			require.Empty(t, problems, "%s %v", test.claim, test.value)
			continue
		}
		require.Len(t, problems, 1, "%s %v", test.claim, test.value)
		require.Equal(t, test.want, problemOf(t, problems[0]), "%s %v", test.claim, test.value)
	}
}

// All problems are named, and a long value is shortened.
func TestCheckClaimsNamesEveryProblem(t *testing.T) {
	wrong := map[string]any{"exp": 1, "aud": "x", "iss": strings.Repeat("y", 10_000), "sub": "z", "room": "other", "context": 1}
	seen := map[Problem]bool{}
	for _, err := range token(t, wrong).CheckClaims(consumer, "hall", now) {
		seen[problemOf(t, err)] = true
		require.Less(t, len(err.Error()), 200)
	}
	require.Equal(t, map[Problem]bool{Expired: true, WrongAudience: true, WrongIssuer: true, WrongSubject: true, WrongRoom: true, WrongContext: true}, seen)
	require.Empty(t, token(t, map[string]any{"room": "other"}).CheckClaims(consumer, "", now), "any room was asked for")
}

func TestRemarks(t *testing.T) {
	require.Equal(t, []string{"the token has no exp: it never expires"}, token(t, map[string]any{"exp": nil}).Remarks())
	require.Equal(t, []string{"exp seems to be in milliseconds; it must be in seconds"}, token(t, map[string]any{"exp": now.UnixMilli()}).Remarks())
	require.Empty(t, token(t, map[string]any{"exp": now.AddDate(1000, 0, 0).Unix()}).Remarks())
}
