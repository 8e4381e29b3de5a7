// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
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

	mu      sync.Mutex
	removed []func() error // called to heal
}

func newNetwork(t *testing.T, dir string) *network {
	t.Helper()
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

var errStranger = errors.New("no node has this connection")

// caller returns the node whose process has the other end of a connection.
func (n *network) caller(conn net.Conn) (int, error) {
	inode, err := inodeOf(hexAddr(conn.RemoteAddr()), hexAddr(conn.LocalAddr()))
	if err != nil {
		return 0, err
	}
	for node := range nodes {
		for _, process := range n.processes(node) {
			files, _ := filepath.Glob(process + "/fd/*") // the pattern is good
			for _, file := range files {
				if target, err := os.Readlink(file); err == nil && target == "socket:["+inode+"]" {
					return node, nil
				}
			}
		}
	}
	return 0, errStranger
}

// processes returns the folders in /proc of the processes with the configuration of a node.
func (n *network) processes(node int) []string {
	config := filepath.Join(n.dir, fmt.Sprintf("n%d.hcl", node))
	var found []string
	all, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good
	for _, process := range all {
		line, err := os.ReadFile(filepath.Join(process, "cmdline"))
		if err == nil && strings.Contains(string(line), config) {
			found = append(found, process)
		}
	}
	return found
}

// hexAddr formats an IPv4 address and port as in /proc/net/tcp.
func hexAddr(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || tcp.IP.To4() == nil {
		return ""
	}
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(tcp.IP.To4()), tcp.Port)
}

func inodeOf(local, remote string) (string, error) {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return "", fmt.Errorf("looking for a connection: %w", err)
	}
	const localAt, remoteAt, inodeAt = 1, 2, 9
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) > inodeAt && fields[localAt] == local && fields[remoteAt] == remote {
			return fields[inodeAt], nil
		}
	}
	return "", errStranger
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
	toxic, err := link.Toxics.AddToxicJson(strings.NewReader(
		fmt.Sprintf(`{"name": "cut-%s", "type": "timeout", "stream": %q, "attributes": {"timeout": 0}}`, way, way)))
	if err != nil {
		return fmt.Errorf("cutting %s: %w", link.Name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.removed = append(n.removed, func() error { return link.Toxics.RemoveToxic(context.Background(), toxic.Name) })
	return nil
}

// heal lets everything through again. It closes the connections that were cut, because
// they lack the dropped data.
func (n *network) heal() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, remove := range n.removed {
		errs = append(errs, remove())
	}
	n.removed = nil
	return errors.Join(errs...)
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
