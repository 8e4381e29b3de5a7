// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package partition

import (
	"context"
	"crypto/rsa"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

var (
	multiplier   = flag.Int("multiplier", 0, "Raft's performance_multiplier; 0 is the server's default")
	standbyReads = flag.Bool("standby-reads", false, "let standbys serve reads themselves: OpenBao only")
	logs         = flag.String("logs", "", "a folder for the logs of the nodes")
)

const (
	quiet = 5 * time.Second // before the cut, and after the cluster is complete again

	// cutFor and suspendedFor are minimum times. Both continue until the other side has
	// deleted a key, and clients on this side have asked after that.
	cutFor       = 25 * time.Second
	suspendedFor = 20 * time.Second
	afterwards   = 5 * time.Second

	patience  = 2 * time.Minute // for an election, or a cluster that heals
	checkable = 2 * time.Minute // for the check of one register
)

// A scenario is something that happens to one node.
type scenario struct {
	name    string
	active  bool // whether it is the active node
	guarded bool // whether the engine can notice it
	least   time.Duration
	begin   func(*rig, int) error
	end     func(*rig, int) error
}

var scenarios = []scenario{
	{"ActiveCutOff", true, false, cutFor, func(r *rig, node int) error { return r.cutOff(node, true, true) }, (*rig).heal},
	{"ActiveHearsOnly", true, false, cutFor, func(r *rig, node int) error { return r.cutOff(node, true, false) }, (*rig).heal},
	{"ActiveSendsOnly", true, false, cutFor, func(r *rig, node int) error { return r.cutOff(node, false, true) }, (*rig).heal},
	{"StandbyCutOff", false, false, cutFor, func(r *rig, node int) error { return r.cutOff(node, true, true) }, (*rig).heal},
	{
		"ActiveSuspended", true, false, suspendedFor,
		func(r *rig, node int) error { return r.signal(node, false, syscall.SIGSTOP) },
		func(r *rig, node int) error { return r.signal(node, false, syscall.SIGCONT) },
	},
	{
		"ActiveSuspendedWithPlugin", true, true, suspendedFor,
		func(r *rig, node int) error { return r.signal(node, true, syscall.SIGSTOP) },
		func(r *rig, node int) error { return r.signal(node, true, syscall.SIGCONT) },
	},
}

// A rig is a cluster whose network can be cut.
type rig struct {
	cluster  *devvault.Cluster
	network  *network
	appToken string
	keys     *publicKeys
}

// cutOff cuts a node off from both others: what it sends, what it receives, or both.
func (r *rig) cutOff(node int, sends, hears bool) error {
	var errs []error
	for other := range nodes {
		if other == node {
			continue
		}
		if sends {
			errs = append(errs, r.network.cut(node, other))
		}
		if hears {
			errs = append(errs, r.network.cut(other, node))
		}
	}
	return errors.Join(errs...)
}

func (r *rig) heal(int) error { return r.network.heal() }

// signal sends a signal to the server of a node, and to its plugin.
func (r *rig) signal(node int, plugin bool, s syscall.Signal) error {
	pid := r.cluster.Nodes[node].PID()
	errs := []error{syscall.Kill(pid, s)}
	if plugin {
		out, err := exec.Command("ps", "-o", "pid=", "--ppid", strconv.Itoa(pid)).Output()
		children := strings.Fields(string(out))
		if err != nil || len(children) != 1 {
			return fmt.Errorf("the plugin of node %d: %q: %w", node, children, err)
		}
		child, err := strconv.Atoi(children[0])
		errs = append(errs, err, syscall.Kill(child, s))
	}
	return errors.Join(errs...)
}

func (r *rig) active(t *testing.T) int {
	t.Helper()
	active, err := r.cluster.Active(context.Background())
	require.NoError(t, err)
	return slices.Index(r.cluster.Nodes, active)
}

func (r *rig) call(t *testing.T, method, path string, body any) map[string]any {
	t.Helper()
	status, a, err := r.cluster.Nodes[r.active(t)].Call(context.Background(), r.cluster.RootToken, method, path, body)
	require.NoError(t, err)
	require.Less(t, status, http.StatusBadRequest, "%s %s: %s", method, path, a.Errors())
	if auth, ok := a["auth"].(map[string]any); ok {
		return auth
	}
	return a.Data()
}

func startRig(t *testing.T) *rig {
	t.Helper()
	bin := os.Getenv("VAULT_BIN")
	require.NotEmpty(t, bin, "VAULT_BIN names the server: run make partition-test")
	dir := t.TempDir()
	plugins := filepath.Join(dir, "plugins")
	file := filepath.Join(plugins, devvault.PluginName)
	build := exec.Command("go", "build", "-trimpath", "-o", file, "./cmd/"+devvault.PluginName)
	build.Dir = "../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	r := &rig{network: newNetwork(dir), keys: &publicKeys{byVersion: map[int64]*rsa.PublicKey{}}}
	t.Cleanup(r.network.close)
	r.cluster, err = devvault.StartCluster(context.Background(), devvault.Options{
		VaultBin: bin, PluginDir: plugins, Multiplier: *multiplier, StandbyReads: *standbyReads, Advertise: r.network.advertise,
	}, dir)
	require.NoError(t, err)
	t.Cleanup(func() {
		r.cluster.Stop()
		for _, n := range r.cluster.Nodes {
			if *logs != "" {
				require.NoError(t, os.WriteFile(filepath.Join(*logs, n.ID+".log"), []byte(n.Log()), 0o600))
			}
		}
	})
	require.False(t, *standbyReads && r.cluster.Kind != devvault.OpenBao, "standbys serve reads on OpenBao only")
	require.NoError(t, r.cluster.Register(context.Background(), devvault.PluginName, "", file))

	r.call(t, http.MethodPost, "sys/mounts/"+mount, map[string]any{"type": devvault.PluginName})
	r.call(t, http.MethodPost, mount+"/config", map[string]any{"consumer_id": "acme", "issuer": "seq-0"})
	made := r.call(t, http.MethodPost, mount+"/keys/generate", nil)
	require.NoError(t, r.keys.add(number(made["version"]), fmt.Sprint(made["public_key"])))
	r.call(t, http.MethodPost, mount+"/config", map[string]any{"active_key": made["version"]})
	r.call(t, http.MethodPost, mount+"/roles/seq", map[string]any{"allowed_rooms": "room-0", "default_room": "room-0", "ttl": tokenTTL})
	r.call(t, http.MethodPost, "sys/policies/acl/app", map[string]any{"policy": `path "clanmeeting/creds/*" { capabilities = ["read"] }`})
	r.appToken, _ = r.call(t, http.MethodPost, "auth/token/create", map[string]any{"policies": []string{"app"}})["client_token"].(string)
	return r
}

// clients returns new clients that know the current values of the registers.
func (r *rig) clients(t *testing.T) *clients {
	t.Helper()
	c := &clients{
		rootToken: r.cluster.RootToken, appToken: r.appToken, keys: r.keys,
		http: &http.Client{
			Transport:     &http.Transport{MaxIdleConnsPerHost: maxWaiting},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	for _, n := range r.cluster.Nodes {
		c.addrs = append(c.addrs, n.Addr)
	}
	first := c.readToken(r.active(t))
	require.Equal(t, done, first.result, first.text)
	require.NotEmpty(t, first.by, "an answer must name the node that made it")
	c.history.initial = first.values
	for _, reg := range registers {
		c.values[reg].Store(first.values[reg])
	}
	return c
}

var wonElection = regexp.MustCompile(`(?m)^(\S+) \[INFO\] +\S+: election won: term=(\d+)`)

// terms returns the terms that the nodes won, according to their logs.
func (r *rig) terms(t *testing.T) []term {
	t.Helper()
	var all []term
	for _, n := range r.cluster.Nodes {
		for _, found := range wonElection.FindAllStringSubmatch(n.Log(), -1) {
			since, err := time.Parse("2006-01-02T15:04:05.000Z0700", found[1])
			require.NoError(t, err)
			won, err := strconv.Atoi(found[2])
			require.NoError(t, err)
			all = append(all, term{n.ID, won, since})
		}
	}
	require.NotEmpty(t, all, "the logs must say who won elections")
	return all
}

// TestPartition runs the scenarios in one cluster. With -v it prints what it found, with a
// table row for each.
func TestPartition(t *testing.T) {
	if testing.Short() {
		t.Skip("not run: it takes six minutes")
	}
	r := startRig(t)
	var table []string
	for _, s := range scenarios {
		if !t.Run(s.name, func(t *testing.T) { table = append(table, r.run(t, s).row(s.name)) }) {
			break // the cluster may be incomplete
		}
	}
	t.Logf("%s, performance_multiplier %s, standbys %s, %d connections of strangers\n\n%s\n%s", r.cluster.Kind, orDefault(*multiplier),
		map[bool]string{false: "forward", true: "serve reads"}[*standbyReads], r.network.strangers.Load(), tableHead, strings.Join(table, "\n"))
}

func orDefault(n int) string {
	if n == 0 {
		return "default"
	}
	return strconv.Itoa(n)
}

func (r *rig) run(t *testing.T, s scenario) *report {
	t.Helper()
	node := r.active(t)
	if !s.active {
		node = (node + 1) % nodes
	}
	id := r.cluster.Nodes[node].ID
	c := r.clients(t)
	c.start(node)
	time.Sleep(quiet)

	began := time.Now()
	require.NoError(t, s.begin(r, node))
	waitUntil(t, "the other side deletes a key", func() bool {
		return time.Since(began) >= s.least && (!s.active || c.deletedElsewhere(id, began))
	})
	time.Sleep(afterwards)
	ended := time.Now()
	require.NoError(t, s.end(r, node))
	waitUntil(t, "every node gives tokens again", func() bool { return c.answeredSince(ended) })
	whole := time.Now()
	time.Sleep(quiet)
	h := c.end()
	h.terms = r.terms(t)

	rep := newReport(h, node, id, began, ended, whole)
	rep.print(t)
	require.Empty(t, c.faults, "wrong signatures or answers")
	r.requireHistory(t, h)
	r.requireKeys(t, h)
	if s.guarded {
		// What was signed before the suspension may arrive after it.
		require.Zero(t, rep.lateSigned, "tokens that were signed with a deleted key after the suspension")
	}
	return rep
}

func waitUntil(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for since := time.Now(); !ready(); time.Sleep(50 * time.Millisecond) {
		require.Less(t, time.Since(since), patience, what)
	}
}

// requireHistory fails for answers that a deposed leader does not explain. If standbys serve
// reads, they may lag, so only the leader's answers must be linearizable.
func (r *rig) requireHistory(t *testing.T, h *history) {
	t.Helper()
	judged := *h
	if *standbyReads {
		judged.reads = h.byLeaders()
	}
	for _, reg := range registers {
		v := judged.check(reg, checkable)
		t.Logf("  %s: %s", reg, v)
		require.Contains(t, []verdict{linearizable, butForDeposed}, v, "%s: %s", reg, judged.offenders(reg))
		require.Empty(t, h.backwards(reg))
	}
	_, wrong := judged.deletedKeys()
	require.Empty(t, wrong, "tokens that the leader signed with a deleted key")
}

// requireKeys checks that no acknowledged deletion was lost, and that the active key exists.
func (r *rig) requireKeys(t *testing.T, h *history) {
	t.Helper()
	listed := fmt.Sprint(r.call(t, http.MethodGet, mount+"/keys?list=true", nil)["keys"])
	versions := strings.Fields(strings.Trim(listed, "[]"))
	for _, w := range h.writes {
		if w.deletion && w.result == done {
			require.NotContains(t, versions, fmt.Sprint(w.value), "a deletion that was acknowledged")
		}
	}
	require.Contains(t, versions, fmt.Sprint(r.call(t, http.MethodGet, mount+"/config", nil)["active_key"]))
}
