// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/acceptance/history"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

var multiplier = flag.Int("multiplier", 0, "Raft's performance_multiplier in the cluster tests; 0 is the server's default")

// clusterMount is where the engine is mounted in a cluster, and seqRole the role that its
// clients use.
const (
	clusterMount = "clanmeeting"
	seqRole      = "seq"
)

// TestCluster does harm to a cluster of three servers on this machine, while clients read
// tokens and change settings, and checks every answer. With -v it prints what it found, with
// a table row for each fault. With -short it does what takes seconds, in a cluster whose
// servers don't cache their storage.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := startCluster(t, devvault.Options{DisableCache: testing.Short()})
	c.run("StandbysForward", c.testStandbysForward)
	c.run("NothingInTheFiles", c.testNothingInTheFiles)
	if c.options.DisableCache { // its locks make readers wait for the write
		c.run("AbandonedWrites", c.testAbandonedWrites)
	}
	c.run("Faults", c.testFaults)
}

// Standbys that serve reads themselves. They lag behind, and each has its own plugin.
func TestClusterStandbyReadsOpenBaoOnly(t *testing.T) {
	onlyOn(t, devvault.OpenBao)
	t.Parallel()
	c := startCluster(t, devvault.Options{StandbyReads: true})
	c.run("StandbysServe", c.testStandbysServe)
	c.run("NothingInTheFiles", c.testNothingInTheFiles)
	c.run("Faults", c.testFaults)
}

// testCluster is a cluster with the engine mounted and configured, whose network can be cut.
type testCluster struct {
	*devvault.Cluster
	t       *testing.T // the test that uses it now
	options devvault.Options
	dir     string // where the nodes have their files
	network *network
	keys    sync.Map        // the mount's public keys by version
	tried   atomic.Int64    // the last number that was written, or not
	starts  []history.Start // during a fault
	killed  time.Time       // the plugin, during a fault
}

func startCluster(t *testing.T, o devvault.Options) *testCluster {
	t.Helper()
	c := &testCluster{t: t, dir: t.ArtifactDir(), network: newNetwork(t)} // go test -artifacts keeps it
	o.VaultBin, o.PluginDir, o.LogLevel = os.Getenv("VAULT_BIN"), filepath.Join(c.dir, "plugins"), "debug"
	o.Multiplier, o.Advertise = *multiplier, c.network.advertise
	c.options = o
	for _, version := range []string{testVersion, nextVersion} {
		require.NoError(t, buildPlugin(c.plugin(version), version))
	}
	var err error
	c.Cluster, err = devvault.StartCluster(context.Background(), o, c.dir)
	require.NoError(t, err)
	t.Cleanup(func() {
		c.Stop()
		for _, n := range c.Nodes {
			require.NotContains(t, n.Log(), "DATA RACE")
			require.NoError(t, os.WriteFile(filepath.Join(c.dir, n.ID+".log"), []byte(n.Log()), 0o600))
		}
	})
	c.register(testVersion)
	root := c.root()
	root.enable(clusterMount)
	root.write(clusterMount+"/config", map[string]any{"consumer_id": "acme", "issuer": "seq-0"})
	root.write(clusterMount+"/config", map[string]any{"active_key": c.generate(c.active())})
	root.write(clusterMount+"/roles/"+seqRole, map[string]any{"allowed_rooms": "room-0", "default_room": "room-0", "ttl": 300})
	return c
}

// run runs a part of a test. If it fails, so does the whole: the next part needs a whole
// cluster.
func (c *testCluster) run(name string, part func()) {
	whole := c.t
	defer func() { c.t = whole }()
	if !whole.Run(name, func(t *testing.T) {
		c.t = t
		part()
	}) {
		whole.FailNow()
	}
}

func (c *testCluster) plugin(version string) string {
	return filepath.Join(c.dir, "plugins", devvault.PluginName+"-"+version)
}

// register adds a version of the plugin to the cluster's catalog.
func (c *testCluster) register(version string) {
	c.t.Helper()
	require.NoError(c.t, c.Register(context.Background(), devvault.PluginName, version, c.plugin(version)))
}

// root is a client of the active node.
func (c *testCluster) root() client {
	c.t.Helper()
	return c.at(c.active())
}

// at is a client of a node with the root token.
func (c *testCluster) at(node int) client { return client{c.t, c.Nodes[node].Server, c.RootToken} }

// active returns the index of the active node.
func (c *testCluster) active() int {
	c.t.Helper()
	active, err := c.Active(context.Background())
	require.NoError(c.t, err)
	return slices.Index(c.Nodes, active)
}

// pluginOf returns the process of a node's plugin.
func (c *testCluster) pluginOf(node int) procfs.Proc {
	c.t.Helper()
	plugins := children(c.t, c.Nodes[node].PID())
	require.Len(c.t, plugins, 1, "the plugins of node %d", node)
	plugin, err := procfs.NewProc(plugins[0])
	require.NoError(c.t, err)
	return plugin
}

// requireVersion checks that a node runs this version of the plugin and no other.
func (c *testCluster) requireVersion(node int, version string) {
	c.t.Helper()
	file, err := c.pluginOf(node).Executable()
	require.NoError(c.t, err)
	require.Equal(c.t, filepath.Base(c.plugin(version)), filepath.Base(file))
}

// If standbys forward, the plugin runs only on the active node.
func (c *testCluster) testStandbysForward() {
	active := c.active()
	for node, n := range c.Nodes {
		if node != active {
			require.Empty(c.t, children(c.t, n.PID()), "a standby runs no plugin")
		}
	}
	c.requireEachNodeSigns()
}

// requireEachNodeSigns asks each node for the key that it signs with, by the commands of
// docs/openbao.md.
func (c *testCluster) requireEachNodeSigns() {
	c.t.Helper()
	c.root().write(clusterMount+"/roles/support", map[string]any{"allowed_rooms": "support-*"})
	if c.options.StandbyReads {
		time.Sleep(allowedLag)
	}
	var addrs []string
	var want strings.Builder
	for _, n := range c.Nodes {
		addrs = append(addrs, n.Addr)
		fmt.Fprintf(&want, "%s signs with 1\n", n.Addr)
	}
	commands := indented(sections(c.t, "../../docs/openbao.md")["A deleted key can still sign"])
	commands = strings.NewReplacer("n1 n2 n3", strings.Join(addrs, " "), "https://$node.example.com:8200", "$node").Replace(commands)
	// OpenBao's own command reads BAO_ADDR; the commands are for it.
	out := reader{c.at(0), readersFolder(c.t)}.run(`bao() { VAULT_ADDR="$BAO_ADDR" vault "$@"; }` + "\n" + commands)
	require.Equal(c.t, want.String(), out)
}

// If standbys serve reads, a plugin runs on every node and signs what arrives there, except
// requests that need a lease or write.
func (c *testCluster) testStandbysServe() {
	c.root().write(clusterMount+"/roles/leased", map[string]any{"allowed_rooms": "*", "generate_lease": true})
	c.requireEachNodeSigns()
	for node, n := range c.Nodes {
		c.pluginOf(node)
		at := c.at(node)
		require.Equal(c.t, n.ID, c.readToken(node).By)
		require.Equal(c.t, true, at.read(clusterMount + "/check/" + seqRole)["allowed"])
		batch := at.write(clusterMount+"/creds/"+seqRole, map[string]any{"batch_input": []any{map[string]any{"room": "room-0"}}})
		token := batch.Data()["batch_results"].([]any)[0].(map[string]any)["token"]
		require.Equal(c.t, true, at.write(clusterMount+"/verify", map[string]any{"token": token}).Data()["valid"])

		status, leased := at.get(clusterMount+"/creds/leased", "room", "x")
		require.Equal(c.t, http.StatusOK, status, leased.Errors())
		require.NotEmpty(c.t, leased["lease_id"])
		at.write(clusterMount+"/roles/"+seqRole, map[string]any{"ttl": 300})
	}
}

// Somebody who steals the storage finds entries of the engine in it, but no key and no
// token, not even a token with a lease.
func (c *testCluster) testNothingInTheFiles() {
	root := c.root()
	key, private := newKey(c.t)
	version := root.write(clusterMount+"/keys/import", map[string]any{"private_key": private}).Data()["version"]
	root.write(clusterMount+"/roles/leased", map[string]any{"allowed_rooms": "hidden-*", "generate_lease": true})
	_, answer := root.get(clusterMount+"/creds/leased", "room", "hidden-1")
	require.NotEmpty(c.t, answer["lease_id"])
	token := answer.Data()["token"].(string)
	time.Sleep(quiet()) // until the last write has reached every follower
	for _, n := range c.Nodes {
		files, err := exec.Command("find", filepath.Join(c.dir, n.ID), "-type", "f", "-exec", "cat", "{}", "+").Output()
		require.NoError(c.t, err)
		holds := func(text string) bool { return strings.Contains(string(files), text) }
		require.True(c.t, holds(fmt.Sprintf("/keys/%s", version)), "the hunt must see: the names of entries are in the files")
		require.True(c.t, holds(clusterMount+"/creds/leased/"))
		require.False(c.t, holds("hidden-*"), "a rule of a role is in the files")
		require.False(c.t, holds(token[len(token)-40:]), "the end of a token is in the files")
		requireNoKey(c.t, "the files of "+n.ID, string(files), key)
		requireNoKey(c.t, "the log of "+n.ID, n.Log(), key)
	}
}
