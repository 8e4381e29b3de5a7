// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
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
	name, method, path string
	body               any
	token              string // to verify meanwhile
	// state returns what the engine shows, and what it uses.
	state func(c client) (shown, used any)
	want  string // both of them, in the end
	after func(c client)
}

// abandonedMount is where the writes are abandoned.
const abandonedMount = "abandoned"

// abandonedWrites prepares the mount, and returns one write for each thing that an engine may
// keep in memory: the key, a setting, a role, and the list of keys.
func abandonedWrites(root client) []abandonedWrite {
	const mount = abandonedMount
	mounted := func(mount, private string) {
		root.write("sys/mounts/"+mount, map[string]any{"type": devvault.PluginName})
		root.write(mount+"/config", map[string]any{"consumer_id": "acme", "private_key": private})
		root.write(mount+"/roles/wide", map[string]any{"allowed_rooms": "*", "default_room": "lobby"})
	}
	token := func(mount string) string { return root.read(mount + "/creds/wide")["token"].(string) }
	_, private := newKey(root.t)
	mounted(mount, private)
	for range 2 {
		root.write(mount+"/keys/generate", nil)
	}
	root.write(mount+"/config", map[string]any{"active_key": 3})
	deleted := token(mount)
	root.write(mount+"/config", map[string]any{"active_key": 1})
	_, private = newKey(root.t)
	mounted(mount+"-import", private) // for a token of the key that is imported
	imported := token(mount + "-import")

	// listed returns whether the list has a key, and whether verify has it.
	listed := func(version, token string) func(client) (any, any) {
		return func(c client) (any, any) {
			reason := fmt.Sprint(c.write(mount+"/verify", map[string]any{"token": token}).Data()["reason"])
			return slices.Contains(c.read(mount + "/keys?list=true")["keys"].([]any), any(version)), !strings.Contains(reason, "signed by another key")
		}
	}
	return []abandonedWrite{
		{"Key", http.MethodPost, mount + "/config", map[string]any{"active_key": 2}, deleted, func(c client) (any, any) {
			return c.read(mount + "/config")["active_key"], c.read(mount + "/creds/wide")["key_version"]
		}, "2", func(c client) {
			status, answer := c.call(http.MethodDelete, mount+"/keys/1", nil)
			require.Equal(c.t, http.StatusNoContent, status, answer.Errors())
			for range 20 {
				require.Equal(c.t, json.Number("2"), c.read(mount + "/creds/wide")["key_version"], "key version 1 is deleted")
			}
		}},
		{"Setting", http.MethodPost, mount + "/config", map[string]any{"issuer": "other"}, deleted, func(c client) (any, any) {
			claims, err := claimsOf(c.read(mount + "/creds/wide")["token"].(string))
			require.NoError(c.t, err)
			return c.read(mount + "/config")["issuer"], claims["iss"]
		}, "other", nil},
		{"Role", http.MethodPost, mount + "/roles/wide", map[string]any{"allowed_rooms": "lobby"}, deleted, func(c client) (any, any) {
			status, _ := c.get(mount+"/creds/wide", "room", "board")
			return fmt.Sprint(c.read(mount + "/roles/wide")["allowed_rooms"]) == "[lobby]", status == http.StatusBadRequest
		}, "true", nil},
		{"KeyDeleted", http.MethodDelete, mount + "/keys/3", nil, deleted, listed("3", deleted), "false", nil},
		{"KeyImported", http.MethodPost, mount + "/keys/import", map[string]any{"private_key": private}, imported, listed("4", imported), "true", nil},
	}
}

// Whatever a client that gives up has changed: what the engine shows is what it uses.
func testAbandonedWrites(t *testing.T, c *testCluster) {
	if *multiplier != 0 {
		t.Skip("the leader must keep its lease while the followers are stopped")
	}
	root := c.root()
	writes := abandonedWrites(root)
	defer func() {
		for _, mount := range []string{abandonedMount, abandonedMount + "-import"} {
			root.call(http.MethodDelete, "sys/mounts/"+mount, nil)
		}
	}()
	for _, w := range writes {
		t.Run(w.name, func(t *testing.T) {
			c.t = t
			defer func() { c.t = root.t }()
			c.abandon(w)
		})
	}
}

// abandon makes a write whose client gives up while both followers are stopped. Meanwhile
// tokens are read and verified, so that the engine loads again what it has dropped.
func (c *testCluster) abandon(w abandonedWrite) {
	c.t.Helper()
	for range stoppedAttempts {
		active, elections := c.active(), len(c.terms())
		leader := c.at(active, c.RootToken)
		if shown, _ := w.state(leader); fmt.Sprint(shown) == w.want {
			c.t.Log("not tested: the write was done by the next leader")
			return
		}
		end := c.readMeanwhile(leader, w)
		began := time.Now()
		c.signalOthers(active, syscall.SIGSTOP)
		ctx, cancel := context.WithTimeout(context.Background(), givenUpAfter)
		_, _, err := leader.vault.Call(ctx, leader.token, w.method, w.path, w.body)
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

// readMeanwhile reads and verifies tokens until the returned function is called.
func (c *testCluster) readMeanwhile(leader client, w abandonedWrite) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for sleep(ctx, 5*time.Millisecond) {
				// Their answers don't matter yet: nothing was acknowledged.
				_, _, _ = leader.vault.Call(ctx, leader.token, http.MethodGet, abandonedMount+"/creds/wide", nil)
				_, _, _ = leader.vault.Call(ctx, leader.token, http.MethodPost, abandonedMount+"/verify", map[string]any{"token": w.token})
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
