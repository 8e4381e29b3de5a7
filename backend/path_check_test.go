// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestCheckAnswers(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/mixed", map[string]any{
		fieldAllowedRooms: "lobby,Team-{{identity.entity.name}},support-*", fieldAllowedRoomsTemplate: true, fieldAllowWildcardRoom: true,
	})
	m.asEntity(&logical.Entity{Name: "alice"})
	for room, rule := range map[string]string{
		"Lobby": "lobby", "team-alice": "team-{{identity.entity.name}}", "support-1": "support-*", "*": "allow_wildcard_room",
	} {
		for _, op := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation} {
			resp := m.must(m.call(op, "check/mixed", map[string]any{fieldRoom: room, fieldTTL: "1m"}))
			require.Equal(t, map[string]any{
				fieldAllowed:     true,
				fieldMatchedRule: rule,
				fieldClaims: map[string]any{
					"aud": "clanmeeting", "context": map[string]any{}, "iss": "production", "sub": "acme", "room": strings.ToLower(room),
					"nbf": float64(testNow.Unix() - 30), "exp": float64(testNow.Unix() + 60),
				},
			}, resp.Data)
		}
	}
	resp := m.must(m.call(logical.ReadOperation, "check/mixed", map[string]any{fieldRoom: "lobby", fieldTTL: "10h"}))
	require.Len(t, resp.Warnings, 1)
	require.Contains(t, resp.Warnings[0], "capped")

	require.Equal(t, `role "nobody" not found`, m.refused(logical.ReadOperation, "check/nobody", nil))
	m.mustDelete("config")
	require.Equal(t, map[string]any{
		fieldAllowed: false, fieldReason: "this mount is not configured; write consumer_id and private_key to clanmeeting/config",
	}, m.mustRead("check/mixed", map[string]any{fieldRoom: "lobby"}))
}

// For generated roles and requests, check and creds agree: both give the same refusal, or
// check shows exactly the claims that creds then signs.
func TestCheckAndCredsAgree(t *testing.T) {
	m := configured(t)
	m.system.MaxLeaseTTLVal = 2 * time.Hour
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // G404: a fixed seed, so that a failure can be repeated
	pick := func(values ...any) any { return values[random.IntN(len(values))] }
	allowed, refused := 0, 0
	for range 500 {
		m.system.EntityVal, m.entityID = nil, ""
		if random.IntN(2) == 0 {
			m.asEntity(&logical.Entity{ID: "id-1", Name: pick("alice", "Bob", "eve *", "").(string)})
		}
		role := map[string]any{
			fieldAllowedRooms:         pick("a-*", "*", "a-1,b", "{{identity.entity.name}}", "x-{{identity.entity.name}}-*,b", "{{identity.groups.names.g.id}}", ""),
			fieldAllowedRoomsTemplate: pick(true, true, false),
			fieldAllowWildcardRoom:    pick(true, false),
			fieldDefaultRoom:          pick("", "", "b", "a-1", "*", "{{identity.entity.name}}"),
			fieldTTL:                  pick(0, 60, 600, 600, "3h"),
			fieldMaxTTL:               pick(0, "2h", "4h"),
			fieldNotBeforeDuration:    pick(0, 30, 7200),
			fieldMaxNotBefore:         pick(0, 60, 86400),
			fieldGenerateLease:        pick(true, false, false),
		}
		resp, err := m.call(logical.UpdateOperation, "roles/r", role)
		require.NoError(t, err)
		if resp.IsError() {
			continue
		}
		request := map[string]any{}
		for name, value := range map[string]any{
			fieldRoom:      pick(nil, "", "a-1", "A-2", "b", "*", "alice", "bob", "x-alice-9", "c", "a b", "a,b", "*a"),
			fieldTTL:       pick(nil, nil, 0, 1, 900, "5h", "0.5s"),
			fieldNotBefore: pick(nil, nil, nil, testNow.Unix(), testNow.Unix()+30, testNow.Unix()+3600, testNow.Unix()-20, testNow.Unix()-7000, testNow.Unix()*1000),
		} {
			if value != nil {
				request[name] = value
			}
		}
		checked := m.mustRead("check/r", request)
		got, err := m.call(logical.ReadOperation, "creds/r", request)
		require.NoError(t, err)
		if got.IsError() {
			require.Equal(t, map[string]any{fieldAllowed: false, fieldReason: got.Error().Error()}, checked, "%v %v", role, request)
			refused++
		} else {
			claims := map[string]any{}
			require.NoError(t, json.Unmarshal([]byte(segmentOf(t, got.Data[fieldToken].(string))), &claims))
			require.Equal(t, true, checked[fieldAllowed], "%v %v", role, request)
			require.Equal(t, claims, checked[fieldClaims], "%v %v", role, request)
			allowed++
		}
		m.mustDelete("roles/r")
	}
	require.Greater(t, allowed, 30)
	require.Greater(t, refused, 30)
}

func TestCheckWritesNothing(t *testing.T) {
	m := configured(t)
	before := m.storage.written()
	m.mustRead("check/support", map[string]any{fieldRoom: "support-1"})
	m.mustRead("check/support", map[string]any{fieldRoom: "x"})
	require.Equal(t, before, m.storage.written())
}

// For a batch, check says whether creds would give all of it, in creds' own words.
func TestCheckOfABatch(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/leased", map[string]any{fieldAllowedRooms: "*", fieldGenerateLease: true})
	m.mustWrite("roles/lobby", map[string]any{fieldAllowedRooms: "*", fieldAllowWildcardRoom: true, fieldDefaultRoom: "*", fieldMaxTTL: "10m"})
	writes := m.storage.written()
	for _, test := range []struct {
		role string
		data map[string]any
	}{
		{"support", map[string]any{fieldBatchInput: manyItems(3)}},
		{"lobby", map[string]any{fieldBatchInput: []any{map[string]any{fieldTTL: "1h"}, map[string]any{}}}},
		{"support", map[string]any{fieldBatchInput: []any{map[string]any{fieldRoom: "billing"}, map[string]any{fieldRoom: ""}}}},
		{"lobby", map[string]any{fieldBatchInput: []any{map[string]any{fieldRoom: ""}}}},
		{"support", map[string]any{fieldBatchInput: []any{}}},
		{"support", map[string]any{fieldBatchInput: "support-1"}},
		{"support", map[string]any{fieldBatchInput: manyItems(1), fieldRoom: "support-1"}},
		{"leased", map[string]any{fieldBatchInput: manyItems(1)}},
	} {
		got, err := m.call(logical.UpdateOperation, "creds/"+test.role, test.data)
		require.NoError(t, err)
		checked := m.mustWrite("check/"+test.role, test.data)
		want := map[string]any{fieldAllowed: true}
		if got.IsError() {
			want = map[string]any{fieldAllowed: false, fieldReason: got.Error().Error()}
		}
		require.Equal(t, want, checked.Data, "%v", test)
		if !got.IsError() {
			require.Equal(t, got.Warnings, checked.Warnings)
		}
	}
	require.Contains(t, m.mustRead("check/support", map[string]any{fieldBatchInput: manyItems(1)})[fieldReason], "needs a write")
	require.Contains(t, m.refused(logical.UpdateOperation, "check/nobody", map[string]any{fieldBatchInput: manyItems(1)}), `role "nobody" not found`)
	require.Equal(t, writes, m.storage.written())
}
