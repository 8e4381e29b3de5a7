// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// These properties hold for every input. Each seed also runs in the normal tests; "make
// fuzz" looks for more inputs.

// A role is refused or stored. If it is stored, writing back what a read returns changes
// nothing. A request is refused, or its token keeps within the role. check and a batch make
// the same decision.
func FuzzTokenRequest(f *testing.F) {
	const plain, mine = "support-*", "{{identity.entity.name}}"
	f.Add(plain, "", false, "support-1", "5m", "", int64(60), int64(120), int64(300), int64(30), int64(0), false)
	f.Add(plain, "support-1", false, "SUPPORT-1", "1", at(0), int64(-60), int64(1), int64(1), int64(86400), int64(600), true)
	f.Add(plain, "", false, "support-1", "100h", at(3600), int64(7), int64(7), int64(300), int64(30), int64(86400), false)
	f.Add(plain, "", false, "support-1", "", at(30), int64(-1), int64(31), int64(3600), int64(0), int64(60), false)
	f.Add(plain, "", false, "support-1", "", "", int64(1<<40), int64(1<<41), int64(5), int64(5), int64(5), false)
	f.Add(plain, "", false, "support-1", "", at(1<<28), int64(-1<<40), int64(1<<33), int64(5), int64(5), int64(1<<28), true)
	f.Add(plain, "", false, "support-1", "0", "0001-01-01T00:00:01Z", int64(7), int64(7), int64(300), int64(30), int64(0), false)
	f.Add("*", "", false, "k", "-5m", "9223372036854775807", int64(7), int64(7), int64(300), int64(30), int64(0), false)
	f.Add("*", "*", false, "a\n", "1e2", "1e9", int64(7), int64(7), int64(300), int64(30), int64(0), false)
	f.Add("a,b", "b", false, "", "", "2030-01-31 09:00:00", int64(7), int64(7), int64(300), int64(30), int64(0), false)
	f.Add(mine, mine, true, "", "", "", int64(7), int64(7), int64(1<<40), int64(30), int64(-1), false)
	f.Add("\x00", "\ufeff", true, "", "", "", int64(7), int64(7), int64(300), int64(30), int64(0), false)
	m := configured(f)
	m.asEntity(&logical.Entity{ID: "e1", Name: "ann"})
	f.Fuzz(func(t *testing.T, rooms, defaultRoom string, template bool, name, ttl, start string, from, until, life, back, ahead int64, lease bool) {
		m.t = t
		now := testNow.Unix()
		from, until = from%(1<<42), until%(1<<42)
		role := map[string]any{
			fieldAllowedRooms: rooms, fieldDefaultRoom: defaultRoom, fieldAllowedRoomsTemplate: template,
			fieldTTL: life, fieldMaxTTL: max(life, 1), fieldNotBeforeDuration: back, fieldMaxNotBefore: ahead, fieldGenerateLease: lease,
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
		read := m.mustRead("roles/fuzz", nil)
		m.mustWrite("roles/fuzz", read)
		require.Equal(t, read, m.mustRead("roles/fuzz", nil))

		request := map[string]any{fieldTTL: ttl, fieldNotBefore: start}
		if name != "" {
			request[fieldRoom] = name
		}
		resp, claims := m.decide("fuzz", request)
		if resp.IsError() {
			return
		}
		nbf, exp := int64(claims["nbf"].(float64)), int64(claims["exp"].(float64))
		require.Regexp(t, `^[a-z0-9_-]{1,255}$`, claims["room"])
		require.True(t, rooms != plain || strings.HasPrefix(claims["room"].(string), "support-"))
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

// A token that is called valid is accepted by another library, too. A token that is
// called invalid has a reason. No input is a fault.
func FuzzVerify(f *testing.F) {
	claims := goodClaims()
	f.Add(strings.TrimSpace(readTestdata(f, "golden.jwt")), claims, "support-1")
	f.Add("e30.e30.e30", strings.Replace(claims, `"clanmeeting"`, `["clanmeeting"]`, 1), "A")
	f.Add("", strings.Replace(claims, `"exp":`, `"exp":1e`, 1), "*")
	f.Add("a.b.c", strings.Replace(claims, "}", "}}", 1), "")
	f.Add("eyJhbGciOiJub25lIn0.e30.", strings.Replace(claims, `"room"`, `"room":"x","room"`, 1), "x")
	f.Add("a", `{"x":`+strings.Repeat("[", 9998)+strings.Repeat("]", 9998)+"}", "x")
	f.Add("b", strings.Replace(claims, `"a"`, "\"\u212a\"", 1), "k")
	f.Add("?jwt=a.b.c", strings.Replace(claims, `"exp":`, `"exp":1.9e9,"nbf":0.5,"x":`, 1), "a")
	f.Add("d", strings.NewReplacer(`"exp":`, `"exp":false,"x":`, "acme", "ACME").Replace(claims), "a")
	f.Add("c", strings.Replace(claims, `"exp":`, `"exp":9223372036854775807,"x":`, 1), "a")
	f.Add("\x00", `{"exp":-9223372036854775808,"nbf":9223372036854775807}`, "\x00")
	m := configured(f)
	key := testKey(f)
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithStrictDecoding(), jwt.WithPaddingAllowed(),
		jwt.WithJSONNumber(), jwt.WithoutClaimsValidation())
	f.Fuzz(func(t *testing.T, token, payload, name string) {
		m.t = t
		for _, presented := range []string{token, signedBy(t, key, goodHeader, payload)} {
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
			require.Equal(t, []any{"clanmeeting", "production"}, []any{claims["aud"], claims["iss"]})
			requireSameLetters(t, "acme", claims["sub"])
			if name != "" && claims["room"] != "*" {
				requireSameLetters(t, name, claims["room"])
			}
			if exp, isNumber := claims["exp"].(json.Number); isNumber {
				at, _ := exp.Float64() // infinite beyond its range
				require.Greater(t, at, float64(testNow.Unix()))
			}
			if nbf, isNumber := claims["nbf"].(json.Number); isNumber {
				at, _ := nbf.Float64()
				require.LessOrEqual(t, at, float64(testNow.Unix()))
			}
		}
	})
}

// requireSameLetters compares as the server does, which ignores the case of ASCII letters only.
// The text that is wanted has no others.
func requireSameLetters(t *testing.T, want string, got any) {
	t.Helper()
	require.Len(t, got, len(want))
	require.True(t, strings.EqualFold(want, got.(string)))
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
	entity := &logical.Entity{ID: "e1", Name: strings.Repeat("n", 255), Metadata: map[string]string{"k": strings.Repeat("v", 255)}}
	m.asEntity(entity, &logical.Group{ID: "g1", Name: "g"})
	f.Fuzz(func(t *testing.T, rule string, rules int, defaultRoom, name, reference string, items int) {
		m.t = t
		if rules < 0 || rules > 3000 || items < 0 || items > 1100 {
			return
		}
		written, err := m.call(logical.UpdateOperation, "roles/fuzz", map[string]any{
			fieldAllowedRooms: slices.Repeat([]any{rule}, rules), fieldAllowedRoomsTemplate: true, fieldDefaultRoom: defaultRoom,
		})
		require.NoError(t, err)
		if written.IsError() {
			require.Less(t, len(written.Error().Error()), 1000)
			return
		}
		defer m.mustDelete("roles/fuzz")
		r, err := m.inside.currentRole(t.Context(), m.storage, "fuzz")
		require.NoError(t, err)
		require.Less(t, r.size(), 1<<20)
		// Decided only, because signatures would take most of the time.
		list := make([]batchItem, items)
		for i := range list {
			list[i] = parseBatchItem(map[string]any{fieldRoom: name, fieldReference: reference})
		}
		granted, _, err := m.issuanceOf("fuzz").decideAll(t.Context(), list)
		if err != nil {
			require.True(t, isInvalid(err), "%v", err)
			require.Less(t, len(err.Error()), largestAnswer)
		} else {
			require.Len(t, granted, items)
		}
		answer, err := json.Marshal(m.mustRead("check/fuzz", map[string]any{fieldRoom: name}))
		require.NoError(t, err)
		require.Less(t, len(answer), largestAnswer)
	})
}
