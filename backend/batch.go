// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

const (
	fieldBatchInput   = "batch_input"
	fieldBatchResults = "batch_results"
	fieldReference    = "reference"
)

// maxBatch is the most tokens that one request can ask for.
const maxBatch = 1000

// batchWorkers is how many tokens of batches are signed at once, for all batches of
// the process together. One processor is left out: while all of them sign, Go's
// runtime looks only every 10 ms whether a request has come in, and a read of one
// token would wait that long several times. The plugin's main makes up for it.
var batchWorkers = sync.OnceValue(func() int { return max(1, runtime.GOMAXPROCS(0)-1) })

var batchSlots = sync.OnceValue(func() *semaphore.Weighted { return semaphore.NewWeighted(int64(batchWorkers())) })

// A batchItem is one of the tokens that a batch asks for.
type batchItem struct {
	decision  *decision
	reference string
	named     bool // whether there is a reference
}

func batchItemFields() map[string]*framework.FieldSchema {
	fields := requestFields()
	fields[fieldReference] = &framework.FieldSchema{Type: framework.TypeString, Description: "A text that comes back with the item's result."}
	return fields
}

// batch answers a request with batch_input: a token for every item, in their
// order, or none at all.
func (t *terms) batch(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	if err := t.checkBatch(req, d); err != nil {
		return nil, err
	}
	items, warnings, err := t.decideAll(d.Get(fieldBatchInput).([]any))
	if err != nil {
		return nil, err
	}
	results, err := signAll(ctx, items)
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{fieldBatchResults: results}, Warnings: warnings}, nil
}

// checkBatch refuses a batch as a whole.
func (t *terms) checkBatch(req *logical.Request, d *framework.FieldData) error {
	if req.Operation != logical.UpdateOperation {
		return invalid("%s needs a write; a read takes the parameters of one token", fieldBatchInput)
	}
	if t.role.GenerateLease {
		return invalid("%s is not for a role with %s: an answer has one lease at most; ask for one token at a time, or use another role", fieldBatchInput, fieldGenerateLease)
	}
	for _, name := range []string{fieldRoom, fieldTTL, fieldNotBefore} {
		if _, ok := d.GetOk(name); ok {
			return invalid("%s and %s exclude each other: give %s in each item", fieldBatchInput, name, name)
		}
	}
	if _, isText := d.Raw[fieldBatchInput].(string); isText {
		// The framework would make it a list of one. It is what the CLI sends for
		// batch_input=[…].
		return invalid(`%s must be a list of objects, which the CLI takes only in JSON: from standard input, by "-", or from a file, by "@file"`, fieldBatchInput)
	}
	if n := len(d.Get(fieldBatchInput).([]any)); n < 1 || n > maxBatch {
		return invalid("%s must have 1 to %d items", fieldBatchInput, maxBatch)
	}
	return nil
}

// decideAll holds every item against the terms, and tells of all that are refused.
func (t *terms) decideAll(inputs []any) ([]batchItem, []string, error) {
	schema := batchItemFields()
	items := make([]batchItem, len(inputs))
	var warnings []string
	var refusals []error
	for i, input := range inputs {
		item, err := t.decideItem(input, schema)
		mistake := new(invalidError)
		switch {
		case errors.As(err, &mistake):
			refusals = append(refusals, invalid("%s[%d]: %s", fieldBatchInput, i, oneLine(err)))
			continue
		case err != nil:
			return nil, nil, err
		}
		items[i] = item
		for _, warning := range item.decision.grant.warnings {
			warnings = append(warnings, fmt.Sprintf("%s[%d]: %s", fieldBatchInput, i, warning))
		}
	}
	return items, warnings, errors.Join(refusals...)
}

func (t *terms) decideItem(input any, schema map[string]*framework.FieldSchema) (batchItem, error) {
	raw, ok := input.(map[string]any)
	if !ok {
		return batchItem{}, invalid("must be an object with %s, %s, %s and %s, each of them optional", fieldRoom, fieldTTL, fieldNotBefore, fieldReference)
	}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		if schema[name] == nil {
			return batchItem{}, invalid("has a field%s that is unknown; known are %s, %s, %s and %s",
				misspelt(name), fieldRoom, fieldTTL, fieldNotBefore, fieldReference)
		}
	}
	if problems := fieldProblems(raw, schema); problems != "" {
		return batchItem{}, invalid("%s", problems)
	}
	d := &framework.FieldData{Raw: raw, Schema: schema}
	decided, err := t.decide(d)
	if err != nil {
		return batchItem{}, err
	}
	reference, named, err := stringField(d, fieldReference)
	return batchItem{decided, reference, named}, err
}

// misspelt is a field's name in an error, if it looks like one.
func misspelt(name string) string {
	if !namePattern.MatchString(name) {
		return ""
	}
	return ` "` + name + `"`
}

var namePattern = regexp.MustCompile(`^[a-z_]{1,32}$`)

// signAll signs with all batchWorkers, until the request is given up.
func signAll(ctx context.Context, items []batchItem) ([]map[string]any, error) {
	results := make([]map[string]any, len(items))
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(batchWorkers(), len(items)) {
		group.Go(func() error {
			for i := next.Add(1) - 1; i < int64(len(items)); i = next.Add(1) - 1 {
				data, err := items[i].sign(ctx)
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

// sign waits for its turn among the tokens of all batches.
func (i batchItem) sign(ctx context.Context) (map[string]any, error) {
	if err := batchSlots().Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer batchSlots().Release(1)
	data, err := i.decision.sign()
	if err == nil && i.named {
		data[fieldReference] = i.reference
	}
	return data, err
}
