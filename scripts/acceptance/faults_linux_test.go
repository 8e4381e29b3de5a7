// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/acceptance/history"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

const (
	// cutFor and suspendedFor are minimum times. Both continue until the other side has
	// deleted a key, and clients on this side have asked after that.
	cutFor       = 25 * time.Second
	suspendedFor = 20 * time.Second

	// allowedLag is how old a setting may be on a standby that serves reads itself. We have
	// seen 0.2 s for nearly all answers, and at most 1.0 s.
	allowedLag = 3 * time.Second
	// catchUp is how long such a node may be behind after it was started: it serves what it
	// has stored until it has the rest. We have seen 5 s.
	catchUp = 8 * time.Second
)

// quiet is how long a cluster is under load before and after a fault.
func quiet() time.Duration {
	if testing.Short() {
		return 2 * time.Second
	}
	return 5 * time.Second
}

// A fault is something that happens to one node of a cluster.
type fault struct {
	name     string
	short    bool // also with -short
	standby  bool // to a standby, not to the active node
	elects   bool // another node is elected meanwhile
	seamless bool // no request fails
	least    time.Duration
	begin    func(c *testCluster, node int) error
	end      func(c *testCluster, node int) error
}

var faults = []fault{
	{name: "PluginKilled", short: true, begin: killPlugin, end: nothing},
	{name: "Upgrade", short: true, begin: upgradeTo(nextVersion), end: upgradeTo(testVersion), seamless: true},
	{name: "StepDown", short: true, elects: true, begin: stepDown, end: nothing},
	{name: "ActiveNodeKilled", short: true, elects: true, begin: killNode, end: startNode},
	{name: "ActiveCutOff", elects: true, least: cutFor, begin: cutOff(true, true), end: heal},
	{name: "ActiveHearsOnly", elects: true, least: cutFor, begin: cutOff(true, false), end: heal},
	{name: "ActiveSendsOnly", elects: true, least: cutFor, begin: cutOff(false, true), end: heal},
	{name: "StandbyCutOff", standby: true, least: cutFor, begin: cutOff(true, true), end: heal},
	{name: "ActiveSuspended", elects: true, least: suspendedFor, begin: send(syscall.SIGSTOP, false), end: send(syscall.SIGCONT, false)},
	{name: "ActiveSuspendedWithPlugin", elects: true, least: suspendedFor, begin: send(syscall.SIGSTOP, true), end: send(syscall.SIGCONT, true)},
}

func nothing(*testCluster, int) error { return nil }

// Another process of the plugin takes over.
func killPlugin(c *testCluster, node int) error {
	return syscall.Kill(c.pluginOf(node), syscall.SIGKILL)
}

func killNode(c *testCluster, node int) error {
	c.Nodes[node].Kill()
	return nil
}

func startNode(c *testCluster, node int) error {
	c.starts = append(c.starts, history.Start{Node: c.Nodes[node].ID, At: time.Now()})
	return c.Nodes[node].Start(context.Background())
}

func stepDown(c *testCluster, node int) error {
	status, answer := c.at(node, c.RootToken).call(http.MethodPut, "sys/step-down", nil)
	if status != http.StatusNoContent {
		return fmt.Errorf("step-down: %d %s", status, answer.Errors())
	}
	return nil
}

// upgradeTo exchanges the plugin by Vault's own procedure: register, tune, reload. If
// standbys serve reads, the reload replaces only the plugin of the active node, and each
// standby must be restarted.
func upgradeTo(version string) func(*testCluster, int) error {
	return func(c *testCluster, active int) error {
		c.register(version)
		c.root().write("sys/mounts/"+clusterMount+"/tune", map[string]any{"plugin_version": version})
		reload := map[string]any{"plugin": devvault.PluginName}
		if c.options.StandbyReads {
			reload["scope"] = "global"
		}
		c.root().write("sys/plugins/reload/backend", reload)
		require.Equal(c.t, version, c.root().read("sys/mounts/" + clusterMount)["running_plugin_version"])
		c.requireVersion(active, version)
		if !c.options.StandbyReads {
			return nil
		}
		for node, n := range c.Nodes {
			if node == active {
				continue
			}
			n.Stop()
			if err := startNode(c, node); err != nil {
				return err
			}
			waitUntil(c.t, "a token of the restarted node", func() bool { return c.newClients().readToken(node).Token() })
			c.requireVersion(node, version)
		}
		return nil
	}
}

func cutOff(sends, hears bool) func(*testCluster, int) error {
	return func(c *testCluster, node int) error { return c.network.cutOff(node, sends, hears) }
}

func heal(c *testCluster, _ int) error {
	c.network.heal()
	return nil
}

// send sends a signal to the server of a node, and to its plugin.
func send(s syscall.Signal, plugin bool) func(*testCluster, int) error {
	return func(c *testCluster, node int) error {
		err := syscall.Kill(c.Nodes[node].PID(), s)
		if plugin {
			err = errors.Join(err, syscall.Kill(c.pluginOf(node), s))
		}
		return err
	}
}

// testFaults does harm to the cluster, in one way after the other.
func testFaults(t *testing.T, c *testCluster) {
	var table []string
	for _, f := range faults {
		if testing.Short() && !f.short {
			continue
		}
		c.t = t
		if !t.Run(f.name, func(t *testing.T) {
			c.t = t
			table = append(table, c.suffer(t, f))
		}) {
			break // the next one needs a whole cluster
		}
	}
	t.Logf("%s, performance_multiplier %d (0 is the default), standbys serve reads: %t\n\n%s\n%s",
		c.Kind, *multiplier, c.options.StandbyReads, tableHead, strings.Join(table, "\n"))
}

// suffer runs one fault under load and judges it. It returns a row of the table.
func (c *testCluster) suffer(t *testing.T, f fault) string {
	t.Helper()
	node := c.active()
	if f.standby {
		node = (node + 1) % len(c.Nodes)
	}
	id := c.Nodes[node].ID
	load := c.newClients()
	first := load.readToken(c.active())
	require.Equal(t, history.Done, first.Result, first.Text)
	require.NotEmpty(t, first.By, "an answer must name the node that made it")
	c.starts = nil
	load.start(first, node)
	time.Sleep(quiet())

	began := time.Now()
	require.NoError(t, f.begin(c, node))
	waitUntil(t, "another node deletes a key", func() bool {
		return time.Since(began) >= f.least && (!f.elects || load.deletedElsewhere(id, began))
	})
	time.Sleep(quiet())
	ended := time.Now()
	require.NoError(t, f.end(c, node))
	waitUntil(t, "every node gives tokens again", func() bool { return load.answeredSince(ended) })
	whole := time.Now()
	if c.options.StandbyReads {
		time.Sleep(catchUp + allowedLag)
	}
	time.Sleep(quiet())
	h := load.end()
	h.Terms, h.Starts = c.terms(), c.starts

	row := report{h, node, id, began, ended, whole}.row(f.name)
	t.Log(row)
	require.Empty(t, load.faults, "wrong signatures or answers")
	if f.seamless && !c.options.StandbyReads {
		began = whole
	}
	requireFairFailures(t, h, began, whole)
	c.requireHistory(t, h, began, whole)
	c.requireKeys(t, h)
	return row
}

// fairFailures are how requests may fail while a node or the plugin is gone: Vault's own
// errors.
var fairFailures = []string{
	"local node not active", "Vault is sealed", "plugin is shut down", "rpc error: code = Unavailable",
	"no answer", "no connection", "redirected to another node",
}

// requireFairFailures fails for a request that got no token while the cluster was whole, or
// any other error.
func requireFairFailures(t *testing.T, h *history.History, began, whole time.Time) {
	t.Helper()
	for _, r := range h.Requests {
		if r.Kind != history.Read || r.Result == history.Done {
			continue
		}
		require.False(t, r.Ret.Before(began) || r.Call.After(whole), "failed while all was well: node %d: %s", r.Node, r.Text)
		require.True(t, slices.ContainsFunc(fairFailures, func(text string) bool { return strings.Contains(r.Text, text) }), "node %d: %s", r.Node, r.Text)
	}
}

// requireHistory fails for answers that a deposed leader does not explain. Standbys that
// serve reads may lag, except while nodes are away.
func (c *testCluster) requireHistory(t *testing.T, h *history.History, began, whole time.Time) {
	t.Helper()
	calm := func(r history.Request) bool { return r.Call.Before(began) || r.Call.After(whole.Add(catchUp)) }
	for _, reg := range history.Registers {
		require.Empty(t, h.Check(reg, h.ByLeaders(), 0))
		require.Empty(t, h.Backwards(reg))
		if c.options.StandbyReads {
			require.Empty(t, h.Check(reg, h.Answers(calm), allowedLag), "a standby lags too much")
		}
	}
}

// requireKeys checks that no acknowledged deletion was lost, and that the active key exists.
func (c *testCluster) requireKeys(t *testing.T, h *history.History) {
	t.Helper()
	versions := c.root().read(clusterMount + "/keys?list=true")["keys"]
	for _, r := range h.Requests {
		if r.Deleted() {
			require.NotContains(t, versions, strconv.FormatInt(r.Values[history.Key], 10), "a deletion that was acknowledged")
		}
	}
	require.Contains(t, versions, fmt.Sprint(c.root().read(clusterMount + "/config")["active_key"]))
}

var wonElection = regexp.MustCompile(`(?m)^(\S+) \[INFO\] +\S+: election won: term=(\d+)`)

// terms returns the terms that the nodes won, according to their logs.
func (c *testCluster) terms() []history.Term {
	c.t.Helper()
	var all []history.Term
	for _, n := range c.Nodes {
		for _, found := range wonElection.FindAllStringSubmatch(n.Log(), -1) {
			since, err := time.Parse("2006-01-02T15:04:05.000Z0700", found[1])
			require.NoError(c.t, err)
			won, err := strconv.Atoi(found[2])
			require.NoError(c.t, err)
			all = append(all, history.Term{Node: n.ID, Number: won, Since: since})
		}
	}
	require.NotEmpty(c.t, all, "the logs must say who won elections")
	return all
}
