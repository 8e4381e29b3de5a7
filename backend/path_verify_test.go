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

func goodClaims() string {
	return fmt.Sprintf(`{"aud":"clanmeeting","context":{},"exp":%d,"iss":"production","nbf":%d,"room":"a","sub":"acme"}`,
		testNow.Unix()+60, testNow.Unix()-30)
}

// signedBy returns a token with any header and claims, signed with the standard library.
func signedBy(t testing.TB, key *rsa.PrivateKey, header, claims string) string {
	t.Helper()
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	require.NoError(t, err)
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
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
	answer, _ := m.token("all", map[string]any{fieldRoom: "a"})
	token := answer[fieldToken].(string)
	claims := m.mustRead("check/all", map[string]any{fieldRoom: "a"})[fieldClaims]
	for _, room := range []string{"", "a", "A"} {
		resp := m.verify(token, room)
		require.Equal(t, map[string]any{fieldValid: true, fieldKeyVersion: 1.0, fieldClaims: claims}, resp.Data)
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
	first, second := m.creds()[fieldToken].(string), signedBy(t, secondKey(t), goodHeader, goodClaims())
	const noKey = "signed by another key, or changed since: no key version of this mount verifies it"
	require.Equal(t, noKey, m.verify(second, "b").Data[fieldReason], "nothing of its claims")
	m.stageSecond()
	require.EqualValues(t, 1, m.verify(first, "").Data[fieldKeyVersion])
	staged := m.verify(second, "")
	require.EqualValues(t, 2, staged.Data[fieldKeyVersion])
	require.Equal(t, []string{"key version 2, which is not the active one, signed this token; " +
		"it works only while Clan Meeting has the public half of that version"}, staged.Warnings)

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
	require.Equal(t, noKey, m.verify(first, "").Data[fieldReason])
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
	with := func(members string) string { return strings.TrimSuffix(goodClaims(), "}") + "," + members + "}" } // the last of two counts
	for _, test := range []struct{ header, claims, reason, remark string }{
		{`{"alg":"RS256","kid":"evil","typ":"JWT"}`, with(`"room":"b"`), `kid is "evil", not the consumer ID "acme"`, ""},
		{
			goodHeader, with(`"aud":["clanmeeting"],"context":[],"room":"b"`),
			`wrong audience: aud is ["clanmeeting"], not "clanmeeting"; for room "b", not "a"`,
			"context is [], not an object; the server accepts it, but the vendor says to keep it {}",
		},
		{goodHeader, with(`"exp":9007199254740993`), "", "exp seems to be in milliseconds; it must be in seconds"},
	} {
		resp := m.verify(signedBy(t, testKey(t), test.header, test.claims), "a")
		reason, _ := resp.Data[fieldReason].(string)
		require.Equal(t, []any{test.reason == "", test.reason}, []any{resp.Data[fieldValid], reason})
		require.Equal(t, test.remark, strings.Join(resp.Warnings, "\n"))
	}
	// A number that JSON's readers may change is shown as text, and judged as a number.
	shown := m.verify(signedBy(t, testKey(t), goodHeader, with(`"x":[{"y":1e999},-9007199254740992,9007199254740991,1.5]`)), "")
	want := []any{map[string]any{"y": "1e999"}, "-9007199254740992", 9007199254740991.0, 1.5}
	require.Equal(t, want, shown.Data[fieldClaims].(map[string]any)["x"])
}

// A token may come with what is around it in a file or in a link.
func TestPresentedToken(t *testing.T) {
	jwt := "e30.eyJ9.AA"
	link := "https://meet.example.com/acme/support-1?jwt=" + jwt
	for text, want := range map[string]string{
		" \t" + jwt + " ":                       jwt,
		"\r\n\ufeff\u00a0" + jwt + "\n":         jwt,
		"\ufeff" + link + "\n":                  jwt,
		link + "#config.prejoin=false":          jwt,
		link + "&lang=%zz":                      jwt,
		"meet.example.com/x?lang=de&jwt=" + jwt: jwt,
		"https://x/?jwt=e30%2EeyJ9.AA%3D%3d":    jwt + "==",
		"https://x/?JWT=x&jwt=y":                "y",
		"https://x/?lang=de":                    "",
		"?":                                     "",
		" \n":                                   "",
		"\ufeff":                                "",
	} {
		require.Equal(t, want, presentedToken(text), "%q", text)
	}
}

func TestVerifyRefusals(t *testing.T) {
	m := newTestMount(t)
	for want, data := range map[string]map[string]any{
		"not configured; write consumer_id": {fieldToken: "a.b.c"},
		"token is required: the JWT that was presented, or the link that has it after jwt=; from a file as token=@token.txt": {fieldToken: "?"},
		"room must be one room name": {fieldToken: "a.b.c", fieldRoom: ""},
		"token must be one string":   {fieldToken: []any{"eyJhbGciOiJSUzI1NiJ9.hidden-part.x"}},
	} {
		message := m.refused(logical.UpdateOperation, "verify", data)
		require.Contains(t, message, want)
		require.NotContains(t, message+m.log.String(), "hidden-part")
	}
}
