// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

const nodes = 3

// A network connects the nodes of a cluster through toxiproxy, which can drop what one sends
// to the other. All nodes know a node by the same address. That address is an entrance: it
// finds out which node is calling, and passes the connection to the proxy for this pair of
// nodes.
type network struct {
	dir       string // the nodes' configuration files; their names identify the processes
	server    *toxiproxy.ApiServer
	links     [nodes][nodes]*toxiproxy.Proxy // from, to
	entrances []net.Listener
}

func newNetwork(t *testing.T, dir string) *network {
	t.Helper()
	_, err := exec.LookPath("ss")
	require.NoError(t, err, "the cluster tests need ss; Debian and Ubuntu have it in the package iproute2")
	n := &network{dir: dir, server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())}
	t.Cleanup(n.close)
	return n
}

// advertise opens the entrance of a node and returns its address.
func (n *network) advertise(to int, clusterAddr string) (string, error) {
	for from := range nodes {
		link := toxiproxy.NewProxy(n.server, fmt.Sprintf("n%d-n%d", from, to), "127.0.0.1:0", clusterAddr)
		if err := link.Start(); err != nil {
			return "", fmt.Errorf("starting a proxy: %w", err)
		}
		n.links[from][to] = link
	}
	entrance, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("opening an entrance: %w", err)
	}
	n.entrances = append(n.entrances, entrance)
	go n.serve(entrance, to)
	return entrance.Addr().String(), nil
}

func (n *network) serve(entrance net.Listener, to int) {
	for {
		conn, err := entrance.Accept()
		if err != nil {
			return // closed
		}
		go n.pass(conn, to)
	}
}

// pass connects a connection with the proxy of the two nodes.
func (n *network) pass(conn net.Conn, to int) {
	defer conn.Close()
	from, err := n.caller(conn)
	if err != nil {
		return
	}
	next, err := net.Dial("tcp", n.links[from][to].Listen)
	if err != nil {
		return
	}
	defer next.Close()
	ended := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{conn, next}, {next, conn}} {
		go func() {
			_, _ = io.Copy(way[1], way[0]) // afterwards both ends are closed
			ended <- struct{}{}
		}()
	}
	<-ended
}

// caller returns the node whose process has the other end of a connection.
func (n *network) caller(conn net.Conn) (int, error) {
	out, err := exec.Command("ss", "-Htnp", "src", conn.RemoteAddr().String(), "dst", conn.LocalAddr().String()).Output()
	if err != nil {
		return 0, fmt.Errorf("looking for a connection: %w", err)
	}
	if pid := regexp.MustCompile(`pid=(\d+)`).FindSubmatch(out); pid != nil {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%s/cmdline", pid[1]))
		for node := range nodes {
			if err == nil && strings.Contains(string(line), filepath.Join(n.dir, fmt.Sprintf("n%d.hcl", node))) {
				return node, nil
			}
		}
	}
	return 0, errors.New("no node has this connection")
}

// cutOff cuts a node off from both others: what it sends, what it receives, or both.
func (n *network) cutOff(node int, sends, hears bool) error {
	var errs []error
	for other := range nodes {
		if other == node {
			continue
		}
		if sends {
			errs = append(errs, n.cut(node, other))
		}
		if hears {
			errs = append(errs, n.cut(other, node))
		}
	}
	return errors.Join(errs...)
}

// cut drops everything that one node sends to the other, on the connections of both.
func (n *network) cut(from, to int) error {
	return errors.Join(n.drop(n.links[from][to], "upstream"), n.drop(n.links[to][from], "downstream"))
}

func (n *network) drop(link *toxiproxy.Proxy, way string) error {
	// Without a timeout, it keeps the connection open and drops the data.
	_, err := link.Toxics.AddToxicJson(strings.NewReader(
		fmt.Sprintf(`{"name": "cut-%s", "type": "timeout", "stream": %q, "attributes": {"timeout": 0}}`, way, way)))
	if err != nil {
		return fmt.Errorf("cutting %s: %w", link.Name, err)
	}
	return nil
}

// heal lets everything through again. It closes the connections that were cut, because
// they lack the dropped data.
func (n *network) heal() {
	for _, row := range n.links {
		for _, link := range row {
			link.Toxics.ResetToxics(context.Background())
		}
	}
}

func (n *network) close() {
	for _, entrance := range n.entrances {
		_ = entrance.Close() // nothing listens afterwards
	}
	for _, row := range n.links {
		for _, link := range row {
			if link != nil {
				link.Stop()
			}
		}
	}
}
