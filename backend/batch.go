// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/sync/errgroup"
)

const (
	fieldBatchInput   = "batch_input"
	fieldBatchResults = "batch_results"
	fieldReference    = "reference"
)

const (
	// maxBatch is the most tokens that one request can ask for.
	maxBatch = 1000
	// maxRefusals is how many refused items a message names.
	maxRefusals = 20
	// itemsPerTurn is how many items are decided in one turn. With the slowest possible
	// rules, an item takes about a millisecond.
	itemsPerTurn = 8
)

// A batchItem is one of the tokens that a batch asks for.
type batchItem struct {
	grant     *grant
	reference any // a string; nil if the item has none
}

func batchItemFields() map[string]*framework.FieldSchema {
	fields := requestFields()
	fields[fieldReference] = &framework.FieldSchema{Type: framework.TypeString, Description: "A text that is returned with the item's result."}
	return fields
}

// A batch is a request for many tokens: either every item gets one, or none does.
type batch struct {
	*issuance

	// unchanged returns errChanged if the role has been replaced, and errSuspended after a
	// suspension.
	unchanged func(context.Context) error
	schema    map[string]*framework.FieldSchema
}

// answer decides all items, and then signs them.
func (b *batch) answer(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	if err := b.check(req, d); err != nil {
		return nil, err
	}
	items, warnings, err := b.decideAll(ctx, d.Get(fieldBatchInput).([]any))
	if err != nil {
		return nil, err
	}
	results, err := b.signAll(ctx, items)
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{fieldBatchResults: results}, Warnings: warnings}, nil
}

// check says why the whole batch must be refused, if it must.
func (b *batch) check(req *logical.Request, d *framework.FieldData) error {
	if req.Operation != logical.UpdateOperation {
		return invalid("%s needs a write; a read takes the parameters of one token", fieldBatchInput)
	}
	if b.role.GenerateLease {
		return invalid("%s is not possible on a role with %s: an answer has one lease at most; ask for one token at a time, or use another role", fieldBatchInput, fieldGenerateLease)
	}
	for _, name := range []string{fieldRoom, fieldTTL, fieldNotBefore} {
		if _, ok := d.GetOk(name); ok {
			return invalid("%s and %s can't be used together: put %s into each item", fieldBatchInput, name, name)
		}
	}
	if n := len(d.Get(fieldBatchInput).([]any)); n < 1 || n > maxBatch {
		return invalid("%s must have 1 to %d items", fieldBatchInput, maxBatch)
	}
	return nil
}

// decideAll decides every item, a few in each turn. The error names the refused items.
func (b *batch) decideAll(ctx context.Context, inputs []any) ([]batchItem, []string, error) {
	items := make([]batchItem, len(inputs))
	var warnings []string
	var refused refusals
	for start := 0; start < len(inputs); start += itemsPerTurn {
		err := takeTurn(ctx, func() error {
			for i := start; i < min(start+itemsPerTurn, len(inputs)); i++ {
				item, err := b.decide(ctx, inputs[i])
				if err = refused.add(i, err); err != nil {
					return err
				}
				items[i] = item
			}
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	if err := refused.err(); err != nil {
		return nil, nil, err
	}
	for i, item := range items {
		for _, warning := range item.grant.warnings {
			warnings = append(warnings, fmt.Sprintf("%s[%d]: %s", fieldBatchInput, i, warning))
		}
	}
	return items, warnings, nil
}

// refusals counts the refused items of a batch, and keeps the errors of the first ones.
type refusals struct {
	count int
	first []error
}

// add records a refusal. It returns any other error.
func (r *refusals) add(item int, err error) error {
	if !isInvalid(err) {
		return err
	}
	r.count++
	if r.count <= maxRefusals {
		r.first = append(r.first, invalid("%s[%d]: %s", fieldBatchInput, item, oneLine(err)))
	}
	return nil
}

func (r *refusals) err() error {
	if others := r.count - len(r.first); others > 0 {
		return errors.Join(append(r.first, invalid("and %d other items are refused", others))...)
	}
	return errors.Join(r.first...)
}

func (b *batch) decide(ctx context.Context, input any) (batchItem, error) {
	raw, ok := input.(map[string]any)
	if !ok {
		return batchItem{}, invalid("must be an object with %s, %s, %s and %s, each of them optional", fieldRoom, fieldTTL, fieldNotBefore, fieldReference)
	}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		if b.schema[name] == nil {
			return batchItem{}, invalid("has an unknown field%s; the fields are %s, %s, %s and %s",
				misspelt(name), fieldRoom, fieldTTL, fieldNotBefore, fieldReference)
		}
	}
	// Copied, because a batch may be decided again.
	raw = maps.Clone(raw)
	if err := takeValues(raw, b.schema); err != nil {
		return batchItem{}, err
	}
	d := &framework.FieldData{Raw: raw, Schema: b.schema}
	granted, err := b.grant(ctx, parseTokenRequest(d))
	return batchItem{granted, raw[fieldReference]}, err
}

// misspelt returns a field's name for an error, or nothing if the name may be a secret.
func misspelt(name string) string {
	if !namePattern.MatchString(name) {
		return ""
	}
	return ` "` + name + `"`
}

// signAll signs in as many turns at once as there are. It stops when the request ends.
func (b *batch) signAll(ctx context.Context, items []batchItem) ([]map[string]any, error) {
	results := make([]map[string]any, len(items))
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(turnCount(), len(items)) {
		group.Go(func() error {
			for i := next.Add(1) - 1; i < int64(len(items)); i = next.Add(1) - 1 {
				data, err := b.signItem(ctx, items[i])
				if err != nil {
					return err
				}
				results[i] = data
			}
			return nil
		})
	}
	return results, group.Wait()
}

// signItem signs one item in a turn of its own, if the role is still the same.
func (b *batch) signItem(ctx context.Context, item batchItem) (data map[string]any, err error) {
	defer recovered(b.logger, &err)
	err = takeTurn(ctx, func() error {
		if err := b.unchanged(ctx); err != nil {
			return err
		}
		data, err = b.mint(ctx, item.grant)
		return err
	})
	if err == nil && item.reference != nil {
		data[fieldReference] = item.reference
	}
	return data, err
}
