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
	t      *testing.T
	server *toxiproxy.ApiServer
	links  [nodes][nodes]*toxiproxy.Proxy // from, to
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	_, err := exec.LookPath("ss")
	require.NoError(t, err, "the cluster tests need ss; Debian and Ubuntu have it in the package iproute2")
	return &network{t: t, server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())}
}

// advertise opens the entrance of a node and returns its address.
func (n *network) advertise(to int, clusterAddr string) (string, error) {
	for from := range nodes {
		link := toxiproxy.NewProxy(n.server, fmt.Sprintf("n%d-n%d", from, to), "127.0.0.1:0", clusterAddr)
		if err := link.Start(); err != nil {
			return "", fmt.Errorf("starting a proxy: %w", err)
		}
		n.t.Cleanup(link.Stop)
		n.links[from][to] = link
	}
	entrance, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("opening an entrance: %w", err)
	}
	n.t.Cleanup(func() { _ = entrance.Close() }) // nothing listens afterwards
	go func() {
		for {
			conn, err := entrance.Accept()
			if err != nil {
				return // closed
			}
			go n.pass(conn, to)
		}
	}()
	return entrance.Addr().String(), nil
}

// pass connects a node that calls with the proxy to the node that it calls.
func (n *network) pass(conn net.Conn, to int) {
	defer conn.Close()
	from, found := caller(conn)
	if !found {
		return
	}
	next, err := net.Dial("tcp", n.links[from][to].Listen)
	if err != nil {
		return
	}
	defer next.Close()
	go func() {
		defer conn.Close() // which ends the other direction
		_, _ = io.Copy(conn, next)
	}()
	_, _ = io.Copy(next, conn)
}

// caller returns the node whose process has the other end of a connection, and whether there
// is one. The file of its configuration, which is in its command, is called after it.
func caller(conn net.Conn) (int, bool) {
	out, _ := exec.Command("ss", "-Htnp", "src", conn.RemoteAddr().String(), "dst", conn.LocalAddr().String()).Output()
	if pid := regexp.MustCompile(`pid=(\d+)`).FindSubmatch(out); pid != nil {
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%s/cmdline", pid[1])) // it may have ended
		for node := range nodes {
			if strings.Contains(string(command), fmt.Sprintf("/n%d.hcl", node)) {
				return node, true
			}
		}
	}
	return 0, false
}

// cutOff cuts a node off from both others: what it sends, what it hears, or both.
func (n *network) cutOff(node int, sends, hears bool) error {
	var errs []error
	for other := range nodes {
		if other != node && sends {
			errs = append(errs, n.cut(node, other))
		}
		if other != node && hears {
			errs = append(errs, n.cut(other, node))
		}
	}
	return errors.Join(errs...)
}

// cut drops everything that one node sends to the other, on the connections of both.
func (n *network) cut(from, to int) error {
	return errors.Join(drop(n.links[from][to], "upstream"), drop(n.links[to][from], "downstream"))
}

func drop(link *toxiproxy.Proxy, way string) error {
	// Without a timeout, it keeps the connection open and drops the data.
	const toxic = `{"name": "cut-%s", "type": "timeout", "stream": %[1]q, "attributes": {"timeout": 0}}`
	if _, err := link.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(toxic, way))); err != nil {
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
