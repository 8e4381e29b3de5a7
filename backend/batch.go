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
	"time"

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
	// maxBatches is how many batches of a mount can wait, and maxWaiting how many bytes their
	// texts have in all.
	maxBatches = 200
	maxWaiting = 32 << 20
	// slotTime is how long a batch computes before the batches of other mounts have a turn.
	// It is about as long as the slowest signature, so that a mount with a large key gets
	// little more than its share.
	slotTime = 100 * time.Millisecond
)

// Vault ends a request after 90 s, unless the operator sets another time. A batch ends
// before, so that its answer says why.
const (
	vaultTimeout = 90 * time.Second
	batchMargin  = 2 * time.Second
)

var (
	errBatchesWait = unavailable("this mount is busy with other batches, and too many wait; try again later, or send fewer batches at once")
	errBatchSlow   = unavailable("this batch would take longer than Vault allows a request; send fewer items, or try again later")
)

// withBatch adds the field of a batch to those of one token.
func withBatch(fields map[string]*framework.FieldSchema) map[string]*framework.FieldSchema {
	fields[fieldBatchInput] = &framework.FieldSchema{
		Type: framework.TypeSlice,
		Description: `On a write, instead of room, ttl and not_before: a list of 1 to 1,000
objects. Each may have these fields, and a reference, a text that is
returned with its result. Either all get a token or none does. Not for a
role with generate_lease. Default: none, for a single token.`,
	}
	return fields
}

var batchItemSchema = func() map[string]*framework.FieldSchema {
	fields := requestFields()
	fields[fieldReference] = &framework.FieldSchema{Type: framework.TypeString, Description: "A text that is returned with the item's result."}
	return fields
}()

// A batchItem is one of the tokens that a batch asks for. If it is wrong, err says why.
type batchItem struct {
	wanted       tokenRequest
	reference    string
	hasReference bool // which may be empty
	err          error
}

// credsBatch answers with many tokens: either every item gets one, or none does.
func (b *backend) credsBatch(ctx context.Context, req *logical.Request, name string, d *framework.FieldData) (*logical.Response, error) {
	return b.withBatchItems(ctx, req, name, d, func(ctx context.Context, items []batchItem) (*logical.Response, error) {
		return retryIfChanged(func() (*logical.Response, error) {
			i, err := b.newIssuance(ctx, req, name)
			if err != nil {
				return nil, err
			}
			grants, warnings, err := i.decideAll(ctx, items)
			if err != nil {
				return nil, err
			}
			results, err := i.signAll(ctx, items, grants)
			if err != nil {
				return nil, err
			}
			return &logical.Response{Data: map[string]any{fieldBatchResults: results}, Warnings: warnings}, nil
		})
	})
}

// withBatchItems parses the items of a batch, waits for the other batches of the mount, and
// lets answer do the work. Its context ends before Vault gives up.
func (b *backend) withBatchItems(ctx context.Context, req *logical.Request, name string, d *framework.FieldData,
	answer func(context.Context, []batchItem) (*logical.Response, error),
) (*logical.Response, error) {
	if _, err := b.currentRole(ctx, req.Storage, name); err != nil {
		return nil, err
	}
	items, err := parseBatch(req, d)
	if err != nil {
		return nil, err
	}
	left := vaultTimeout
	if deadline, ok := ctx.Deadline(); ok {
		left = time.Until(deadline)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, max(left-batchMargin, left/2), errBatchSlow)
	defer cancel()
	if err := b.waitForBatches(ctx, left*5/6, items); err != nil {
		return nil, err
	}
	defer b.state.batching.release()
	resp, err := answer(ctx, items)
	if err != nil && errors.Is(context.Cause(ctx), errBatchSlow) || errors.Is(err, errBatchSlow) {
		b.Logger().Warn("a batch was given up, because it would take longer than Vault waits", "role", name, "items", len(items))
		return nil, errBatchSlow
	}
	return resp, err
}

// waitForBatches waits, for a limited time, until no other batch of the mount is running.
func (b *backend) waitForBatches(ctx context.Context, limit time.Duration, items []batchItem) error {
	texts := 0
	for _, item := range items {
		texts += len(item.wanted.room) + len(item.reference)
	}
	size := max(maxWaiting/maxBatches, int64(texts))
	if !b.state.waiting.TryAcquire(size) {
		return errBatchesWait
	}
	defer b.state.waiting.Release(size)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errBatchesWait)
	defer cancel()
	return b.state.batching.take(ctx)
}

// parseBatch reads the items. The error says why the whole batch is refused.
func parseBatch(req *logical.Request, d *framework.FieldData) ([]batchItem, error) {
	if req.Operation != logical.UpdateOperation {
		return nil, invalid("%s needs a write; a read takes the parameters of one token", fieldBatchInput)
	}
	for _, name := range []string{fieldRoom, fieldTTL, fieldNotBefore} {
		if _, ok := d.GetOk(name); ok {
			return nil, invalid("%s and %s can't be used together: put %s into each item", fieldBatchInput, name, name)
		}
	}
	inputs := d.Get(fieldBatchInput).([]any)
	if n := len(inputs); n < 1 || n > maxBatch {
		return nil, invalid("%s must have 1 to %d items", fieldBatchInput, maxBatch)
	}
	items := make([]batchItem, len(inputs))
	for i, input := range inputs {
		items[i] = parseBatchItem(input)
	}
	// A batch may wait long, and decoded JSON takes many times the memory of the items.
	delete(req.Data, fieldBatchInput)
	delete(d.Raw, fieldBatchInput)
	return items, nil
}

func parseBatchItem(input any) batchItem {
	raw, ok := input.(map[string]any)
	if !ok {
		return batchItem{err: invalid("must be an object with %s, %s, %s and %s, each of them optional", fieldRoom, fieldTTL, fieldNotBefore, fieldReference)}
	}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		if batchItemSchema[name] == nil {
			return batchItem{err: invalid("has an unknown field%s; the fields are %s, %s, %s and %s",
				shownName(name), fieldRoom, fieldTTL, fieldNotBefore, fieldReference)}
		}
	}
	if err := takeValues(raw, batchItemSchema); err != nil {
		return batchItem{err: err}
	}
	wanted, err := parseTokenRequest(&framework.FieldData{Raw: raw, Schema: batchItemSchema})
	reference, ok := raw[fieldReference].(string)
	return batchItem{wanted, reference, ok, err}
}

// decideAll decides every item. The error names the refused items.
func (i *issuance) decideAll(ctx context.Context, items []batchItem) ([]*grant, []string, error) {
	if i.role.GenerateLease {
		return nil, nil, invalid("%s is not possible on a role with %s: an answer has one lease at most; ask for one token at a time, or use another role", fieldBatchInput, fieldGenerateLease)
	}
	grants := make([]*grant, len(items))
	var refused []error
	err := i.backend.inSlots(ctx, 1, len(items), func(n int) (err error) {
		if err = items[n].err; err == nil {
			grants[n], err = i.decide(items[n].wanted)
		}
		if isInvalid(err) {
			refused = append(refused, invalid("%s[%d]: %s", fieldBatchInput, n, oneLine(err)))
			return nil
		}
		return err
	})
	if others := len(refused) - maxRefusals; others > 0 {
		refused = append(refused[:maxRefusals], invalid("and %d more", others))
	}
	if err == nil { // else it is a fault, which matters more
		err = errors.Join(refused...)
	}
	if err != nil {
		return nil, nil, err
	}
	var warnings []string
	for n, g := range grants {
		for _, warning := range g.warnings {
			warnings = append(warnings, fmt.Sprintf("%s[%d]: %s", fieldBatchInput, n, warning))
		}
	}
	return grants, warnings, nil
}

// signAll signs a token for each grant, on all processors. If an eighth of the time is over
// and less than an eighth is done, it ends with errBatchSlow instead of working for nothing.
func (i *issuance) signAll(ctx context.Context, items []batchItem, grants []*grant) ([]map[string]any, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var signed atomic.Int64
	if deadline, ok := ctx.Deadline(); ok {
		defer time.AfterFunc(time.Until(deadline)/8, func() {
			if int(signed.Load()) < len(grants)/8 {
				cancel(errBatchSlow)
			}
		}).Stop()
	}
	results := make([]map[string]any, len(grants))
	err := i.backend.inSlots(ctx, processors(), len(grants), func(n int) error {
		data, err := i.sign(ctx, grants[n])
		if err != nil {
			return err
		}
		if items[n].hasReference {
			data[fieldReference] = items[n].reference
		}
		results[n] = data
		signed.Add(1)
		return nil
	})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return results, err
}

// inSlots does work for each number below n, in order, with the given number of workers. Each of them
// computes in a slot that all mounts share, and gives it back after slotTime.
func (b *backend) inSlots(ctx context.Context, workers, n int, work func(int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	inSlot := func() (more bool, err error) {
		defer recovered(b.Logger(), &err)
		if err := b.process.slots.Acquire(ctx, 1); err != nil {
			return false, err
		}
		defer b.process.slots.Release(1)
		for start := b.now(); b.now().Sub(start) < slotTime; {
			i := int(next.Add(1) - 1)
			if i >= n {
				return false, nil
			}
			if err := work(i); err != nil {
				return false, err
			}
		}
		return true, ctx.Err()
	}
	for range min(workers, n) {
		group.Go(func() error {
			for {
				if more, err := inSlot(); err != nil || !more {
					return err
				}
			}
		})
	}
	return group.Wait()
}
