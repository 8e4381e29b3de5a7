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

// batch asks creds for a batch, and check whether creds would give all of it. Both give the
// same refusal, or the same warnings.
func (m *testMount) batch(role string, data map[string]any) *logical.Response {
	m.t.Helper()
	got, err := m.call(logical.UpdateOperation, "creds/"+role, data)
	require.NoError(m.t, err)
	checked := m.mustWrite("check/"+role, data)
	want := map[string]any{fieldAllowed: true}
	if got.IsError() {
		want = map[string]any{fieldAllowed: false, fieldReason: got.Error().Error()}
	} else {
		require.Equal(m.t, got.Warnings, checked.Warnings)
	}
	require.Equal(m.t, want, checked.Data, "%v", data)
	return got
}

func TestBatch(t *testing.T) {
	m := configured(t)
	m.mustWrite("config", map[string]any{fieldDomain: "meet.example.com"})
	m.mustWrite("roles/all", map[string]any{fieldAllowedRooms: "*", fieldDefaultRoom: "lobby", fieldMaxNotBefore: "24h", fieldTTL: "5m"})
	items := []map[string]any{
		{fieldRoom: "A", fieldReference: "first"},
		{},
		{fieldRoom: "c", fieldTTL: "10h", fieldNotBefore: at(3600)},
		{fieldRoom: nil, fieldTTL: 60, fieldReference: ""},
	}
	resp := m.batch("all", map[string]any{fieldBatchInput: items})
	require.NoError(t, resp.Error())
	require.Len(t, resp.Data, 1)
	require.Len(t, resp.Warnings, 1)
	require.Contains(t, resp.Warnings[0], "batch_input[2]: TTL")
	results := resp.Data[fieldBatchResults].([]any)
	require.Len(t, results, len(items))
	for i, item := range items {
		reference, ok := item[fieldReference]
		delete(item, fieldReference)
		want := m.mustRead("creds/all", item)
		if ok {
			want[fieldReference] = reference
		}
		require.Equal(t, want, results[i], "item %d: what a single answer's data would be", i)
	}
}

func TestLargestBatch(t *testing.T) {
	m := configured(t)
	results := m.mustWrite("creds/support", map[string]any{fieldBatchInput: manyItems(maxBatch)}).Data[fieldBatchResults].([]any)
	require.Len(t, results, maxBatch)
	seen := map[any]bool{}
	for i, result := range results {
		got := result.(map[string]any)
		require.Equal(t, fmt.Sprintf("support-%d", i), got[fieldRoom], "in their order")
		seen[got[fieldToken]] = true
	}
	require.Len(t, seen, maxBatch)
}

// All or nothing: if one item is refused, no token is made, and the error names every
// refused item.
func TestBatchRefusals(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/leased", map[string]any{fieldAllowedRooms: "*", fieldGenerateLease: true})
	good := map[string]any{fieldRoom: "support-1"}
	message := m.batch("support", map[string]any{fieldBatchInput: []any{
		good,
		map[string]any{fieldRoom: "billing"},
		map[string]any{fieldRoom: "support-1", fieldTTL: "soon", fieldNotBefore: "x"},
		map[string]any{fieldRoom: "support-1", "max_ttl": "10h"},
		map[string]any{fieldRoom: "support-1", fieldBatchInput: []any{good}},
		map[string]any{fieldRoom: "support-1", fieldReference: true},
		"support-1",
		[]any{good},
		nil, 7,
		good,
	}}).Error().Error()
	for _, want := range []string{
		`batch_input[1]: room "billing" is not allowed`, "batch_input[2]: not_before must be RFC 3339", "ttl must be in whole seconds",
		`batch_input[3]: has an unknown field "max_ttl"; the fields are room, ttl, not_before and reference`,
		`batch_input[4]: has an unknown field "batch_input"`, "batch_input[5]: reference must be one string", "batch_input[6]: must be an object",
		"batch_input[7]: must be an object", "batch_input[8]: must be an object", "batch_input[9]: must be an object",
	} {
		require.Contains(t, message, want)
	}
	require.NotContains(t, message, "batch_input[0]")
	require.NotContains(t, message, "batch_input[10]")
	for _, test := range []struct {
		role, want string
		input      any
		beside     string
	}{
		{"support", "batch_input must have 1 to 1000 items", []any{}, ""},
		{"support", "batch_input must have 1 to 1000 items", manyItems(maxBatch + 1), ""},
		{"support", "batch_input must be a list of objects", "support-1", ""},
		{"support", "only in JSON", "support-1", ""},
		{"support", "batch_input and room can't be used together", manyItems(1), fieldRoom},
		{"support", "batch_input and ttl can't be used together", manyItems(1), fieldTTL},
		{"support", "batch_input and not_before can't be used together", manyItems(1), fieldNotBefore},
		{"leased", "ask for one token at a time, or use another role", manyItems(1), ""},
	} {
		data := map[string]any{fieldBatchInput: test.input}
		if test.beside != "" {
			data[test.beside] = "1"
		}
		require.ErrorContains(t, m.batch(test.role, data).Error(), test.want)
	}
	batch := map[string]any{fieldBatchInput: manyItems(1)}
	for _, path := range []string{"creds/nobody", "check/nobody"} {
		require.Equal(t, `role "nobody" not found`, m.refused(logical.UpdateOperation, path, batch))
	}
	require.Contains(t, m.refused(logical.ReadOperation, "creds/support", batch), "batch_input needs a write")
	require.Contains(t, m.mustRead("check/support", batch)[fieldReason], "needs a write")
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
	for _, result := range results {
		require.Nil(t, result)
	}
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
