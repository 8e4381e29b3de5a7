// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"context"
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
	// longTime is how long a fault lasts at least that lasts. It continues until the other
	// side has deleted a key, and clients on this side have asked after that.
	longTime = 25 * time.Second

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
	lasts    bool // for a long time; not with -short
	standby  bool // to a standby, not to the active node
	elects   bool // another node is elected meanwhile
	seamless bool // no request fails
	begin    func(c *testCluster, node int)
	end      func(c *testCluster, node int) // nil if it ends by itself
}

var faults = []fault{
	{name: "PluginKilled", begin: killPlugin},
	{name: "Upgrade", begin: upgradeTo(nextVersion), end: upgradeTo(testVersion), seamless: true},
	{name: "StepDown", elects: true, begin: stepDown},
	{name: "ActiveNodeKilled", elects: true, begin: func(c *testCluster, node int) { c.Nodes[node].Kill() }, end: startNode},
	{name: "AllStopped", lasts: true, begin: func(c *testCluster, _ int) { c.Stop() }, end: startAll},
	{name: "ActiveCutOff", elects: true, lasts: true, begin: cutOff(true, true), end: heal},
	{name: "ActiveHearsOnly", elects: true, lasts: true, begin: cutOff(true, false), end: heal},
	{name: "ActiveSendsOnly", elects: true, lasts: true, begin: cutOff(false, true), end: heal},
	{name: "StandbyCutOff", standby: true, lasts: true, begin: cutOff(true, true), end: heal},
	{name: "ActiveSuspended", elects: true, lasts: true, begin: send(syscall.SIGSTOP, false), end: send(syscall.SIGCONT, false)},
	{name: "ActiveSuspendedWithPlugin", elects: true, lasts: true, begin: send(syscall.SIGSTOP, true), end: send(syscall.SIGCONT, true)},
}

// Another process of the plugin takes over.
func killPlugin(c *testCluster, node int) {
	require.NoError(c.t, syscall.Kill(c.pluginOf(node).PID, syscall.SIGKILL))
	c.killed = time.Now()
}

func startNode(c *testCluster, node int) {
	c.starts = append(c.starts, history.Start{Node: c.Nodes[node].ID, At: time.Now()})
	require.NoError(c.t, c.Nodes[node].Start(context.Background()))
}

func startAll(c *testCluster, _ int) {
	for _, n := range c.Nodes {
		c.starts = append(c.starts, history.Start{Node: n.ID, At: time.Now()})
	}
	require.NoError(c.t, c.Start(context.Background()))
}

func stepDown(c *testCluster, node int) {
	status, answer := c.at(node).call(http.MethodPut, "sys/step-down", nil)
	require.Equal(c.t, http.StatusNoContent, status, answer.Errors())
}

// upgradeTo exchanges the plugin by Vault's own procedure: register, tune, reload. If
// standbys serve reads, the reload replaces only the plugin of the active node, and each
// standby must be restarted.
func upgradeTo(version string) func(*testCluster, int) {
	return func(c *testCluster, active int) {
		c.register(version)
		c.root().write("sys/mounts/"+clusterMount+"/tune", map[string]any{"plugin_version": version})
		reload := map[string]any{"plugin": devvault.PluginName}
		if c.options.StandbyReads {
			reload["scope"] = "global"
		}
		c.root().write("sys/plugins/reload/backend", reload)
		require.Equal(c.t, version, c.root().read("sys/mounts/" + clusterMount)["running_plugin_version"])
		c.requireVersion(active, version)
		for node, n := range c.Nodes {
			if node == active || !c.options.StandbyReads {
				continue
			}
			n.Stop()
			startNode(c, node)
			waitUntil(c.t, "a token of the restarted node", func() bool { return c.readToken(node).Token() })
			c.requireVersion(node, version)
		}
	}
}

func cutOff(sends, hears bool) func(*testCluster, int) {
	return func(c *testCluster, node int) { require.NoError(c.t, c.network.cutOff(node, sends, hears)) }
}

func heal(c *testCluster, _ int) { c.network.heal() }

// send sends a signal to the server of a node, and to its plugin.
func send(s syscall.Signal, plugin bool) func(*testCluster, int) {
	return func(c *testCluster, node int) {
		require.NoError(c.t, syscall.Kill(c.Nodes[node].PID(), s))
		if plugin {
			require.NoError(c.t, syscall.Kill(c.pluginOf(node).PID, s))
		}
	}
}

// testFaults does harm to the cluster, in one way after the other.
func (c *testCluster) testFaults() {
	c.t.Logf("%s, performance_multiplier %d (0 is the default), standbys serve reads: %t\n\n%s",
		c.Kind, *multiplier, c.options.StandbyReads, tableHead)
	for _, f := range faults {
		if !f.lasts || !testing.Short() {
			c.run(f.name, func() { c.suffer(f) })
		}
	}
}

// suffer runs one fault under load and judges it.
func (c *testCluster) suffer(f fault) {
	node := c.active()
	first := c.readToken(node)
	require.Equal(c.t, history.Done, first.Result, first.Text)
	require.NotEmpty(c.t, first.By, "an answer must name the node that made it")
	if f.standby {
		node = (node + 1) % nodes
	}
	h := harm{node: node, id: c.Nodes[node].ID}
	c.starts, c.killed = nil, time.Time{}
	load := c.startLoad(first.Values, node)
	time.Sleep(quiet())

	h.began = time.Now()
	f.begin(c, node)
	if f.lasts {
		time.Sleep(longTime)
	}
	deletedByAnother := func(r history.Request) bool { return r.Deleted() && r.By != h.id }
	waitUntil(c.t, "another node deletes a key", func() bool { return !f.elects || len(load.saw(h.began, deletedByAnother)) > 0 })
	time.Sleep(quiet())
	h.ended = time.Now()
	if f.end != nil {
		f.end(c, node)
	}
	waitUntil(c.t, "every node gives tokens again", func() bool { return len(load.saw(h.ended, history.Request.Token)) == nodes })
	h.whole = time.Now()
	if c.options.StandbyReads {
		time.Sleep(catchUp + allowedLag)
	}
	time.Sleep(quiet())
	h.History = load.end()
	h.Terms, h.Starts, h.Killed = c.terms(), c.starts, c.killed

	c.t.Log(h.row(f.name))
	if f.seamless && !c.options.StandbyReads {
		h.began = h.whole
	}
	c.requireFairFailures(h)
	c.requireHistory(h)
	c.requireKeys(h)
}

// fairFailures are how requests may fail while a node or the plugin is gone: Vault's own
// errors.
var fairFailures = []string{
	"local node not active", "Vault is sealed", "plugin is shut down", "rpc error: code = Unavailable",
	"no answer", "no connection", "redirected to another node",
}

// requireFairFailures fails for a request that got no token while the cluster was whole, or
// any other error. The storage of a deposed leader goes on to change, but not what its server
// has cached: a key may be gone that the configuration still names.
func (c *testCluster) requireFairFailures(h harm) {
	for _, r := range h.Requests {
		if r.Kind != history.Read || r.Result == history.Done {
			continue
		}
		require.False(c.t, r.Ret.Before(h.began) || r.Call.After(h.whole), "failed while all was well: node %d: %s", r.Node, r.Text)
		fair := slices.ContainsFunc(fairFailures, func(text string) bool { return strings.Contains(r.Text, text) })
		behind := strings.Contains(r.Text, "is missing from storage") && !h.deposed(r).IsZero()
		require.True(c.t, fair || behind, "node %d: %s", r.Node, r.Text)
	}
}

// requireHistory fails for answers that a deposed leader does not explain. Standbys that
// serve reads may lag, except while nodes are away.
func (c *testCluster) requireHistory(h harm) {
	calm := func(r history.Request) bool { return r.Call.Before(h.began) || r.Call.After(h.whole.Add(catchUp)) }
	for _, reg := range history.Registers {
		require.Empty(c.t, h.Backwards(reg))
		if c.options.StandbyReads {
			require.Empty(c.t, h.Check(reg, h.ByLeaders(), 0))
			require.Empty(c.t, h.Check(reg, h.Answers(calm), allowedLag), "a standby lags too much")
		} else {
			require.Empty(c.t, h.Check(reg, h.asOfDeposition(), 0))
		}
	}
}

// requireKeys checks that no acknowledged deletion was lost, and that the active key exists.
func (c *testCluster) requireKeys(h harm) {
	versions := c.root().read(clusterMount + "/keys?list=true")["keys"]
	for _, r := range h.Requests {
		if r.Deleted() {
			require.NotContains(c.t, versions, strconv.FormatInt(r.Values[history.Key], 10), "a deletion that was acknowledged")
		}
	}
	require.Contains(c.t, versions, fmt.Sprint(c.root().read(clusterMount + "/config")["active_key"]))
}

var wonElection = regexp.MustCompile(`(?m)^(\S+) \[INFO\] +\S+: election won: term=(\d+)`)

// terms returns the terms that the nodes won, according to their logs.
func (c *testCluster) terms() []history.Term {
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
