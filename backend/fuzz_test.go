// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// These properties hold for every input. Each seed also runs in the normal tests; "make
// fuzz" looks for more inputs.

// A role is refused or stored. If it is stored, writing back what a read returns changes
// nothing, and no token exceeds the role's limits.
func FuzzRole(f *testing.F) {
	f.Add("support-*", "support-1", "5m", "1h", "30s", false)
	f.Add("a,b", "a", "300", "300", "0", false)
	f.Add("{{identity.entity.name}}", "{{identity.entity.name}}", "", "", "", true)
	f.Add("*", "*", "-1", "1e3", "1.5s", false)
	f.Add("", "", "9223372036s", "99999999999999999999", "1000000h", false)
	f.Add("\x00", "\ufeff", " 5m ", "5M", "0x10", false)
	m := configured(f)
	m.asEntity(&logical.Entity{ID: "e1", Name: "ann"})
	f.Fuzz(func(t *testing.T, rooms, defaultRoom, ttl, maxTTL, notBefore string, template bool) {
		m.t = t
		written, err := m.call(logical.UpdateOperation, "roles/fuzz", map[string]any{
			fieldAllowedRooms: rooms, fieldDefaultRoom: defaultRoom, fieldTTL: ttl, fieldMaxTTL: maxTTL, fieldNotBeforeDuration: notBefore, fieldAllowedRoomsTemplate: template,
		})
		require.NoError(t, err)
		if written.IsError() {
			return
		}
		defer m.mustDelete("roles/fuzz")
		read := m.mustRead("roles/fuzz", nil)
		m.mustWrite("roles/fuzz", read)
		require.Equal(t, read, m.mustRead("roles/fuzz", nil))

		resp, err := m.call(logical.ReadOperation, "creds/fuzz", map[string]any{fieldTTL: "100000h"})
		require.NoError(t, err)
		if !resp.IsError() {
			claims := verified(t, resp.Data[fieldToken].(string), testKey(t))
			require.LessOrEqual(t, resp.Data[fieldTTL], read[fieldMaxTTL])
			require.NotEqual(t, "*", claims["room"])
		}
	})
}

// A request is refused, or its token keeps within the role. check and a batch make the
// same decision.
func FuzzTokenRequest(f *testing.F) {
	f.Add("support-1", "5m", "", int64(60), int64(120), int64(300), int64(30), int64(0), false)
	f.Add("SUPPORT-1", "1", fmt.Sprint(testNow.Unix()), int64(-60), int64(1), int64(1), int64(86400), int64(600), true)
	f.Add("support-1", "100h", at(3600), int64(7), int64(7), int64(300), int64(30), int64(86400), false)
	f.Add("support-1", "", at(30), int64(-1), int64(31), int64(3600), int64(0), int64(60), false)
	f.Add("support-1", "", "", int64(1<<40), int64(1<<41), int64(5), int64(5), int64(5), false)
	f.Add("support-1", "", at(1<<28), int64(-1<<40), int64(1<<33), int64(5), int64(5), int64(1<<28), true)
	f.Add("*", "0", "0001-01-01T00:00:01Z", int64(7), int64(7), int64(300), int64(30), int64(0), false)
	f.Add("support-\u212a", "-5m", "9223372036854775807", int64(7), int64(7), int64(300), int64(30), int64(0), false)
	f.Add("support-1\n", "1e2", "1e9", int64(7), int64(7), int64(300), int64(30), int64(0), false)
	f.Add("", "", "2030-01-31 09:00:00", int64(7), int64(7), int64(300), int64(30), int64(0), false)
	m := configured(f)
	f.Fuzz(func(t *testing.T, name, ttl, start string, from, until, life, back, ahead int64, lease bool) {
		m.t = t
		now := testNow.Unix()
		from, until = from%(1<<42), until%(1<<42)
		role := map[string]any{
			fieldAllowedRooms: "support-*", fieldTTL: life, fieldMaxTTL: max(life, 1), fieldNotBeforeDuration: back, fieldMaxNotBefore: ahead, fieldGenerateLease: lease,
		}
		if from%7 != 0 { // otherwise the role has no beginning
			role[fieldValidFrom] = fmt.Sprint(now + from)
		}
		if until%7 != 0 {
			role[fieldValidUntil] = fmt.Sprint(now + until)
		}
		written, err := m.call(logical.UpdateOperation, "roles/fuzz", role)
		require.NoError(t, err)
		if written.IsError() {
			return
		}
		defer m.mustDelete("roles/fuzz")
		resp, claims := m.decide("fuzz", map[string]any{fieldRoom: name, fieldTTL: ttl, fieldNotBefore: start})
		if resp.IsError() {
			return
		}
		nbf, exp := int64(claims["nbf"].(float64)), int64(claims["exp"].(float64))
		require.Regexp(t, `^support-[a-z0-9_-]*$`, claims["room"])
		require.Greater(t, exp, now)
		require.Greater(t, exp, nbf)
		require.GreaterOrEqual(t, nbf, now-back)
		require.LessOrEqual(t, exp-max(nbf, now), max(life, 1), "the role's max_ttl")
		if from%7 != 0 {
			require.GreaterOrEqual(t, nbf, now+from)
		}
		if until%7 != 0 {
			require.LessOrEqual(t, exp, now+until)
		}
		if from%7 == 0 && until%7 == 0 {
			require.LessOrEqual(t, nbf, now+ahead, "a role without a window")
		}
	})
}

// asciiLower lowers a room's name as the meeting server does.
func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// A token that is called valid is accepted by another library, too. A token that is
// called invalid has a reason. No input is a fault.
func FuzzVerify(f *testing.F) {
	claims := fmt.Sprintf(`{"aud":"clanmeeting","context":{},"exp":%d,"iss":"production","nbf":%d,"room":"support-1","sub":"acme"}`, testNow.Unix()+60, testNow.Unix())
	f.Add(strings.TrimSpace(readTestdata(f, "golden.jwt")), claims, "support-1")
	f.Add("e30.e30.e30", strings.Replace(claims, `"clanmeeting"`, `["clanmeeting"]`, 1), "Support-1")
	f.Add("", strings.Replace(claims, `"exp":`, `"exp":1e`, 1), "*")
	f.Add("a.b.c", strings.Replace(claims, "}", "}}", 1), "")
	f.Add("eyJhbGciOiJub25lIn0.e30.", strings.Replace(claims, `"room"`, `"room":"x","room"`, 1), "x")
	f.Add("a", `{"x":`+strings.Repeat("[", 9998)+strings.Repeat("]", 9998)+"}", "x")
	f.Add("b", strings.Replace(claims, "support-1", "\u212a", 1), "k")
	f.Add("?jwt=a.b.c", strings.Replace(claims, `"exp":`, `"exp":1.9e9,"nbf":0.5,"x":`, 1), "support-1")
	f.Add("d", strings.NewReplacer(`"exp":`, `"exp":false,"x":`, "acme", "ACME").Replace(claims), "support-1")
	f.Add("c", strings.Replace(claims, `"exp":`, `"exp":9223372036854775807,"x":`, 1), "support-1")
	f.Add("\x00", `{"exp":-9223372036854775808,"nbf":9223372036854775807}`, "\x00")
	m := configured(f)
	key := testKey(f)
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","kid":"acme","typ":"JWT"}`))
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithStrictDecoding(), jwt.WithPaddingAllowed(), jwt.WithJSONNumber(), jwt.WithoutClaimsValidation())
	f.Fuzz(func(t *testing.T, token, payload, name string) {
		m.t = t
		signed := header + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
		signature, err := jwt.SigningMethodRS256.Sign(signed, key)
		require.NoError(t, err)
		for _, presented := range []string{token, signed + "." + base64.RawURLEncoding.EncodeToString(signature)} {
			resp, err := m.call(logical.UpdateOperation, "verify", map[string]any{fieldToken: presented, fieldRoom: name})
			require.NoError(t, err)
			switch {
			case resp.IsError():
				continue // no token, or an invalid room name
			case resp.Data[fieldValid] == false:
				require.NotEmpty(t, resp.Data[fieldReason])
				require.Less(t, len(resp.Data[fieldReason].(string)), 3000)
				continue
			}
			claims := jwt.MapClaims{}
			_, err = parser.ParseWithClaims(presentedToken(presented), claims, func(*jwt.Token) (any, error) { return &key.PublicKey, nil })
			require.NoError(t, err)
			require.Equal(t, []any{"clanmeeting", "production", "acme"}, []any{claims["aud"], claims["iss"], asciiLower(claims["sub"].(string))})
			for claim, right := range map[string]func(at float64) bool{
				"exp": func(at float64) bool { return float64(testNow.Unix()) < at },
				"nbf": func(at float64) bool { return float64(testNow.Unix()) >= at },
			} {
				if value, ok := claims[claim]; ok && value != false {
					at, _ := value.(json.Number).Float64() // infinite beyond its range
					require.True(t, right(at), "%s %s", claim, value)
				}
			}
			if name != "" && claims["room"] != "*" {
				require.Equal(t, asciiLower(name), asciiLower(claims["room"].(string)))
			}
		}
	})
}

// For any role that can be stored, and any batch: the answer, the memory and the work per
// item stay within their limits.
func FuzzLimits(f *testing.F) {
	f.Add("support-*", 1, "", "support-1", "x", 3)
	f.Add("{{identity.entity.metadata.k}}", 700, "{{identity.entity.metadata.k}}", "", "", 1000)
	f.Add("*a*a*a*a*a*a*b", 2000, "", strings.Repeat("a", 255), strings.Repeat("r", 500), 900)
	f.Add(strings.Repeat("x", 255), 513, strings.Repeat("x", 255), "", "", 40)
	f.Add("{{identity.entity.name}}{{identity.groups.names.g.id}}*", 2000, "a", "b", "", 100)
	m := configured(f)
	m.asEntity(&logical.Entity{ID: "e1", Name: strings.Repeat("n", 255), Metadata: map[string]string{"k": strings.Repeat("v", 255)}}, &logical.Group{ID: "g1", Name: "g"})
	f.Fuzz(func(t *testing.T, rule string, rules int, defaultRoom, name, reference string, items int) {
		m.t = t
		if rules < 0 || rules > 3000 || items < 0 || items > 1100 {
			return
		}
		texts := make([]any, rules)
		for i := range texts {
			texts[i] = rule
		}
		written, err := m.call(logical.UpdateOperation, "roles/fuzz", map[string]any{fieldAllowedRooms: texts, fieldAllowedRoomsTemplate: true, fieldDefaultRoom: defaultRoom})
		require.NoError(t, err)
		if written.IsError() {
			require.Less(t, len(written.Error().Error()), 1000)
			return
		}
		defer m.mustDelete("roles/fuzz")
		r, err := m.inside.currentRole(t.Context(), m.storage, "fuzz")
		require.NoError(t, err)
		require.Less(t, r.size(), 1<<20)
		list := make([]any, items)
		for i := range list {
			list[i] = map[string]any{fieldRoom: name, fieldReference: reference}
		}
		// Decided only, because signatures would take most of the time.
		granted, _, err := m.issuanceOf("fuzz").decideAll(t.Context(), parsed(list))
		if err != nil {
			require.True(t, isInvalid(err), "%v", err)
			require.Less(t, len(err.Error()), largestAnswer)
		} else {
			require.Len(t, granted, items)
		}
		resp, err := m.call(logical.ReadOperation, "check/fuzz", map[string]any{fieldRoom: name})
		require.NoError(t, err)
		answer, err := json.Marshal(resp.Data)
		require.NoError(t, err)
		require.Less(t, len(answer), largestAnswer)
	})
}
