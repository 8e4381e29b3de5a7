// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"
)

// storageFormat is the format of every stored entry that this version writes. A
// later version that changes the meaning of an entry, say by a new limit on a
// role, raises it: an older engine must refuse such an entry instead of reading
// it without the limit.
const storageFormat = 1

// errCorrupt is an entry that can't be decoded, or that this engine never writes.
var errCorrupt = errors.New("corrupt entry in storage")

// A stored is what an entry contains. compile returns what the engine works with, an
// immutable T, or says what is wrong with the entry.
type stored[T any] interface {
	compile() (*T, error)
}

// envelope is the JSON of an entry.
type envelope[E any] struct {
	Format int `json:"format"`
	Entry  *E  `json:"entry"`
}

// load reads and compiles the entry at path; nil means that there is none. The error is
// errCorrupt, with the path, if the entry can't be used.
func load[E stored[T], T any](ctx context.Context, s logical.Storage, path string) (*T, error) {
	raw, err := s.Get(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("reading %q from storage: %w", path, err)
	}
	if raw == nil {
		return nil, nil
	}
	var e envelope[E]
	if err := raw.DecodeJSON(&e); err != nil {
		// Not wrapped: the decoder's error may repeat parts of the entry.
		return nil, fmt.Errorf("%w: %q: it is not JSON of the right form", errCorrupt, path)
	}
	if e.Format != storageFormat {
		return nil, fmt.Errorf("%w: %q: its format is %d, and this version reads %d", errCorrupt, path, e.Format, storageFormat)
	}
	if e.Entry == nil {
		return nil, fmt.Errorf("%w: %q: it is empty", errCorrupt, path)
	}
	compiled, err := (*e.Entry).compile()
	if err != nil {
		// Not wrapped: a bad value in storage is not the caller's mistake.
		return nil, fmt.Errorf("%w: %q: %s", errCorrupt, path, err.Error())
	}
	return compiled, nil
}

// store writes the entry at path.
func store[E stored[T], T any](ctx context.Context, s logical.Storage, path string, e E) error {
	raw, err := logical.StorageEntryJSON(path, envelope[E]{Format: storageFormat, Entry: &e})
	if err != nil {
		return fmt.Errorf("encoding %q for storage: %w", path, err)
	}
	if err := s.Put(ctx, raw); err != nil {
		return fmt.Errorf("writing %q to storage: %w", path, err)
	}
	return nil
}

// remove deletes the entry at path, if there is one.
func remove(ctx context.Context, s logical.Storage, path string) error {
	if err := s.Delete(ctx, path); err != nil {
		return fmt.Errorf("deleting %q from storage: %w", path, err)
	}
	return nil
}
