// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"context"
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
)

// abandonedMount is where the write is abandoned.
const abandonedMount = "abandoned"

// A client switches to another key, and gives up before Raft can commit the write. Vault
// commits it nevertheless. What the engine shows then is what it uses. backend tests
// everything else that the engine keeps in memory.
func testAbandonedWrites(t *testing.T, c *testCluster) {
	if *multiplier != 0 {
		t.Skip("the leader must keep its lease while the followers are stopped")
	}
	root := c.root()
	root.configure(root.enable(abandonedMount))
	defer root.call(http.MethodDelete, "sys/mounts/"+abandonedMount, nil)
	root.write(abandonedMount+"/roles/wide", map[string]any{"allowed_rooms": "*", "default_room": "lobby"})
	root.write(abandonedMount+"/keys/generate", nil)
	for range stoppedAttempts {
		active, elections := c.active(), len(c.terms())
		leader := c.at(active, c.RootToken)
		shown := func() string { return fmt.Sprint(leader.read(abandonedMount + "/config")["active_key"]) }
		used := func() string { return fmt.Sprint(leader.read(abandonedMount + "/creds/wide")["key_version"]) }
		if shown() == "2" {
			t.Log("not tested: the write was done by the next leader")
			return
		}
		end := c.readMeanwhile(leader)
		began := time.Now()
		c.signalOthers(active, syscall.SIGSTOP)
		ctx, cancel := context.WithTimeout(context.Background(), givenUpAfter)
		_, _, err := leader.vault.Call(ctx, leader.token, http.MethodPost, abandonedMount+"/config", map[string]any{"active_key": 2})
		cancel()
		time.Sleep(time.Until(began.Add(stoppedFor)))
		c.signalOthers(active, syscall.SIGCONT)
		end()
		if len(c.terms()) != elections || time.Since(began) > leaderLease {
			continue
		}
		require.ErrorIs(t, err, context.DeadlineExceeded, "the write must not end while the followers are stopped")
		waitUntil(t, "the engine shows and uses key version 2", func() bool { return shown() == "2" && used() == "2" })
		status, answer := leader.call(http.MethodDelete, abandonedMount+"/keys/1", nil)
		require.Equal(t, http.StatusNoContent, status, answer.Errors())
		for range 20 {
			require.Equal(t, "2", used(), "key version 1 is deleted")
		}
		return
	}
	require.Fail(t, "the leader lost its lease: this machine is too busy for the test")
}

// readMeanwhile reads tokens until the returned function is called, so that the engine loads
// again what it has dropped.
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
