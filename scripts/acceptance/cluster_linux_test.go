// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/acceptance/history"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

var (
	multiplier = flag.Int("multiplier", 0, "Raft's performance_multiplier in the cluster tests; 0 is the server's default")
	logs       = flag.String("logs", "", "a folder for the logs of the cluster tests")
)

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
	tests := []clusterTest{
		{"StandbysForward", testStandbysForward},
		{"NothingInTheFiles", testNothingInTheFiles},
		{"AbandonedWrites", testAbandonedWrites},
		{"Faults", testFaults},
		{"StoppedAndStarted", testStoppedAndStarted},
	}
	if testing.Short() {
		tests = tests[:4]
	}
	c.run(t, tests)
}

// A write that its client gives up ends whole, also if the server does not cache its
// storage.
func TestClusterWithoutCache(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short, TestCluster runs without the cache")
	}
	startCluster(t, devvault.Options{DisableCache: true}).run(t, []clusterTest{{"AbandonedWrites", testAbandonedWrites}})
}

// Standbys that serve reads themselves. They lag behind, and each has its own plugin.
func TestClusterStandbyReadsOpenBaoOnly(t *testing.T) {
	onlyOn(t, devvault.OpenBao)
	t.Parallel()
	c := startCluster(t, devvault.Options{StandbyReads: true})
	c.run(t, []clusterTest{
		{"StandbysServe", testStandbysServe},
		{"NothingInTheFiles", testNothingInTheFiles},
		{"Faults", testFaults},
		{"StoppedAndStarted", testStoppedAndStarted},
	})
}

type clusterTest struct {
	name string
	test func(*testing.T, *testCluster)
}

// testCluster is a cluster with the engine mounted and configured, whose network can be cut.
type testCluster struct {
	*devvault.Cluster
	t       testing.TB
	options devvault.Options
	dir     string // where the nodes have their files
	network *network
	app     string // a token that may read creds
	keys    publicKeys
	starts  []history.Start
}

func startCluster(t *testing.T, o devvault.Options) *testCluster {
	t.Helper()
	c := &testCluster{t: t, dir: t.TempDir()}
	c.network = newNetwork(t, c.dir)
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
			if *logs != "" {
				require.NoError(t, os.WriteFile(filepath.Join(*logs, t.Name()+"-"+n.ID+".log"), []byte(n.Log()), 0o600))
			}
		}
	})
	c.register(testVersion)
	root := c.root()
	root.write("sys/mounts/"+clusterMount, map[string]any{"type": devvault.PluginName})
	root.write(clusterMount+"/config", map[string]any{"consumer_id": "acme", "issuer": "seq-0"})
	root.write(clusterMount+"/config", map[string]any{"active_key": c.generate()})
	root.write(clusterMount+"/roles/"+seqRole, map[string]any{"allowed_rooms": "room-0", "default_room": "room-0", "ttl": 300})
	c.app = root.as(`path "clanmeeting/+/seq" { capabilities = ["read", "update"] }
path "clanmeeting/verify" { capabilities = ["update"] }`).token
	return c
}

// run runs the tests in turn, until one fails: the next one needs a whole cluster.
func (c *testCluster) run(t *testing.T, tests []clusterTest) {
	t.Helper()
	for _, test := range tests {
		if !t.Run(test.name, func(t *testing.T) {
			c.t = t
			test.test(t, c)
		}) {
			return
		}
		c.t = t
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

// generate stages a key, and returns its version.
func (c *testCluster) generate() int64 {
	c.t.Helper()
	made := c.root().write(clusterMount+"/keys/generate", nil).Data()
	require.NoError(c.t, c.keys.add(number(made["version"]), fmt.Sprint(made["public_key"])))
	return number(made["version"])
}

// root is a client of the active node with the root token.
func (c *testCluster) root() client {
	c.t.Helper()
	return c.at(c.active(), c.RootToken)
}

// at is a client of a node.
func (c *testCluster) at(node int, token string) client {
	return client{c.t, c.Nodes[node].Server, token}
}

// active returns the index of the active node.
func (c *testCluster) active() int {
	c.t.Helper()
	active, err := c.Active(context.Background())
	require.NoError(c.t, err)
	return slices.Index(c.Nodes, active)
}

// pluginOf returns the process ID of a node's plugin.
func (c *testCluster) pluginOf(node int) int {
	c.t.Helper()
	plugins := children(c.t, c.Nodes[node].PID())
	require.Len(c.t, plugins, 1, "the plugins of node %d", node)
	return plugins[0]
}

// requireVersion checks that a node runs this version of the plugin and no other.
func (c *testCluster) requireVersion(node int, version string) {
	c.t.Helper()
	out, err := exec.Command("ps", "-o", "args=", "-p", strconv.Itoa(c.pluginOf(node))).Output()
	require.NoError(c.t, err)
	require.Regexp(c.t, regexp.QuoteMeta(filepath.Base(c.plugin(version)))+`\b`, string(out))
}

// lag is how old an answer of a standby may be.
func (c *testCluster) lag() time.Duration {
	if c.options.StandbyReads {
		return allowedLag
	}
	return 0
}

// answeredBy asks a node for a token and returns the name of the node that made it.
func (c *testCluster) answeredBy(node int) string {
	c.t.Helper()
	r := c.newClients().readToken(node)
	require.Equal(c.t, history.Done, r.Result, r.Text)
	return r.By
}

// If standbys forward, the plugin runs only on the active node.
func testStandbysForward(t *testing.T, c *testCluster) {
	active := c.active()
	for node, n := range c.Nodes {
		if node != active {
			require.Empty(t, children(t, n.PID()), "a standby runs no plugin")
		}
		require.Equal(t, c.Nodes[active].ID, c.answeredBy(node))
	}
	c.requireEachNodeSigns("1")
}

// requireEachNodeSigns asks each node for the key that it signs with, by the commands of
// docs/openbao.md.
func (c *testCluster) requireEachNodeSigns(version string) {
	c.t.Helper()
	c.root().write(clusterMount+"/roles/support", map[string]any{"allowed_rooms": "support-*"})
	time.Sleep(c.lag())
	var addrs []string
	var want strings.Builder
	for _, n := range c.Nodes {
		addrs = append(addrs, n.Addr)
		fmt.Fprintf(&want, "%s signs with %s\n", n.Addr, version)
	}
	commands := indented(sections(c.t, "../../docs/openbao.md")["A deleted key can still sign"])
	commands = strings.NewReplacer("n1 n2 n3", strings.Join(addrs, " "), "https://$node.example.com:8200", "$node").Replace(commands)
	// OpenBao's own command reads BAO_ADDR; the commands are for it.
	out := reader{c.at(0, c.RootToken), readersFolder(c.t)}.run(`bao() { VAULT_ADDR="$BAO_ADDR" vault "$@"; }` + "\n" + commands)
	require.Equal(c.t, want.String(), out)
}

// If standbys serve reads, a plugin runs on every node and signs what arrives there, except
// requests that need a lease or write.
func testStandbysServe(t *testing.T, c *testCluster) {
	c.root().write(clusterMount+"/roles/leased", map[string]any{"allowed_rooms": "*", "generate_lease": true})
	c.requireEachNodeSigns("1")
	for node, n := range c.Nodes {
		c.pluginOf(node)
		require.Equal(t, n.ID, c.answeredBy(node))
		app := c.at(node, c.app)
		token := app.read(clusterMount + "/creds/" + seqRole)["token"].(string)
		require.Equal(t, true, app.read(clusterMount + "/check/" + seqRole)["allowed"])
		require.Equal(t, true, app.write(clusterMount+"/verify", map[string]any{"token": token}).Data()["valid"])
		batch := app.write(clusterMount+"/creds/"+seqRole, map[string]any{"batch_input": []any{map[string]any{"room": "room-0"}}})
		item := batch.Data()["batch_results"].([]any)[0].(map[string]any)
		require.NoError(t, c.keys.verify(item["token"].(string), 1))

		status, leased := c.at(node, c.RootToken).get(clusterMount+"/creds/leased", "room", "x")
		require.Equal(t, http.StatusOK, status, leased.Errors())
		require.NotEmpty(t, leased["lease_id"])
		c.at(node, c.RootToken).write(clusterMount+"/roles/"+seqRole, map[string]any{"ttl": 300})
	}
}

func testStoppedAndStarted(t *testing.T, c *testCluster) {
	active := number(c.root().read(clusterMount + "/config")["active_key"])
	paths := []string{"/config", "/roles/" + seqRole, "/roles?list=true", "/keys?list=true", fmt.Sprintf("/keys/%d", active)}
	state := func() map[string]any {
		all := map[string]any{}
		for _, path := range paths {
			all[path] = c.root().read(clusterMount + path)
		}
		return all
	}
	before := state()
	c.Stop()
	require.NoError(t, c.Start(context.Background()))
	require.Equal(t, before, state())
	time.Sleep(c.lag())
	for node := range c.Nodes {
		var r history.Request
		waitUntil(t, "a token of each node", func() bool { r = c.newClients().readToken(node); return r.Token() })
		require.Equal(t, active, r.Values[history.Key])
	}
}

// Somebody who steals the storage finds entries of the engine in it, but no key and no
// token, not even a token with a lease.
func testNothingInTheFiles(t *testing.T, c *testCluster) {
	root := c.root()
	key, private := newKey(t)
	version := root.write(clusterMount+"/keys/import", map[string]any{"private_key": private}).Data()["version"]
	root.write(clusterMount+"/roles/leased", map[string]any{"allowed_rooms": "hidden-*", "generate_lease": true})
	_, answer := root.get(clusterMount+"/creds/leased", "room", "hidden-1")
	require.NotEmpty(t, answer["lease_id"])
	needles := keyNeedles(t, key)
	token := answer.Data()["token"].(string)
	needles["the end of a token"] = token[len(token)-40:]
	needles["a rule of a role"] = "hidden-*"
	time.Sleep(quiet()) // until the last write has reached every follower
	for _, n := range c.Nodes {
		entries, leases := 0, 0
		files := os.DirFS(filepath.Join(c.dir, n.ID))
		require.NoError(t, fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			raw, err := fs.ReadFile(files, path)
			if err != nil {
				return err
			}
			entries += bytes.Count(raw, fmt.Appendf(nil, "/keys/%s", version))
			leases += bytes.Count(raw, []byte(clusterMount+"/creds/leased/"))
			for what, needle := range needles {
				if bytes.Contains(raw, []byte(needle)) {
					t.Errorf("%s: holds %s", path, what)
				}
			}
			return nil
		}))
		require.NotZero(t, entries, "the hunt must see: the names of entries are in the files")
		require.NotZero(t, leases)
		requireNoKey(t, "the log of "+n.ID, n.Log(), key)
	}
}
