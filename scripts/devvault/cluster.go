// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package devvault

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Cluster is three servers with Raft storage, and one folder of plugins for all.
type Cluster struct {
	Kind      Kind
	Nodes     []*Node
	RootToken string

	unsealKey string
}

// Node is one server of a cluster.
type Node struct {
	*Server

	ID string // its name in the cluster: X-Vault-Raft-Node-ID of the answers that it makes

	cluster *Cluster
	config  string // its file
}

// nodes is the least number of servers that can lose one.
const nodes = 3

// StartCluster runs a cluster with its files below dir, unsealed and with an active
// node. No plugin is registered in it: see Register. The cluster ends with Stop, or
// when the context does.
func StartCluster(ctx context.Context, o Options, dir string) (*Cluster, error) {
	return startCluster(ctx, o, dir, nodes)
}

// StartFirstNode runs only the first node of a cluster, to restore a snapshot into it.
// Restored runs the others.
func StartFirstNode(ctx context.Context, o Options, dir string) (*Cluster, error) {
	return startCluster(ctx, o, dir, 1)
}

func startCluster(ctx context.Context, o Options, dir string, running int) (*Cluster, error) {
	kind, err := KindOf(ctx, o.VaultBin)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Kind: kind}
	if err := c.configure(o, dir); err != nil {
		return nil, err
	}
	if err := c.begin(ctx, c.Nodes[:running]); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) begin(ctx context.Context, running []*Node) error {
	for _, n := range running {
		if err := n.launch(ctx); err != nil {
			return err
		}
	}
	status, answer, err := c.Nodes[0].Call(ctx, "", http.MethodPost, "sys/init", map[string]any{"secret_shares": 1, "secret_threshold": 1})
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("initialising the cluster: %s", answer.Errors())
	}
	c.unsealKey = join(answer["keys_base64"]) // there is one
	c.RootToken, _ = answer["root_token"].(string)
	for i, n := range running {
		n.RootToken = c.RootToken
		if err := n.unseal(ctx); err != nil {
			return err
		}
		if i == 0 {
			if err := c.letVoteSoon(ctx); err != nil {
				return err
			}
		}
	}
	return c.waitForVoters(ctx, len(running))
}

// letVoteSoon lets a new node vote after a second. By default that takes ten seconds or
// more for each.
func (c *Cluster) letVoteSoon(ctx context.Context) error {
	active, err := c.Active(ctx)
	if err != nil {
		return err
	}
	status, answer, err := active.Call(ctx, c.RootToken, http.MethodPost, "sys/storage/raft/autopilot/configuration", map[string]any{"server_stabilization_time": "1s"})
	if err == nil && status >= http.StatusBadRequest {
		err = fmt.Errorf("configuring the autopilot: %s", answer.Errors())
	}
	return err
}

// waitForVoters waits until every node may vote. Before that, the cluster can't lose a node.
func (c *Cluster) waitForVoters(ctx context.Context, want int) error {
	return c.Nodes[0].wait(ctx, fmt.Sprintf("its cluster does not have %d voters", want), func() bool {
		_, answer, err := c.Nodes[0].Call(ctx, c.RootToken, http.MethodGet, "sys/storage/raft/configuration", nil)
		config, _ := answer.Data()["config"].(map[string]any)
		servers, _ := config["servers"].([]any)
		voters := 0
		for _, server := range servers {
			if s, ok := server.(map[string]any); ok && s["voter"] == true {
				voters++
			}
		}
		return err == nil && voters == want
	})
}

// Start runs all nodes, after Stop.
func (c *Cluster) Start(ctx context.Context) error {
	for _, n := range c.Nodes {
		if err := n.launch(ctx); err != nil {
			return err
		}
	}
	for _, n := range c.Nodes { // the first needs another one for a majority
		if err := n.unseal(ctx); err != nil {
			return err
		}
	}
	_, err := c.Active(ctx)
	return err
}

// configure writes the configuration of every node.
func (c *Cluster) configure(o Options, dir string) error {
	plugins, err := filepath.EvalSymlinks(o.PluginDir)
	if err != nil {
		return fmt.Errorf("the plugin directory: %w", err)
	}
	ports, err := FreeAddrs(2 * nodes)
	if err != nil {
		return err
	}
	var peers []string
	for i := range nodes {
		peers = append(peers, ports[2*i])
	}
	level := o.LogLevel
	if level == "" {
		level = "info"
	}
	for i := range nodes {
		n := nodeConfig{
			id: fmt.Sprintf("n%d", i), addr: ports[2*i], clusterAddr: ports[2*i+1], advertised: ports[2*i+1],
			peers: peers, plugins: plugins, logLevel: level, multiplier: o.Multiplier, standbyReads: o.StandbyReads, disableCache: o.DisableCache,
		}
		n.dir = filepath.Join(dir, n.id)
		if err := os.MkdirAll(n.dir, 0o700); err != nil {
			return fmt.Errorf("the folder of a node: %w", err)
		}
		if o.Advertise != nil {
			if n.advertised, err = o.Advertise(i, n.clusterAddr); err != nil {
				return err
			}
		}
		file := n.dir + ".hcl"
		if err := os.WriteFile(file, []byte(n.text(c.Kind)), 0o600); err != nil {
			return fmt.Errorf("writing the configuration of a node: %w", err)
		}
		c.Nodes = append(c.Nodes, &Node{Server: &Server{Addr: "http://" + n.addr, Kind: c.Kind, bin: o.VaultBin}, ID: n.id, cluster: c, config: file})
	}
	return nil
}

// launch starts the process and waits until it answers, sealed.
func (n *Node) launch(ctx context.Context) error {
	if err := n.run(ctx, []string{"server", "-config=" + n.config}); err != nil {
		return err
	}
	return n.wait(ctx, "it does not answer", func() bool {
		_, _, err := n.Call(ctx, "", http.MethodGet, "sys/seal-status", nil)
		return err == nil
	})
}

// unseal gives the node the key once, and waits until it is unsealed, and until a new node
// has joined the others. If a node of Vault 1.21 gets the key twice while it joins, it runs
// two standby loops. When it later loses the leadership, the second loop takes the message
// for the first, and the node stays active beside its successor.
func (n *Node) unseal(ctx context.Context) error {
	given := false
	return n.wait(ctx, "it is not unsealed", func() bool {
		_, answer, err := n.Call(ctx, "", http.MethodGet, "sys/seal-status", nil)
		if err == nil && answer["initialized"] == true && answer["sealed"] == true && !given {
			status, _, err := n.Call(ctx, "", http.MethodPost, "sys/unseal", map[string]any{"key": n.cluster.unsealKey})
			given = err == nil && status < http.StatusBadRequest
		}
		return err == nil && answer["sealed"] == false
	})
}

func (n *Node) wait(ctx context.Context, problem string, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for !ready() {
		select {
		case <-n.done:
			return fmt.Errorf("%w\n%s", errEnded, n.Log())
		case <-ctx.Done():
			return fmt.Errorf("the node at %s: %s: %w\n%s", n.Addr, problem, ctx.Err(), n.Log())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// Start runs a node that was stopped or killed, and unseals it.
func (n *Node) Start(ctx context.Context) error {
	if err := n.launch(ctx); err != nil {
		return err
	}
	return n.unseal(ctx)
}

// Restored unseals the first node after a snapshot of another cluster was restored, and
// runs the others. They now have that cluster's unseal key and root token.
func (c *Cluster) Restored(ctx context.Context, from *Cluster) error {
	c.unsealKey, c.RootToken = from.unsealKey, from.RootToken
	for _, n := range c.Nodes {
		n.RootToken = c.RootToken
	}
	first := c.Nodes[0] // it seals itself, shortly after it has answered the restore
	if err := first.wait(ctx, "it is not sealed", func() bool {
		_, answer, err := first.Call(ctx, "", http.MethodGet, "sys/seal-status", nil)
		return err == nil && answer["sealed"] == true
	}); err != nil {
		return err
	}
	if err := first.unseal(ctx); err != nil {
		return err
	}
	for _, n := range c.Nodes[1:] {
		if err := n.Start(ctx); err != nil {
			return err
		}
	}
	return c.waitForVoters(ctx, nodes)
}

// Active waits until a node says that it is the active one, and returns it.
func (c *Cluster) Active(ctx context.Context) (*Node, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		for _, n := range c.Nodes {
			if status, answer, err := n.Call(ctx, "", http.MethodGet, "sys/leader", nil); err == nil && status == http.StatusOK && answer["is_self"] == true {
				return n, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, errors.New("no node of the cluster is active")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Register adds a plugin to the cluster's catalog: a file in the plugin directory, under
// the name to mount it by. The version may be empty.
func (c *Cluster) Register(ctx context.Context, name, version, file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("the plugin: %w", err)
	}
	sum := sha256.Sum256(raw)
	active, err := c.Active(ctx)
	if err != nil {
		return err
	}
	status, answer, err := active.Call(ctx, c.RootToken, http.MethodPost, "sys/plugins/catalog/secret/"+name,
		map[string]any{"sha256": hex.EncodeToString(sum[:]), "command": filepath.Base(file), "version": version})
	if err == nil && status >= http.StatusBadRequest {
		err = fmt.Errorf("registering the plugin: %s", answer.Errors())
	}
	return err
}

// Stop ends all running nodes at the same time.
func (c *Cluster) Stop() {
	var wg sync.WaitGroup
	for _, n := range c.Nodes {
		if n.cmd != nil {
			wg.Go(n.Stop)
		}
	}
	wg.Wait()
}
