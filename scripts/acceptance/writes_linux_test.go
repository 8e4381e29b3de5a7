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
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	// givenUpAfter is when the client of a write gives up.
	givenUpAfter = 400 * time.Millisecond
	// stoppedFor is how long the followers are stopped: longer than that, and shorter than
	// the lease of Raft's leader.
	stoppedFor  = time.Second
	leaderLease = 2500 * time.Millisecond // by default
)

// A client switches to another key, and gives up before Raft can commit the write. Vault
// commits it nevertheless. What the engine shows then is what it uses. backend tests
// everything else that the engine keeps in memory.
func (c *testCluster) testAbandonedWrites() {
	root := c.root()
	mount := root.enable("abandoned")
	root.configure(mount)
	defer root.call(http.MethodDelete, "sys/mounts/"+mount, nil)
	for range 5 {
		active, elections := c.active(), len(c.terms())
		leader := c.at(active)
		shown := func() string { return fmt.Sprint(leader.read(mount + "/config")["active_key"]) }
		used := func() string {
			return fmt.Sprint(leader.read(mount+"/creds/support", "room", "support-1")["key_version"])
		}
		old, next := shown(), fmt.Sprint(leader.write(mount+"/keys/generate", nil).Data()["version"])
		began := time.Now()
		err := c.abandonWrite(leader, active, mount, next)
		if len(c.terms()) != elections || time.Since(began) > leaderLease {
			continue
		}
		require.ErrorIs(c.t, err, context.DeadlineExceeded, "the write must not end while the followers are stopped")
		require.EventuallyWithT(c.t, func(now *assert.CollectT) {
			assert.Equal(now, next, shown(), "what the engine shows")
			assert.Equal(now, next, used(), "what the engine uses")
		}, 20*time.Second, 50*time.Millisecond)
		status, answer := leader.call(http.MethodDelete, mount+"/keys/"+old, nil)
		require.Equal(c.t, http.StatusNoContent, status, answer.Errors())
		require.Equal(c.t, next, used(), "the other key is deleted")
		return
	}
	require.Fail(c.t, "the leader lost its lease, again and again: this machine is too busy for the test")
}

// abandonWrite switches to a key while the followers are stopped, and returns the error of
// the write. Meanwhile others read tokens, so that the engine loads again what it has
// dropped.
func (c *testCluster) abandonWrite(leader client, active int, mount, version string) error {
	ctx, stop := context.WithCancel(context.Background())
	var readers sync.WaitGroup
	repeat(ctx, &readers, 5*time.Millisecond, 2, func(int) {
		// The answers don't matter yet: nothing was acknowledged.
		_, _, _ = leader.vault.Call(ctx, leader.token, http.MethodGet, mount+"/creds/support?room=support-1", nil)
	})
	time.Sleep(100 * time.Millisecond)
	continued := time.After(stoppedFor)
	for node, n := range c.Nodes {
		if node != active {
			send(syscall.SIGSTOP, false)(c, node)
			waitUntil(c.t, "it stops", func() bool { return strings.HasPrefix(state(n.PID()), "T") })
		}
	}
	gone, cancel := context.WithTimeout(ctx, givenUpAfter)
	_, _, err := leader.vault.Call(gone, leader.token, http.MethodPost, mount+"/config", map[string]any{"active_key": version})
	cancel()
	<-continued
	for node := range nodes {
		send(syscall.SIGCONT, false)(c, node)
	}
	stop()
	readers.Wait()
	return err
}
