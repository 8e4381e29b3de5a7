// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// A testWatch has a clock that the test moves.
type testWatch struct {
	*watch
	t     *testing.T
	clock time.Time
}

func newTestWatch(t *testing.T) *testWatch {
	w := &testWatch{t: t, clock: testNow}
	w.watch = newWatch(func() time.Time { return w.clock })
	return w
}

// pass lets time pass without a beat.
func (w *testWatch) pass(d time.Duration) { w.clock = w.clock.Add(d) }

// ticks are beats in their usual interval.
func (w *testWatch) ticks(n int) {
	for range n {
		w.pass(beatInterval)
		w.tick()
	}
}

func (w *testWatch) require(want error, when string) {
	w.t.Helper()
	require.Equal(w.t, want, w.check(hclog.NewNullLogger()), when)
}

func TestWatch(t *testing.T) {
	w := newTestWatch(t)
	w.require(nil, "new")
	w.ticks(1000)
	w.require(nil, "long after")
	w.pass(longestStop)
	w.require(nil, "after a stop that is short enough")
	w.tick()
	w.require(nil, "and after the beat that follows")

	for _, first := range []string{"request", "beat"} {
		w.pass(longestStop + 1)
		if first == "beat" {
			w.tick()
		}
		w.require(errSuspended, "after a suspension")
		if first == "request" {
			w.tick()
			w.require(errSuspended, "the beat must not hide it")
		}
		w.ticks(restBeats - 1)
		w.require(errSuspended, "to the end of the rest")
		w.ticks(1)
		w.require(nil, "after the rest")
	}
}

// A second suspension during the rest after the first has a whole rest of its own.
func TestWatchSuspendedAgain(t *testing.T) {
	w := newTestWatch(t)
	w.pass(time.Hour)
	w.ticks(restBeats / 2)
	w.pass(time.Hour)
	w.ticks(restBeats)
	w.require(errSuspended, "to the end of the second rest")
	w.ticks(1)
	w.require(nil, "after the second rest")
}

// A clock that is set back is no suspension, and one that is set right again after it had
// gone ahead ends none later than it would have ended.
func TestWatchClockSet(t *testing.T) {
	w := newTestWatch(t)
	for _, back := range []time.Duration{time.Second, time.Hour, 10 * 365 * 24 * time.Hour} {
		w.pass(-back)
		w.require(nil, "set back")
		w.ticks(1)
		w.require(nil, "set back, at the next beat")
		w.pass(longestStop + 1)
		w.require(errSuspended, "suspended after it was set back")
		w.ticks(restBeats + 1)
		w.require(nil, "and resumed")
	}
	w.pass(time.Hour)
	w.ticks(1)
	w.require(errSuspended, "set forward")
	w.pass(-time.Hour)
	w.ticks(restBeats)
	w.require(nil, "set right again")
}

// Whatever the order of beats and requests, none gets through after a suspension.
func TestWatchAtOnce(t *testing.T) {
	var clock atomic.Int64
	w := newWatch(func() time.Time { return time.Unix(0, clock.Load()) })
	clock.Add(int64(time.Hour))
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				if w.check(hclog.NewNullLogger()) == nil {
					passed.Add(1)
				}
			}
		})
	}
	for range restBeats {
		w.tick()
	}
	wg.Wait()
	require.Zero(t, passed.Load())
}

// unavailable is a request that must end in a 503, as Vault makes it of the error.
func (m *testMount) unavailable(op logical.Operation, path string, data map[string]any) {
	m.t.Helper()
	resp, err := m.call(op, path, data)
	require.Nil(m.t, resp)
	require.EqualError(m.t, err, "this server was suspended, and another node may have replaced it; it gives no token for 5s, try again")
	status, err := logical.RespondErrorCommon(&logical.Request{Operation: op, Path: path}, resp, err)
	logical.AdjustErrorStatusCode(&status, err)
	require.Equal(m.t, http.StatusServiceUnavailable, status)
}

func (m *testMount) beats(n int) {
	for range n {
		m.wall.Add(int64(beatInterval))
		m.watch.tick()
	}
}

func TestNoTokensAfterASuspension(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/leased", map[string]any{fieldAllowedRooms: "support-*", fieldGenerateLease: true})
	one := map[string]any{fieldRoom: "support-1"}
	token, _ := m.token("support", one)
	require.NotContains(t, m.log.String(), "suspended")
	for lines := 1; lines <= 2; lines++ {
		m.wall.Add(int64(23 * time.Second))
		for range 2 { // before the first beat after it, and after it
			m.unavailable(logical.ReadOperation, "creds/support", one)
			m.unavailable(logical.UpdateOperation, "creds/support", one)
			m.unavailable(logical.UpdateOperation, "creds/support", map[string]any{fieldBatchInput: []any{one}})
			m.unavailable(logical.ReadOperation, "creds/leased", one)
			m.unavailable(logical.ReadOperation, "creds/none", one)
			m.watch.tick()
		}
		require.Equal(t, lines, strings.Count(m.log.String(), "this process was suspended"), "one line for a suspension")
		require.Contains(t, m.log.String(), "seconds=23 refused_for=5s")

		// What gives no token goes on.
		require.Equal(t, true, m.mustRead("check/support", one)["allowed"])
		require.Equal(t, true, m.mustWrite("verify", map[string]any{fieldToken: token[fieldToken]}).Data[fieldValid])
		m.mustWrite("roles/support", map[string]any{fieldTTL: "5m"})
		m.mustRead("config", nil)

		m.beats(restBeats)
		m.token("support", one)
	}
	require.NotContains(t, m.log.String(), "request failed", "it is no fault")
}

// Wherever in a request the suspension begins, its token is not given; a batch stops soon.
func TestSuspendedDuringARequest(t *testing.T) {
	m := configured(t)
	var looks, until atomic.Int64 // looks at the clock, and at which one it is an hour later
	last := int64(-1)             // at which look the configuration is replaced
	m.watch.now = func() time.Time {
		now, n := testNow, looks.Add(1)
		if n >= until.Load() {
			now = now.Add(time.Hour)
		}
		if n == last {
			m.inside.invalidate(t.Context(), configStoragePath)
		}
		return now
	}
	const items = 20
	batch := make([]any, items)
	for i := range batch {
		batch[i] = map[string]any{fieldRoom: "support-1"}
	}
	for _, test := range []struct {
		data  map[string]any
		looks int64
	}{
		{map[string]any{fieldRoom: "support-1"}, 2},
		{map[string]any{fieldBatchInput: batch}, 1 + items + 1},
	} {
		last = -1
		for before := range test.looks {
			looks.Store(0)
			until.Store(before + 1)
			m.unavailable(logical.UpdateOperation, "creds/support", test.data)
			require.LessOrEqual(t, looks.Load(), before+int64(turnCount()), "it stops soon")
		}
		// It looks last of all: if it signed anything later, it would see that the
		// configuration was replaced, and decide anew.
		last = test.looks
		looks.Store(0)
		until.Store(test.looks + 1)
		m.mustWrite("creds/support", test.data)
		require.Equal(t, test.looks, looks.Load())
	}
}
