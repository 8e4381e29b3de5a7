// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
)

// A server that is suspended, with its virtual machine or by a signal, does not know it
// when it is resumed. It passes on the requests that were on their way inside it, and
// steps down a moment later. Another node may lead since long, where the role was narrowed
// or the key deleted. So for some seconds after a suspension no token is given.

const (
	// beatInterval is how often a watch looks at the clock.
	beatInterval = 250 * time.Millisecond

	// longestStop is how long the process may stand still without consequences: as long as
	// the lease of a Raft leader in Vault and OpenBao, by default. After a longer stop the
	// server steps down anyway. After a shorter one nobody leads in its place: a follower
	// waits for 5 s or more, counted from the leader's last heartbeat, which was 1 s ago at
	// the most.
	longestStop = 2500 * time.Millisecond

	// restBeats are those of the 5 s in which no token is given. In our tests a resumed
	// Vault answered for 1.1 s until it had stepped down, and a restarted OpenBao that
	// serves reads with old settings for 2.3 s.
	restBeats = 20
)

// errSuspended is not wrapped: Vault asks the error itself for its status.
var errSuspended = logical.CodedError(http.StatusServiceUnavailable, fmt.Sprintf(
	"this server was suspended, and another node may have replaced it; it gives no token for %s, try again", restBeats*beatInterval))

// A watch notices that the process was suspended: its beat stops, and the clock goes on.
//
// It is the wall clock, because the monotonic one may stand still with the machine. If
// somebody sets it forward by more than longestStop, that looks like a suspension. Set
// back, it hides a suspension that was no longer than that.
type watch struct {
	now func() time.Time

	// beat is the wall clock at the last beat, in nanoseconds since the epoch. It is not
	// renewed during the rest after a suspension, so it also tells suspensions apart.
	beat     atomic.Int64
	reported atomic.Int64 // the beat before the suspension that was logged last

	// Of the goroutine that beats: the clock when it last did, and how many beats the rest
	// still has.
	last int64
	rest int
}

func newWatch(now func() time.Time) *watch {
	w := &watch{now: now, last: now().UnixNano()}
	w.beat.Store(w.last)
	return w
}

// run beats forever.
func (w *watch) run() {
	for range time.Tick(beatInterval) {
		w.tick()
	}
}

// tick beats, unless the process was suspended since the last tick or a moment before.
func (w *watch) tick() {
	now := w.now().UnixNano()
	stood := time.Duration(now - w.last)
	w.last = now
	if stood > longestStop {
		w.rest = restBeats
	}
	if w.rest > 0 {
		w.rest--
		return
	}
	w.beat.Store(now)
}

// check returns errSuspended if the process was suspended a moment ago. What was signed
// before a check that returns nil was signed before any suspension, or long after it.
func (w *watch) check(logger hclog.Logger) error {
	now := w.now().UnixNano() // first: a beat that comes after it does no harm
	beat := w.beat.Load()
	stood := time.Duration(now - beat)
	if stood <= longestStop {
		return nil
	}
	if w.reported.Swap(beat) != beat {
		logger.Warn("this process was suspended, or the clock was set forward; tokens are refused for some seconds",
			"seconds", int(stood.Seconds()), "refused_for", (restBeats * beatInterval).String())
	}
	return errSuspended
}
