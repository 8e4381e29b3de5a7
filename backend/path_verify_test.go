// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"crypto"
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
	m.mustWrite("roles/all", map[string]any{fieldAllowedRooms: "*", fieldAllowWildcardRoom: true})
	answer, claims := m.token("all", map[string]any{fieldRoom: "a"})
	token := answer[fieldToken].(string)
	for _, room := range []string{"", "a", "A"} {
		resp := m.verify(token, room)
		require.Equal(t, true, resp.Data[fieldValid], "%v", resp.Data)
		require.EqualValues(t, 1, resp.Data[fieldKeyVersion])
		require.NotContains(t, resp.Data, fieldReason)
		require.Equal(t, claims["room"], resp.Data[fieldClaims].(map[string]any)["room"])
		require.Empty(t, resp.Warnings)
	}
	wildcard := m.mustRead("creds/all", map[string]any{fieldRoom: "*"})[fieldToken].(string)
	require.Equal(t, true, m.verify(wildcard, "whatever").Data[fieldValid])

	m.advance(15*time.Minute - time.Second)
	require.Equal(t, true, m.verify(token, "a").Data[fieldValid])
	m.advance(time.Second)
	require.Equal(t, `expired 0s ago; for room "a", not "b"`, m.verify(token, "b").Data[fieldReason], "no leeway")
}

func TestVerifyTriesEveryKeyVersion(t *testing.T) {
	m := configured(t)
	now := testNow.Unix()
	first := m.creds()[fieldToken].(string)
	second := signedBy(t, secondKey(t), goodHeader,
		fmt.Sprintf(`{"aud":"clanmeeting","iss":"production","sub":"acme","room":"a","exp":%d,"nbf":%d,"context":{}}`, now+60, now-30))
	require.Contains(t, m.verify(second, "").Data[fieldReason], "signed by another key")
	m.stageSecond()
	require.Equal(t, []string{"key version 2, which is not the active one, signed this token; it works only while Clan Meeting has the public half of that version"},
		m.verify(second, "").Warnings)
	require.EqualValues(t, 1, m.verify(first, "").Data[fieldKeyVersion])
	require.EqualValues(t, 2, m.verify(second, "").Data[fieldKeyVersion])

	// An earlier version of the engine could store one key as two versions. Then the active
	// one is named, else the newest.
	m.mustWrite("keys/generate", nil)
	m.storeKey(3, storedOf(t, readTestdata(t, "rsa2048.openssh.pem")))
	require.EqualValues(t, 3, m.verify(second, "").Data[fieldKeyVersion], "the newest")
	for _, active := range []int{3, 2} {
		m.mustWrite("config", map[string]any{fieldActiveKey: active})
		require.EqualValues(t, active, m.verify(second, "").Data[fieldKeyVersion], "the active one")
	}
	require.Empty(t, m.verify(second, "").Warnings)
	require.Equal(t, "2 of [1 2 3]", m.keyState(), "the order of the trials is not that of the versions")

	m.mustDelete("keys/1")
	require.Contains(t, m.verify(first, "").Data[fieldReason], "signed by another key")
	require.Equal(t, true, m.verify(second, "").Data[fieldValid])
}

// Any changed character makes a token invalid. That includes the last one, although a
// lenient decoder ignores some of its bits.
func TestVerifyAnyCharacterChanged(t *testing.T) {
	m := configured(t)
	token := m.creds()[fieldToken].(string)
	ring, err := m.inside.currentKeyring(t.Context(), m.storage)
	require.NoError(t, err)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n"
	for i := range token {
		others := alphabet
		if i < len(token)-3 && i%7 != 0 { // all others at the end, and at every seventh place
			others = alphabet[i%64:i%64+1] + ".="
		}
		for _, other := range others {
			resp := m.inside.verify(token[:i]+string(other)+token[i+1:], "", ring)
			require.Equal(t, other == rune(token[i]), resp.Data[fieldValid], "%q at %d", other, i)
		}
	}
}

// What the server refuses or accepts is tested in package hosttoken; this is how the answer
// says it. The header is judged first, then the signature, then every claim.
func TestVerifyAnswers(t *testing.T) {
	m := configured(t)
	key, now := testKey(t), testNow.Unix()
	good := fmt.Sprintf(`{"aud":"clanmeeting","iss":"production","sub":"acme","room":"a","exp":%d,"nbf":%d,"context":{}}`, now+60, now-30)
	with := func(members string) string { return strings.TrimSuffix(good, "}") + "," + members + "}" } // the last of two counts
	for name, test := range map[string]struct{ token, reason, remark string }{
		"as it should be": {signedBy(t, key, goodHeader, good), "", ""},
		"another kid":     {signedBy(t, key, `{"alg":"RS256","kid":"evil","typ":"JWT"}`, good), `kid is "evil", not the consumer ID "acme"`, ""},
		"another key":     {signedBy(t, secondKey(t), goodHeader, with(`"aud":"x"`)), "signed by another key, or changed since: no key version of this mount verifies it", ""},
		"two claims": {
			signedBy(t, key, goodHeader, with(`"aud":["clanmeeting"],"context":[],"room":"b"`)),
			`wrong audience: aud is ["clanmeeting"], not "clanmeeting"; for room "b", not "a"`,
			"context is [], not an object; the server accepts it, but the vendor says to keep it {}",
		},
	} {
		resp := m.verify(test.token, "a")
		require.Equal(t, test.reason == "", resp.Data[fieldValid], name)
		reason, _ := resp.Data[fieldReason].(string)
		require.Equal(t, test.reason, reason, name)
		require.Equal(t, test.remark, strings.Join(resp.Warnings, "\n"), name)
	}
	large := m.verify(signedBy(t, key, goodHeader, with(`"x":[1e999,9007199254740993,1.5]`)), "")
	require.Equal(t, []any{"1e999", "9007199254740993", 1.5}, large.Data[fieldClaims].(map[string]any)["x"], "as in the token")
}

// A token may come with what is around it in a file or in a link.
func TestVerifyTakesTheTokenOutOfItsSurroundings(t *testing.T) {
	m := configured(t)
	m.mustWrite("config", map[string]any{fieldDomain: "meet.example.com"})
	answer := m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})
	token, link := answer[fieldToken].(string), answer[fieldMeetingURL].(string)
	for _, presented := range []string{
		token + "\r\n", " \t" + token + " ", "\ufeff" + token, "\r\n\ufeff\u00a0" + token + "\n",
		link, "\ufeff" + link + "\n", link + "#config.prejoin=false", link + "&lang=%zz",
		"meet.example.com/acme/support-1?lang=de&jwt=" + token,
		strings.ReplaceAll(link, ".eyJ", "%2EeyJ"), link + "%3D%3d",
	} {
		require.Equal(t, true, m.verify(presented, "support-1").Data[fieldValid], "%q", presented)
	}
	for _, presented := range []string{"https://meet.example.com/acme/support-1", "x" + token, strings.Replace(link, "jwt=", "jwt=%20", 1), strings.Replace(link, "jwt=", "JWT=x&jwt=x", 1)} {
		require.Equal(t, false, m.verify(presented, "").Data[fieldValid], "%q", presented)
	}
}

func TestVerifyRefusals(t *testing.T) {
	m := newTestMount(t)
	require.Contains(t, m.refused(logical.UpdateOperation, "verify", map[string]any{fieldToken: "a.b.c"}), "not configured; write consumer_id")
	for _, token := range []any{nil, "", " \n", "\ufeff", "https://meet.example.com/acme/support-1?lang=de", "?"} {
		require.Equal(t, "token is required: the JWT that was presented, or the link that has it after jwt=; from a file as token=@token.txt",
			m.refused(logical.UpdateOperation, "verify", map[string]any{fieldToken: token}))
	}
	for _, room := range []string{"", "a b"} {
		require.Contains(t, m.refused(logical.UpdateOperation, "verify", map[string]any{fieldToken: "a.b.c", fieldRoom: room}), "room must be one room name")
	}
	presented := "eyJhbGciOiJSUzI1NiJ9.hidden-part.x"
	require.Equal(t, "token must be one string", m.refused(logical.UpdateOperation, "verify", map[string]any{fieldToken: []any{presented}}))
	require.NotContains(t, m.log.String(), "hidden-part")
}
