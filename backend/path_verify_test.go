// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

const goodHeader = `{"alg":"RS256","kid":"acme","typ":"JWT"}`

// signedBy returns a token with any header and claims, signed with the standard library.
func signedBy(t testing.TB, key *rsa.PrivateKey, header, claims string) string {
	t.Helper()
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	require.NoError(t, err)
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func segmentOf(t testing.TB, token string) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	require.NoError(t, err)
	return string(raw)
}

func (m *testMount) verify(token, room string) *logical.Response {
	m.t.Helper()
	data := map[string]any{fieldToken: token}
	if room != "" {
		data[fieldRoom] = room
	}
	return m.mustWrite("verify", data)
}

func TestVerifyOwnTokens(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/all", map[string]any{fieldAllowedRooms: "*", fieldAllowWildcardRoom: true, fieldMaxNotBefore: "1h"})
	_, claims := m.token("all", map[string]any{fieldRoom: "a"})
	answer := m.mustRead("creds/all", map[string]any{fieldRoom: "a"})
	token := answer[fieldToken].(string)
	for _, room := range []string{"", "a", "A"} {
		resp := m.verify(token, room)
		require.Equal(t, true, resp.Data[fieldValid], "%v", resp.Data)
		require.EqualValues(t, 1, resp.Data[fieldKeyVersion])
		require.NotContains(t, resp.Data, fieldReason)
		require.Equal(t, claims["room"], resp.Data[fieldClaims].(map[string]any)["room"])
		require.Empty(t, resp.Warnings)
	}
	require.Equal(t, true, m.verify(token+"\n", "a").Data[fieldValid], "a file's last line end")
	require.Equal(t, `for room "a", not "b"`, m.verify(token, "b").Data[fieldReason])

	wildcard := m.mustRead("creds/all", map[string]any{fieldRoom: "*"})[fieldToken].(string)
	require.Equal(t, true, m.verify(wildcard, "whatever").Data[fieldValid])

	m.advance(15*time.Minute - time.Second)
	require.Equal(t, true, m.verify(token, "a").Data[fieldValid])
	m.advance(time.Second)
	require.Equal(t, "expired 0s ago", m.verify(token, "a").Data[fieldReason], "no leeway")
	m.advance(40 * time.Second)
	require.Equal(t, `expired 40s ago; for room "a", not "b"`, m.verify(token, "b").Data[fieldReason])

	scheduled := m.mustRead("creds/all", map[string]any{fieldRoom: "a", fieldNotBefore: m.clock().Unix() + 12})[fieldToken].(string)
	require.Equal(t, "not valid for another 12s", m.verify(scheduled, "").Data[fieldReason])
	m.advance(12 * time.Second)
	require.Equal(t, true, m.verify(scheduled, "").Data[fieldValid])
}

func TestVerifyTriesEveryKeyVersion(t *testing.T) {
	m := configured(t)
	first := m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})[fieldToken].(string)
	m.mustWrite("config", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.openssh.pem")})
	second := m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})[fieldToken].(string)
	require.EqualValues(t, 1, m.verify(first, "").Data[fieldKeyVersion])
	require.EqualValues(t, 2, m.verify(second, "").Data[fieldKeyVersion])
	require.Empty(t, m.verify(second, "").Warnings)
	require.Equal(t, []string{"key version 1, which is not the active one, signed this token; it works only while Clan Meeting has the public half of that version"},
		m.verify(first, "").Warnings)

	// An earlier version of the engine could store one key as two versions. Then the active
	// one is named, else the newest.
	m.mustWrite("config", map[string]any{fieldActiveKey: 1})
	m.mustWrite("keys/generate", nil)
	require.NoError(t, store(t.Context(), m.storage, keyPath(3), storedOf(t, readTestdata(t, "rsa2048.openssh.pem"))))
	m.wire.InvalidateKey(t.Context(), keyPath(3))
	require.EqualValues(t, 3, m.verify(second, "").Data[fieldKeyVersion], "the newest")
	m.mustWrite("config", map[string]any{fieldActiveKey: 2})
	require.EqualValues(t, 2, m.verify(second, "").Data[fieldKeyVersion], "the active one")

	m.mustDelete("keys/1")
	require.Contains(t, m.verify(first, "").Data[fieldReason], "signed by another key")
	require.Equal(t, true, m.verify(second, "").Data[fieldValid])
}

// Any changed character makes a token invalid. That includes the last one, although a
// lenient decoder ignores some of its bits.
func TestVerifyAnyCharacterChanged(t *testing.T) {
	m := configured(t)
	token := m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})[fieldToken].(string)
	cfg, ring, err := m.inside.keys(t.Context(), m.storage)
	require.NoError(t, err)
	valid := func(token string) any {
		resp, err := m.inside.verify(t.Context(), token, "", cfg, ring)
		require.NoError(t, err)
		return resp.Data[fieldValid]
	}
	require.Equal(t, true, valid(token))
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n"
	for i := range token {
		others := alphabet
		if i < len(token)-3 && i%7 != 0 { // all others at the end, and at every seventh place
			others = alphabet[i%64:i%64+1] + ".="
		}
		for _, other := range others {
			if other == rune(token[i]) {
				continue
			}
			changed := token[:i] + string(other) + token[i+1:]
			require.Equal(t, false, valid(changed), "%q at %d", other, i)
		}
		require.Equal(t, false, valid(token[:i]+token[i+1:]), "without %d", i)
	}
}

// A key is tried as soon as it is staged.
func TestVerifyTriesAStagedKey(t *testing.T) {
	m := configured(t)
	now := testNow.Unix()
	token := signedBy(t, secondKey(t), goodHeader, fmt.Sprintf(`{"aud":"clanmeeting","iss":"production","sub":"acme","room":"a","exp":%d,"nbf":%d,"context":{}}`, now+60, now-30))
	require.Contains(t, m.verify(token, "").Data[fieldReason], "signed by another key")
	m.mustWrite("keys/import", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.openssh.pem")})
	require.EqualValues(t, 2, m.verify(token, "").Data[fieldKeyVersion])
}

func TestVerifyAsTheServer(t *testing.T) {
	m := configured(t)
	key := testKey(t)
	now := testNow.Unix()
	good := fmt.Sprintf(`"aud":"clanmeeting","iss":"production","sub":"acme","room":"a","exp":%d,"nbf":%d,"context":{}`, now+60, now-30)
	with := func(claim, value string) string {
		return "{" + good + fmt.Sprintf(`,%q:%s}`, claim, value) // the last of two counts
	}
	without := func(part string) string { return "{" + strings.Replace(good, part, "", 1) + "}" }
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"acme","typ":"JWT"}`)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte("{"+good+"}")) + "."
	publicPEM := m.mustRead("config", nil)[fieldPublicKey].(string)
	hs := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"acme","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte("{"+good+"}"))
	mac := hmac.New(sha256.New, []byte(publicPEM))
	mac.Write([]byte(hs))
	hs += "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	other := secondKey(t)

	for name, test := range map[string]struct{ token, want string }{
		"as it should be": {signedBy(t, key, goodHeader, "{"+good+"}"), ""},
		"no exp":          {signedBy(t, key, goodHeader, without(fmt.Sprintf(`"exp":%d,`, now+60))), ""},
		"no nbf":          {signedBy(t, key, goodHeader, without(fmt.Sprintf(`"nbf":%d,`, now-30))), ""},
		"upper-case room": {signedBy(t, key, goodHeader, with("room", `"A"`)), ""},
		"any room":        {signedBy(t, key, goodHeader, with("room", `"*"`)), ""},
		"milliseconds":    {signedBy(t, key, goodHeader, with("exp", fmt.Sprint(now*1000))), ""},
		"more claims":     {signedBy(t, key, goodHeader, with("iat", "1")), ""},
		"no float64":      {signedBy(t, key, goodHeader, with("x", "[1e999]")), ""},

		"HS256 with the public key": {hs, `signed with alg "HS256", not RS256`},
		"alg none":                  {none, "malformed"},
		"alg none, signed":          {none + "AAAA", `signed with alg "none", not RS256`},
		"alg in lower case":         {signedBy(t, key, `{"alg":"rs256","kid":"acme","typ":"JWT"}`, "{"+good+"}"), "not RS256"},
		"alg RS512":                 {signedBy(t, key, `{"alg":"RS512","kid":"acme","typ":"JWT"}`, "{"+good+"}"), "not RS256"},
		"no alg":                    {signedBy(t, key, `{"kid":"acme","typ":"JWT"}`, "{"+good+"}"), "signed with alg missing"},
		"no typ":                    {signedBy(t, key, `{"alg":"RS256","kid":"acme"}`, "{"+good+"}"), `typ is missing, not "JWT"`},
		"typ in lower case":         {signedBy(t, key, `{"alg":"RS256","kid":"acme","typ":"jwt"}`, "{"+good+"}"), `typ is "jwt", not "JWT"`},
		"another kid":               {signedBy(t, key, `{"alg":"RS256","kid":"evil","typ":"JWT"}`, "{"+good+"}"), `kid is "evil", not the consumer ID "acme"`},
		"another key":               {signedBy(t, other, goodHeader, "{"+good+"}"), "signed by another key"},
		"aud as a list":             {signedBy(t, key, goodHeader, with("aud", `["clanmeeting"]`)), `wrong audience: aud is ["clanmeeting"], not "clanmeeting"`},
		"another aud":               {signedBy(t, key, goodHeader, with("aud", `"Clanmeeting"`)), "wrong audience"},
		"no aud":                    {signedBy(t, key, goodHeader, without(`"aud":"clanmeeting",`)), "wrong audience: aud is missing"},
		"another iss":               {signedBy(t, key, goodHeader, with("iss", `"staging"`)), "wrong issuer"},
		"another sub":               {signedBy(t, key, goodHeader, with("sub", `"evil"`)), "wrong consumer"},
		"room as a list":            {signedBy(t, key, goodHeader, with("room", `["a"]`)), `room is ["a"], not a name`},
		"no room":                   {signedBy(t, key, goodHeader, without(`"room":"a",`)), "room is missing"},
		"another room":              {signedBy(t, key, goodHeader, with("room", `"a "`)), `for room "a ", not "a"`},
		"exp a float":               {signedBy(t, key, goodHeader, with("exp", fmt.Sprintf("%d.5", now+60))), "exp is"},
		"exp with an exponent":      {signedBy(t, key, goodHeader, with("exp", "4e9")), "not a whole number of seconds"},
		"exp a string":              {signedBy(t, key, goodHeader, with("exp", `"4000000000"`)), "not a whole number of seconds"},
		"exp null":                  {signedBy(t, key, goodHeader, with("exp", "null")), "exp is null, not a whole number"},
		"expired long ago":          {signedBy(t, key, goodHeader, with("exp", "-9223372036854775808")), "expired 100 years or more ago"},
		"nbf in milliseconds":       {signedBy(t, key, goodHeader, with("nbf", fmt.Sprint(now*1000))), "not valid for another 100 years or more"},
		"nbf a string":              {signedBy(t, key, goodHeader, with("nbf", `"1"`)), "nbf is"},
		"context null":              {signedBy(t, key, goodHeader, with("context", "null")), "context is null, not an object"},
		"context a list":            {signedBy(t, key, goodHeader, with("context", "[]")), "context is [], not an object"},
		"claims a list":             {signedBy(t, key, goodHeader, "["+`"a"`+"]"), "malformed: its claims"},
		"claims null":               {signedBy(t, key, goodHeader, "null"), "malformed: its claims"},
		"header null":               {signedBy(t, key, "null", "{"+good+"}"), "malformed: its header"},
		"nested":                    {signedBy(t, key, goodHeader, with("x", strings.Repeat("[", 9998)+strings.Repeat("]", 9998))), "malformed: its claims are nested"},
		"two objects":               {signedBy(t, key, goodHeader, "{"+good+"}{}"), "malformed: its claims"},
		"no token":                  {"hello", "malformed: it must be three parts of base64url with dots between, like what follows jwt="},
		"two parts":                 {"a.b", "malformed"},
		"four parts":                {"a.b.c.d", "malformed"},
		"broken by a line":          {"a.b\n.c", "malformed"},
		"endless":                   {strings.Repeat("a", 33<<10) + ".b.c", "malformed"},
	} {
		resp := m.verify(test.token, "a")
		reason, _ := resp.Data[fieldReason].(string)
		if test.want == "" {
			require.Equal(t, true, resp.Data[fieldValid], "%s: %s", name, reason)
			continue
		}
		require.Equal(t, false, resp.Data[fieldValid], name)
		require.Contains(t, reason, test.want, name)
		require.Less(t, len(reason), 300, name)
	}
	kelvin := m.verify(signedBy(t, key, goodHeader, with("room", `"\u212a"`)), "k")
	require.Equal(t, false, kelvin.Data[fieldValid], "the server lowers ASCII alone")
	large := m.verify(signedBy(t, key, goodHeader, with("x", "[1e999,9007199254740993,1.5]")), "")
	require.Equal(t, []any{"1e999", "9007199254740993", 1.5}, large.Data[fieldClaims].(map[string]any)["x"], "as in the token")
	require.Equal(t, []string{"the token has no exp: it never expires"},
		m.verify(signedBy(t, key, goodHeader, without(fmt.Sprintf(`"exp":%d,`, now+60))), "").Warnings)
	require.Equal(t, []string{"exp seems to be in milliseconds; it must be in seconds"},
		m.verify(signedBy(t, key, goodHeader, with("exp", fmt.Sprint(now*1000))), "").Warnings)
}

func TestVerifyRefusals(t *testing.T) {
	m := newTestMount(t)
	require.Contains(t, m.refused(logical.UpdateOperation, "verify", map[string]any{fieldToken: "a.b.c"}), "not configured; write consumer_id")
	require.Contains(t, m.refused(logical.UpdateOperation, "verify", nil), "token is required")
	require.Contains(t, m.refused(logical.UpdateOperation, "verify", map[string]any{fieldToken: " \n"}), "token is required: the token that was presented, as in token=@")
	require.Contains(t, m.refused(logical.UpdateOperation, "verify", map[string]any{fieldToken: "a.b.c", fieldRoom: "a b"}), "room must be")
	presented := "eyJhbGciOiJSUzI1NiJ9.hidden-part.x"
	require.Equal(t, "token must be one string", m.refused(logical.UpdateOperation, "verify", map[string]any{fieldToken: []any{presented}}))
	require.NotContains(t, m.log.String(), "hidden-part")
}
