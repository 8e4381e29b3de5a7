// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/semaphore"
)

// Some requests need much more work than one signature: a batch, generating a key,
// checking a private key, verifying a token with a hundred keys. They do that work in
// turns, which all requests of all mounts of the process share. A read of a single token
// takes no turn, so it never waits behind them.

// turnCount is how many turns are taken at once, one less than Go's processors. While
// all of them compute, Go's runtime checks only every 10 ms for new requests, and a read
// of one token would wait that long several times. The plugin's main adds one processor
// to GOMAXPROCS, so that no core is idle.
var turnCount = sync.OnceValue(func() int { return max(1, runtime.GOMAXPROCS(0)-1) })

var turns = sync.OnceValue(func() *semaphore.Weighted { return semaphore.NewWeighted(int64(turnCount())) })

// signing limits how many signatures are made at once, to one per processor. The others
// wait here, where they notice that their caller has given up.
var signing = sync.OnceValue(func() *semaphore.Weighted { return semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0))) })

// takeTurn waits for a turn and does the work, unless the request has ended meanwhile.
// Work that takes long must check the context itself.
func takeTurn(ctx context.Context, work func() error) error {
	if err := turns().Acquire(ctx, 1); err != nil {
		return err
	}
	defer turns().Release(1)
	if err := ctx.Err(); err != nil {
		return err
	}
	return work()
}

// generating allows one key generation at a time. It takes seconds, and the other turns
// must stay free.
var generating = semaphore.NewWeighted(1)

// A panicError is a panic that was turned into an error.
type panicError struct{ text string }

func (e *panicError) Error() string { return e.text }

// recovered turns a panic of a request into a fault of that request. Use it as
// "defer recovered(logger, &err)".
//
// All mounts share one process. Without this, an input that makes one request panic
// could be used to end the process for all of them, again and again. It is safe to
// continue after a panic: deferred calls release locks and turns, and what requests
// share is immutable or replaced as a whole. The value of a panic is logged only if it
// comes from Go's runtime, because others may contain input.
func recovered(logger hclog.Logger, err *error) {
	p := recover()
	if p == nil {
		return
	}
	text := fmt.Sprintf("panic: %T", p)
	if fault, ok := p.(runtime.Error); ok {
		text = "panic: " + fault.Error()
	}
	logger.Error("a request panicked; please report this", "panic", text, "stack", string(debug.Stack()))
	*err = &panicError{text}
}

// errChanged means that the configuration or the role changed after the request
// had read them. The request is then decided again.
var errChanged = errors.New("the configuration or the role changed meanwhile")

// A fence stops work that relies on a state when that state has been replaced.
type fence struct {
	mu     sync.RWMutex
	raised bool
}

// pass does the work, unless the fence was raised.
func (f *fence) pass(work func() error) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.raised {
		return errChanged
	}
	return work()
}

// raise waits for the work under way, and lets no other work pass.
func (f *fence) raise() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.raised = true
}
