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

// One request can ask for work that takes much longer than one signature: a batch, a
// new key, a private key to be tried, a token to be verified with a hundred keys. Such
// work is done in turns, which all requests of all mounts of the process share. A read
// of a single token takes no turn, so it never waits behind them.

// turnCount is how many turns are taken at once. One processor is left out: while
// all of them compute, Go's runtime looks only every 10 ms whether a request has come
// in, and a read of one token would wait that long several times. The plugin's main
// makes up for it.
var turnCount = sync.OnceValue(func() int { return max(1, runtime.GOMAXPROCS(0)-1) })

var turns = sync.OnceValue(func() *semaphore.Weighted { return semaphore.NewWeighted(int64(turnCount())) })

// takeTurn waits for a turn and does the work. It does nothing for a request that has
// ended; work that takes long looks at the context itself.
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

// generating lets one key be generated at a time, whatever the number of turns: it
// takes seconds, in which the other turns stay free for others.
var generating = semaphore.NewWeighted(1)

// A panicError is what became of a panic.
type panicError struct{ text string }

func (e *panicError) Error() string { return e.text }

// recovered turns a panic of a request into a fault of that request. Use it as
// "defer recovered(logger, &err)".
//
// All mounts share one process. Without this, somebody who finds an input that makes
// one request panic could end the process for all of them, again and again. After a
// panic the engine goes on safely: locks and turns are given back by deferred calls,
// and what requests share is immutable or replaced as a whole. The value of the panic
// is logged only if it is the runtime's own, because any other one may hold input.
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
// had read them. The request is then decided anew.
var errChanged = errors.New("the configuration or the role changed meanwhile")

// A fence keeps work that relies on a state from going on after the state has been
// replaced.
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

// raise waits for the work under way, and lets no more pass.
func (f *fence) raise() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.raised = true
}
