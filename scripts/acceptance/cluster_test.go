// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

const (
	clusterMount = "clanmeeting"
	nextVersion  = "v0.0.2-test"

	// stagedKeys is how many key versions are staged. The load switches to one after the
	// other.
	stagedKeys = 24

	// quiet is how long a cluster is under load before and after an incident.
	quiet = 4 * time.Second
)

// An incident is something that happens to a cluster.
type incident struct {
	name string
	test func(*testing.T, *testCluster)
}

// TestCluster runs incidents in a cluster with standbys that forward: three servers on
// this machine, under load. A server is killed, a plugin is killed, the cluster is upgraded
// and stopped. With -v it prints how long nobody got a token.
func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster takes a minute")
	}
	runCluster(t, false, []incident{
		{"StandbysForward", testStandbysForward},
		{"ActiveNodeKilled", testActiveNodeKilled},
		{"PluginKilled", testPluginKilled},
		{"UpgradeAndBack", testUpgradeAndBack},
		{"StoppedAndStarted", testStoppedAndStarted},
		{"NothingInTheFiles", testNothingInTheFiles},
	})
}

// The same with standbys that serve reads themselves. They lag behind, and each has its own
// plugin to upgrade.
func TestClusterStandbyReadsOpenBaoOnly(t *testing.T) {
	onlyOn(t, devvault.OpenBao)
	if testing.Short() {
		t.Skip("a cluster takes a minute")
	}
	runCluster(t, true, []incident{
		{"StandbysServe", testStandbysServe},
		{"ActiveNodeKilled", testActiveNodeKilled},
		{"PluginKilled", testPluginKilled},
		{"UpgradeAndBack", testUpgradeOfStandbys},
		{"StoppedAndStarted", testStoppedAndStarted},
		{"NothingInTheFiles", testNothingInTheFiles},
	})
}

func runCluster(t *testing.T, standbyReads bool, incidents []incident) {
	t.Helper()
	c := startCluster(t, standbyReads)
	for _, i := range incidents {
		c.t = t
		if !t.Run(i.name, func(t *testing.T) {
			c.t = t
			i.test(t, c)
		}) {
			break // the next one needs a complete cluster
		}
	}
	for _, n := range c.Nodes {
		require.NotContains(t, n.Log(), "DATA RACE")
	}
}

// testCluster is a cluster with the engine mounted and configured.
type testCluster struct {
	*devvault.Cluster
	t            testing.TB
	standbyReads bool
	dir          string                    // where the nodes have their files
	plugins      string                    // the plugin directory
	key          *rsa.PrivateKey           // version 1
	app          string                    // a token that may read creds
	keys         map[string]*rsa.PublicKey // by version
}

func startCluster(t *testing.T, standbyReads bool) *testCluster {
	t.Helper()
	dir := t.TempDir()
	plugins := filepath.Join(dir, "plugins")
	for _, version := range []string{testVersion, nextVersion} {
		require.NoError(t, buildPlugin(filepath.Join(plugins, devvault.PluginName+"-"+version), version))
	}
	started, err := devvault.StartCluster(t.Context(), devvault.Options{
		VaultBin: os.Getenv("VAULT_BIN"), PluginDir: plugins, LogLevel: "debug", StandbyReads: standbyReads,
	}, dir)
	require.NoError(t, err)
	t.Cleanup(started.Stop)
	c := &testCluster{Cluster: started, t: t, standbyReads: standbyReads, dir: dir, plugins: plugins, keys: map[string]*rsa.PublicKey{}}
	c.register(testVersion)
	root := c.root()
	root.write("sys/mounts/"+clusterMount, map[string]any{"type": devvault.PluginName})
	var private string
	c.key, private = newKey(t)
	root.write(clusterMount+"/config", map[string]any{"consumer_id": "acme", "private_key": private, "issuer": "seq-0"})
	root.write(clusterMount+"/roles/seq", map[string]any{"allowed_rooms": "room-*", "default_room": "room-0", "ttl": "5m"})
	for range stagedKeys - 1 {
		root.post(clusterMount+"/keys/generate", nil)
	}
	for version := range stagedKeys {
		c.keys[fmt.Sprint(version+1)] = c.publicKey(version + 1)
	}
	c.app = root.as(`path "clanmeeting/+/seq" { capabilities = ["read", "update"] }
path "clanmeeting/verify" { capabilities = ["update"] }`).token
	return c
}

// register adds a version of the plugin to the cluster's catalog.
func (c *testCluster) register(version string) {
	c.t.Helper()
	require.NoError(c.t, c.Register(context.Background(), devvault.PluginName, version, filepath.Join(c.plugins, devvault.PluginName+"-"+version)))
}

// root is a client of the active node with the root token.
func (c *testCluster) root() client {
	c.t.Helper()
	active, err := c.Active(context.Background())
	require.NoError(c.t, err)
	return c.at(active, c.RootToken)
}

func (c *testCluster) at(n *devvault.Node, token string) client {
	return client{c.t, n.Server, token}
}

func (c *testCluster) publicKey(version int) *rsa.PublicKey {
	c.t.Helper()
	block, _ := pem.Decode([]byte(c.root().read(fmt.Sprintf("%s/keys/%d", clusterMount, version))["public_key"].(string)))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	require.NoError(c.t, err)
	return key.(*rsa.PublicKey)
}

// active returns the active node, and the process ID of its plugin.
func (c *testCluster) active() (*devvault.Node, int) {
	c.t.Helper()
	active, err := c.Active(context.Background())
	require.NoError(c.t, err)
	plugins := children(c.t, active.PID())
	require.Len(c.t, plugins, 1, "the plugins of the active node")
	return active, plugins[0]
}

// children returns the plugin's processes that a process has started.
func children(t testing.TB, parent int) []int {
	t.Helper()
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=,args=").Output()
	require.NoError(t, err)
	var found []int
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) > 2 && fields[1] == strconv.Itoa(parent) && strings.Contains(fields[2], devvault.PluginName) {
			pid, err := strconv.Atoi(fields[0])
			require.NoError(t, err)
			found = append(found, pid)
		}
	}
	return found
}

// running reports whether a process exists and is not a zombie.
func running(pid int) bool {
	out, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	stat := strings.TrimSpace(string(out))
	return err == nil && stat != "" && !strings.HasPrefix(stat, "Z")
}

func kill(t testing.TB, pid int) {
	t.Helper()
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
}

// answeredBy asks a node for a token and returns the name of the node that made it.
func (c *testCluster) answeredBy(n *devvault.Node) string {
	c.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, n.Addr+"/v1/"+clusterMount+"/creds/seq", nil)
	require.NoError(c.t, err)
	req.Header.Set("X-Vault-Token", c.app)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(c.t, err)
	defer resp.Body.Close()
	require.Equal(c.t, http.StatusOK, resp.StatusCode)
	return resp.Header.Get("X-Vault-Raft-Node-ID")
}

// If standbys forward, the plugin runs only on the active node.
func testStandbysForward(t *testing.T, c *testCluster) {
	active, _ := c.active()
	for _, n := range c.Nodes {
		if n != active {
			require.Empty(t, children(t, n.PID()), "a standby runs no plugin")
		}
		data := c.at(n, c.app).read(clusterMount + "/creds/seq")
		require.NoError(t, verifySignature(data["token"].(string), c.keys["1"]))
		require.Equal(t, active.ID, c.answeredBy(n))
	}
	c.root().write(clusterMount+"/roles/support", map[string]any{"allowed_rooms": "support-*"})
	c.requireEachNodeSigns("1")
}

// requireEachNodeSigns asks each node for the key that it signs with, by the commands of
// docs/openbao.md.
func (c *testCluster) requireEachNodeSigns(version string) {
	c.t.Helper()
	var addrs []string
	var want strings.Builder
	for _, n := range c.Nodes {
		addrs = append(addrs, n.Addr)
		fmt.Fprintf(&want, "%s signs with %s\n", n.Addr, version)
	}
	commands := indented(sections(c.t, "../../docs/openbao.md")["A deleted key can still sign"])
	commands = strings.NewReplacer("n1 n2 n3", strings.Join(addrs, " "), "https://$node.example.com:8200", "$node").Replace(commands)
	cli := c.Nodes[0].Command(c.t.Context(), c.RootToken)
	shell := exec.CommandContext(c.t.Context(), "sh", "-ec", `bao() { VAULT_ADDR="$BAO_ADDR" '`+cli.Path+`' "$@"; }`+"\n"+commands)
	shell.Env = cli.Env
	out, err := shell.CombinedOutput()
	require.NoError(c.t, err, "%s\n%s", commands, out)
	require.Equal(c.t, want.String(), string(out))
}

// If standbys serve reads, a plugin runs on every node and signs what arrives there, except
// requests that need a lease or write.
func testStandbysServe(t *testing.T, c *testCluster) {
	c.root().write(clusterMount+"/roles/leased", map[string]any{"allowed_rooms": "*", "generate_lease": true})
	c.root().write(clusterMount+"/roles/support", map[string]any{"allowed_rooms": "support-*"})
	time.Sleep(allowedLag)
	c.requireEachNodeSigns("1")
	for _, n := range c.Nodes {
		require.Len(t, children(t, n.PID()), 1, "a node with its plugin")
		require.Equal(t, n.ID, c.answeredBy(n))
		app := c.at(n, c.app)
		token := app.read(clusterMount + "/creds/seq")["token"].(string)
		require.NoError(t, verifySignature(token, c.keys["1"]))
		require.Equal(t, true, app.read(clusterMount + "/check/seq")["allowed"])
		require.Equal(t, true, app.write(clusterMount+"/verify", map[string]any{"token": token}).Data()["valid"])
		batch := app.write(clusterMount+"/creds/seq", map[string]any{"batch_input": []any{map[string]any{"room": "room-7", "reference": "a"}}})
		item := batch.Data()["batch_results"].([]any)[0].(map[string]any)
		require.NoError(t, verifySignature(item["token"].(string), c.keys["1"]))

		status, leased := c.at(n, c.RootToken).get(clusterMount+"/creds/leased", "room", "x")
		require.Equal(t, http.StatusOK, status, leased.Errors())
		require.NotEmpty(t, leased["lease_id"])
		c.at(n, c.RootToken).write(clusterMount+"/roles/seq", map[string]any{"ttl": "5m"})
	}
}

// A Vault that is killed leaves its plugins running. Ours must end, because it has the key
// in memory.
func TestPluginEndsWithItsVault(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, buildPlugin(filepath.Join(dir, devvault.PluginName), testVersion))
	idle, err := devvault.Start(t.Context(), devvault.Options{VaultBin: os.Getenv("VAULT_BIN"), PluginDir: dir, LogLevel: "error"})
	require.NoError(t, err)
	t.Cleanup(idle.Stop)
	client{t, idle, idle.RootToken}.write("sys/mounts/"+clusterMount, map[string]any{"type": devvault.PluginName})
	plugins := children(t, idle.PID())
	require.Len(t, plugins, 1)
	time.Sleep(time.Second)
	require.True(t, running(plugins[0]), "it must not end while its Vault is there")
	idle.Kill()
	requireEnd(t, plugins[0])
}

// requireEnd waits for the end of a plugin whose Vault has just been killed.
func requireEnd(t *testing.T, plugin int) {
	t.Helper()
	killed := time.Now()
	require.Eventually(t, func() bool { return !running(plugin) }, 10*time.Second, 10*time.Millisecond, "the plugin outlives its Vault")
	t.Logf("the plugin ended %s after its Vault", time.Since(killed).Round(10*time.Millisecond))
}

func testActiveNodeKilled(t *testing.T, c *testCluster) {
	active, plugin := c.active()
	load := c.startLoad()
	time.Sleep(quiet)

	killed := time.Now()
	load.loosen()
	active.Kill()
	load.restarted(active)
	requireEnd(t, plugin)
	_, err := c.Active(t.Context())
	require.NoError(t, err)
	load.waitForTokens(killed, active)
	time.Sleep(quiet)
	restarted := time.Now()
	require.NoError(t, active.Start(context.Background())) // it stays for the next test
	load.waitForTokens(restarted, nil)
	settled := time.Now()
	load.settle()
	time.Sleep(quiet + c.lag())

	load.stop()
	load.report("the active node was killed", killed)
	load.requireNoFailure(time.Time{}, killed)
	load.requireNoFailure(settled, time.Now())
	require.Greater(t, load.issuer.acked.Load(), int64(10))
	require.Greater(t, load.key.acked.Load(), int64(5))
}

func testPluginKilled(t *testing.T, c *testCluster) {
	_, plugin := c.active()
	load := c.startLoad()
	time.Sleep(quiet)
	killed := time.Now()
	kill(t, plugin)
	load.waitForTokens(killed, nil)
	settled := time.Now()
	time.Sleep(quiet)
	load.stop()
	load.report("the plugin was killed", killed)
	load.requireNoFailure(time.Time{}, killed)
	load.requireNoFailure(settled, time.Now())
	_, next := c.active()
	require.NotEqual(t, plugin, next)
}

// An upgrade with Vault's own procedure (register, tune, reload), and the rollback.
func testUpgradeAndBack(t *testing.T, c *testCluster) {
	load := c.startLoad()
	time.Sleep(quiet)
	for _, version := range []string{nextVersion, testVersion} {
		began := time.Now()
		c.register(version)
		c.root().write("sys/mounts/"+clusterMount+"/tune", map[string]any{"plugin_version": version})
		c.root().write("sys/plugins/reload/backend", map[string]any{"plugin": devvault.PluginName})
		mount := c.root().read("sys/mounts/" + clusterMount)
		require.Equal(t, version, mount["running_plugin_version"])
		load.waitForTokens(time.Now(), nil)
		time.Sleep(quiet)
		load.report("the plugin was exchanged for "+version, began)
	}
	load.stop()
	load.requireNoFailure(time.Time{}, time.Now())
}

// lag is how old an answer of a standby may be.
func (c *testCluster) lag() time.Duration {
	if c.standbyReads {
		return allowedLag
	}
	return 0
}

// requireVersion checks that a node runs this version of the plugin and no other.
func (c *testCluster) requireVersion(n *devvault.Node, version string) {
	c.t.Helper()
	out, err := exec.Command("ps", "-A", "-o", "ppid=,args=").Output()
	require.NoError(c.t, err)
	require.Len(c.t, children(c.t, n.PID()), 1)
	require.Regexp(c.t, fmt.Sprintf(`(?m)^ *%d .*%s-%s\b`, n.PID(), devvault.PluginName, regexp.QuoteMeta(version)), string(out))
}

// If standbys serve reads, a reload replaces only the plugin of the active node: each
// standby must be restarted. A rollback works the same way.
func testUpgradeOfStandbys(t *testing.T, c *testCluster) {
	load := c.startLoad()
	time.Sleep(quiet)
	c.upgradeStandbys(t, load, testVersion, nextVersion)
	c.upgradeStandbys(t, load, nextVersion, testVersion)
	load.stop()
}

func (c *testCluster) upgradeStandbys(t *testing.T, load *clusterLoad, from, to string) {
	t.Helper()
	began := time.Now()
	active, _ := c.active()
	c.register(to)
	c.root().write("sys/mounts/"+clusterMount+"/tune", map[string]any{"plugin_version": to})
	c.root().write("sys/plugins/reload/backend", map[string]any{"plugin": devvault.PluginName, "scope": "global"})
	load.waitForTokens(time.Now(), nil)
	c.requireVersion(active, to)
	for _, n := range c.Nodes {
		if n == active {
			continue
		}
		c.requireVersion(n, from)
		load.loosen()
		n.Stop()
		load.restarted(n)
		require.NoError(t, n.Start(context.Background()))
		load.waitForTokens(time.Now(), nil)
		load.settle()
		c.requireVersion(n, to)
		time.Sleep(quiet + c.lag())
	}
	load.report("the plugin was exchanged for "+to, began)
}

func testStoppedAndStarted(t *testing.T, c *testCluster) {
	paths := []string{"/config", "/roles/seq", "/roles?list=true", "/keys?list=true", "/keys/1", fmt.Sprintf("/keys/%d", stagedKeys)}
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
	for _, n := range c.Nodes {
		data := c.at(n, c.app).read(clusterMount + "/creds/seq")
		require.Equal(t, before["/config"].(map[string]any)["active_key"], data["key_version"])
		require.NoError(t, verifySignature(data["token"].(string), c.keys[data["key_version"].(json.Number).String()]))
	}
}

// Somebody who steals the storage finds entries of the engine in it, but no key and no
// token, not even a token with a lease.
func testNothingInTheFiles(t *testing.T, c *testCluster) {
	root := c.root()
	root.write(clusterMount+"/roles/leased", map[string]any{"allowed_rooms": "*", "generate_lease": true})
	_, answer := root.get(clusterMount+"/creds/leased", "room", "x")
	require.NotEmpty(t, answer["lease_id"])
	token := answer.Data()["token"].(string)
	needles := keyNeedles(t, c.key)
	needles["the end of a token"] = token[len(token)-40:]
	needles["a rule of a role"] = "room-*"
	time.Sleep(quiet) // until the last write has reached every follower
	for i, n := range c.Nodes {
		entries, leases := 0, 0
		files := os.DirFS(filepath.Join(c.dir, fmt.Sprintf("n%d", i)))
		require.NoError(t, fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			raw, err := fs.ReadFile(files, path)
			if err != nil {
				return err
			}
			entries += bytes.Count(raw, []byte("/keys/1"))
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
		for what, needle := range needles {
			if strings.Contains(n.Log(), needle) {
				t.Errorf("the log of node %d holds %s", i, what)
			}
		}
	}
}
