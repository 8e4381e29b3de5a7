// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// givenUpAfter is when the client of a write gives up.
	givenUpAfter = 400 * time.Millisecond
	// stoppedFor is how long the followers are stopped: longer than that, and shorter than
	// the lease of Raft's leader.
	stoppedFor  = time.Second
	leaderLease = 2500 * time.Millisecond // by default
	// stoppedAttempts is how often a write is tried, if the leader loses its lease.
	stoppedAttempts = 5
	// settles is more than a write needs to end after the followers go on.
	settles = 15 * time.Second
)

// An abandonedWrite is one whose client gives up before Raft can commit it. Vault commits it
// nevertheless.
type abandonedWrite struct {
	name, path string
	body       any
	// state returns what the engine shows, and what it uses.
	state func(c client) (shown, used any)
	want  string // both of them, in the end
	after func(c client)
}

// abandonedMount is where the writes are abandoned.
const abandonedMount = "abandoned"

// abandonedWrites prepares the mount, and returns a write of the key and one of a role.
// backend tests everything that the engine keeps in memory.
func abandonedWrites(root client) []abandonedWrite {
	const mount = abandonedMount
	root.configure(root.enable(mount))
	root.write(mount+"/roles/wide", map[string]any{"allowed_rooms": "*", "default_room": "lobby"})
	root.write(mount+"/keys/generate", nil)
	return []abandonedWrite{
		{"Key", "/config", map[string]any{"active_key": 2}, func(c client) (any, any) {
			return c.read(mount + "/config")["active_key"], c.read(mount + "/creds/wide")["key_version"]
		}, "2", func(c client) {
			status, answer := c.call(http.MethodDelete, mount+"/keys/1", nil)
			require.Equal(c.t, http.StatusNoContent, status, answer.Errors())
			for range 20 {
				require.Equal(c.t, json.Number("2"), c.read(mount + "/creds/wide")["key_version"], "key version 1 is deleted")
			}
		}},
		{"Role", "/roles/wide", map[string]any{"allowed_rooms": "lobby"}, func(c client) (any, any) {
			status, _ := c.get(mount+"/creds/wide", "room", "board")
			return fmt.Sprint(c.read(mount + "/roles/wide")["allowed_rooms"]) == "[lobby]", status == http.StatusBadRequest
		}, "true", nil},
	}
}

// Whatever a client that gives up has changed: what the engine shows is what it uses.
func testAbandonedWrites(t *testing.T, c *testCluster) {
	if *multiplier != 0 {
		t.Skip("the leader must keep its lease while the followers are stopped")
	}
	root := c.root()
	writes := abandonedWrites(root)
	defer root.call(http.MethodDelete, "sys/mounts/"+abandonedMount, nil)
	for _, w := range writes {
		t.Run(w.name, func(t *testing.T) {
			c.t = t
			defer func() { c.t = root.t }()
			c.abandon(w)
		})
	}
}

// abandon makes a write whose client gives up while both followers are stopped. Meanwhile
// tokens are read, so that the engine loads again what it has dropped.
func (c *testCluster) abandon(w abandonedWrite) {
	c.t.Helper()
	for range stoppedAttempts {
		active, elections := c.active(), len(c.terms())
		leader := c.at(active, c.RootToken)
		if shown, _ := w.state(leader); fmt.Sprint(shown) == w.want {
			c.t.Log("not tested: the write was done by the next leader")
			return
		}
		end := c.readMeanwhile(leader)
		began := time.Now()
		c.signalOthers(active, syscall.SIGSTOP)
		ctx, cancel := context.WithTimeout(context.Background(), givenUpAfter)
		_, _, err := leader.vault.Call(ctx, leader.token, http.MethodPost, abandonedMount+w.path, w.body)
		cancel()
		time.Sleep(time.Until(began.Add(stoppedFor)))
		c.signalOthers(active, syscall.SIGCONT)
		end()
		if len(c.terms()) != elections || time.Since(began) > leaderLease {
			continue
		}
		require.ErrorIs(c.t, err, context.DeadlineExceeded, "the write must not end while the followers are stopped")
		var shown, used any
		for since := time.Now(); fmt.Sprint(shown) != w.want || fmt.Sprint(used) != w.want; time.Sleep(100 * time.Millisecond) {
			require.Less(c.t, time.Since(since), settles, "%s should be %s: the engine shows %v and uses %v", w.name, w.want, shown, used)
			shown, used = w.state(leader)
		}
		if w.after != nil {
			w.after(leader)
		}
		return
	}
	require.Fail(c.t, "the leader lost its lease: this machine is too busy for the test")
}

// readMeanwhile reads tokens until the returned function is called.
func (c *testCluster) readMeanwhile(leader client) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for sleep(ctx, 5*time.Millisecond) {
				// The answers don't matter yet: nothing was acknowledged.
				_, _, _ = leader.vault.Call(ctx, leader.token, http.MethodGet, abandonedMount+"/creds/wide", nil)
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	return func() {
		cancel()
		wg.Wait()
	}
}

// signalOthers sends a signal to all servers but the active one, and waits until they have
// stopped if it is SIGSTOP.
func (c *testCluster) signalOthers(active int, s syscall.Signal) {
	c.t.Helper()
	for node, n := range c.Nodes {
		if node == active {
			continue
		}
		require.NoError(c.t, syscall.Kill(n.PID(), s))
		if s == syscall.SIGSTOP {
			waitUntil(c.t, "it stops", func() bool { return strings.HasPrefix(state(n.PID()), "T") })
		}
	}
}
