// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"maps"
	"strings"
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
	require.Len(t, resp.Warnings, 1)
	require.Contains(t, resp.Warnings[0], "batch_input[2]: TTL")
	var results []any
	for _, item := range items {
		reference, ok := item[fieldReference]
		delete(item, fieldReference)
		result := m.mustRead("creds/all", item)
		if ok {
			result[fieldReference] = reference
		}
		results = append(results, result)
	}
	require.Equal(t, map[string]any{fieldBatchResults: results}, resp.Data, "each is what a single answer's data would be")
}

func TestLargestBatch(t *testing.T) {
	m := configured(t)
	results := m.mustWrite("creds/support", map[string]any{fieldBatchInput: manyItems(maxBatch)}).Data[fieldBatchResults].([]any)
	require.Len(t, results, maxBatch)
	for i, result := range results {
		require.Equal(t, fmt.Sprintf("support-%d", i), result.(map[string]any)[fieldRoom], "in their order")
	}
}

// All or nothing: if one item is refused, no token is made, and the error names every
// refused item.
func TestBatchRefusals(t *testing.T) {
	m := configured(t)
	good := map[string]any{fieldRoom: "support-1"}
	refused := m.batch("support", map[string]any{fieldBatchInput: []any{
		good,
		map[string]any{fieldRoom: "billing"},
		map[string]any{fieldTTL: "soon", fieldReference: true},
		map[string]any{fieldRoom: "support-1", fieldMaxTTL: "10h"},
		map[string]any{fieldBatchInput: []any{good}},
		"support-1",
		[]any{good},
		nil,
		good,
	}})
	const fields = "room, ttl, not_before and reference"
	require.EqualError(t, refused.Error(), strings.Join([]string{
		`batch_input[1]: room "billing" is not allowed by this role; ask for one that matches its allowed_rooms`,
		"batch_input[2]: reference must be one string; ttl must be in whole seconds and not negative, like 90, 90s or 15m",
		`batch_input[3]: has an unknown field "max_ttl"; the fields are ` + fields,
		`batch_input[4]: has an unknown field "batch_input"; the fields are ` + fields,
		"batch_input[5]: must be an object with " + fields + ", each of them optional",
		"batch_input[6]: must be an object with " + fields + ", each of them optional",
		"batch_input[7]: must be an object with " + fields + ", each of them optional",
	}, "; "))
	batch := map[string]any{fieldBatchInput: manyItems(1)}
	for want, data := range map[string]map[string]any{
		"batch_input must have 1 to 1000 items":                                            {fieldBatchInput: []any{}},
		"batch_input must have 1 to 1000 items ":                                           {fieldBatchInput: manyItems(maxBatch + 1)},
		"batch_input " + errNotObjects.Error():                                             {fieldBatchInput: "support-1"},
		"batch_input and room can't be used together: put room into each item":             {fieldRoom: "1"},
		"batch_input and ttl can't be used together: put ttl into each item":               {fieldTTL: "1"},
		"batch_input and not_before can't be used together: put not_before into each item": {fieldNotBefore: "1"},
	} {
		request := maps.Clone(batch)
		maps.Copy(request, data)
		require.EqualError(t, m.batch("support", request).Error(), strings.TrimSpace(want))
	}
	for _, path := range []string{"creds/nobody", "check/nobody"} {
		require.Equal(t, `role "nobody" not found`, m.refused(logical.UpdateOperation, path, batch))
	}
	require.Contains(t, m.refused(logical.ReadOperation, "creds/support", batch), "batch_input needs a write")
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
	require.Equal(t, make([]map[string]any, maxBatch), results)
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
