// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestBatch(t *testing.T) {
	m := configured(t)
	m.mustWrite("config", map[string]any{fieldDomain: "meet.example.com"})
	m.mustWrite("roles/all", map[string]any{fieldAllowedRooms: "*", fieldDefaultRoom: "lobby", fieldMaxNotBefore: "24h", fieldTTL: "5m"})
	now := testNow.Unix()
	items := []any{
		map[string]any{fieldRoom: "A", fieldReference: "first"},
		map[string]any{},
		map[string]any{fieldRoom: "c", fieldTTL: "10h", fieldNotBefore: now + 3600},
		map[string]any{fieldRoom: nil, fieldTTL: 60, fieldReference: ""},
	}
	resp := m.mustWrite("creds/all", map[string]any{fieldBatchInput: items})
	require.Len(t, resp.Data, 1)
	require.Len(t, resp.Warnings, 1)
	require.Contains(t, resp.Warnings[0], "batch_input[2]: TTL")
	results := resp.Data[fieldBatchResults].([]any)
	require.Len(t, results, len(items))
	for i, parameters := range []map[string]any{{fieldRoom: "a"}, {}, {fieldRoom: "c", fieldTTL: "1h", fieldNotBefore: now + 3600}, {fieldTTL: "1m"}} {
		got := results[i].(map[string]any)
		verified(t, got[fieldToken].(string), testKey(t))
		want := m.mustRead("creds/all", parameters)
		if reference, ok := items[i].(map[string]any)[fieldReference]; ok {
			want[fieldReference] = reference
		}
		require.Equal(t, want, got, "item %d: what a single answer's data would be", i)
	}
}

func TestLargestBatch(t *testing.T) {
	m := configured(t)
	items := make([]any, maxBatch)
	for i := range items {
		items[i] = map[string]any{fieldRoom: fmt.Sprintf("support-%d", i)}
	}
	results := m.mustWrite("creds/support", map[string]any{fieldBatchInput: items}).Data[fieldBatchResults].([]any)
	require.Len(t, results, maxBatch)
	seen := map[any]bool{}
	for i, result := range results {
		got := result.(map[string]any)
		require.Equal(t, fmt.Sprintf("support-%d", i), got[fieldRoom], "in their order")
		seen[got[fieldToken]] = true
	}
	require.Len(t, seen, maxBatch)
	message := m.refused(logical.UpdateOperation, "creds/support", map[string]any{fieldBatchInput: append(items, map[string]any{})})
	require.Equal(t, "batch_input must have 1 to 1000 items", message)
}

// All or nothing: if one item is refused, no token is made, and the error names every
// refused item.
func TestBatchRefusals(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/leased", map[string]any{fieldAllowedRooms: "*", fieldGenerateLease: true})
	good := map[string]any{fieldRoom: "support-1"}
	for name, test := range map[string]struct {
		role  string
		data  map[string]any
		wants []string
	}{
		"items": {"support", map[string]any{fieldBatchInput: []any{
			good,
			map[string]any{fieldRoom: "billing"},
			map[string]any{fieldRoom: "*"},
			map[string]any{},
			map[string]any{fieldRoom: "support-1", fieldNotBefore: testNow.Unix() + 60},
			map[string]any{fieldRoom: "support-1", fieldTTL: "soon", fieldNotBefore: "x"},
			map[string]any{fieldRoom: "support-1", fieldTTL: 1.5},
			map[string]any{fieldRoom: "support-1", "max_ttl": "10h"},
			map[string]any{fieldRoom: "support-1", fieldBatchInput: []any{good}},
			map[string]any{fieldRoom: []any{"support-1"}},
			map[string]any{fieldRoom: true},
			map[string]any{fieldRoom: "support-1", fieldReference: true},
			"support-1",
			[]any{good},
			nil, 7,
			good,
		}}, []string{
			`batch_input[1]: room "billing" is not allowed`, `batch_input[2]: room "*" is not allowed`, "batch_input[3]: room is required",
			"batch_input[4]: not_before is in the future", "batch_input[5]: not_before must be RFC 3339", "ttl must be in whole seconds",
			"batch_input[6]: ttl must be in whole", `batch_input[7]: has an unknown field "max_ttl"; the fields are room, ttl, not_before and reference`,
			`batch_input[8]: has an unknown field "batch_input"`, "batch_input[9]: room must be one string", "batch_input[10]: room must be one string",
			"batch_input[11]: reference must be one string", "batch_input[12]: must be an object", "batch_input[13]: must be an object",
			"batch_input[14]: must be an object", "batch_input[15]: must be an object",
		}},
		"empty":           {"support", map[string]any{fieldBatchInput: []any{}}, []string{"1 to 1000 items"}},
		"no list":         {"support", map[string]any{fieldBatchInput: "support-1"}, []string{"batch_input must be a list of objects", "only in JSON"}},
		"with room":       {"support", map[string]any{fieldBatchInput: []any{good}, fieldRoom: "support-1"}, []string{"batch_input and room can't be used together"}},
		"with ttl":        {"support", map[string]any{fieldBatchInput: []any{good}, fieldTTL: "1m"}, []string{"batch_input and ttl can't be used together"}},
		"with not_before": {"support", map[string]any{fieldBatchInput: []any{good}, fieldNotBefore: 1}, []string{"batch_input and not_before can't be used together"}},
		"leased":          {"leased", map[string]any{fieldBatchInput: []any{good}}, []string{"not possible on a role with generate_lease", "ask for one token at a time"}},
		"unknown role":    {"nobody", map[string]any{fieldBatchInput: []any{good}}, []string{`role "nobody" not found`}},
	} {
		message := m.refused(logical.UpdateOperation, "creds/"+test.role, test.data)
		for _, want := range test.wants {
			require.Contains(t, message, want, name)
		}
		require.NotContains(t, message, "batch_input[16]", name)
		require.NotContains(t, message, "eyJ", "nothing is minted")
	}
	require.Contains(t, m.refused(logical.ReadOperation, "creds/support", map[string]any{fieldBatchInput: []any{good}}), "batch_input needs a write")
}

// issuanceOf returns what a request for a token of the role depends on.
func (m *testMount) issuanceOf(role string) *issuance {
	m.t.Helper()
	i, err := m.inside.newIssuance(m.t.Context(), &logical.Request{Storage: m.storage, EntityID: m.entityID}, role)
	require.NoError(m.t, err)
	return i
}

// parsed returns the items of a batch as its handler sees them.
func parsed(inputs []any) []batchItem {
	items := make([]batchItem, len(inputs))
	for i, input := range inputs {
		items[i] = parseBatchItem(input)
	}
	return items
}

// Once a request is cancelled, no more of its items are decided or signed.
func TestBatchStopsWithItsRequest(t *testing.T) {
	m := configured(t)
	i := m.issuanceOf("support")
	items := parsed(manyItems(maxBatch))
	grants, _, err := i.decideAll(t.Context(), items)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = i.decideAll(ctx, items)
	require.ErrorIs(t, err, context.Canceled)
	results, err := i.signAll(ctx, items, grants)
	require.ErrorIs(t, err, context.Canceled)
	signed := 0
	for _, result := range results {
		if result != nil {
			signed++
		}
	}
	require.Zero(t, signed)
	require.True(t, m.inside.process.slots.TryAcquire(int64(processors())), "every slot is given back")
}

// manyItems are n items for the role support.
func manyItems(n int) []any {
	items := make([]any, n)
	for i := range items {
		items[i] = map[string]any{fieldRoom: fmt.Sprintf("support-%d", i)}
	}
	return items
}
