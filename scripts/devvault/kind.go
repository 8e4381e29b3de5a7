// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package devvault

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// Kind says which server a binary is. This file has all differences between the servers.
type Kind string

// The servers that the engine supports.
const (
	Vault   Kind = "Vault"
	OpenBao Kind = "OpenBao"
)

// maxRequestStrings is how many strings the JSON of one request may have in OpenBao. Its
// default, 1,000, refuses the largest batches, which have 1,000 items.
const maxRequestStrings = 20_000

// KindOf asks a binary which server it is. It prints something like "Vault v1.21.2 (…)".
func KindOf(ctx context.Context, bin string) (Kind, error) {
	out, err := exec.CommandContext(ctx, bin, "version").Output()
	if err != nil {
		return "", fmt.Errorf("running %s version: %w", bin, err)
	}
	for _, kind := range []Kind{Vault, OpenBao} {
		if strings.HasPrefix(string(out), string(kind)+" v") {
			return kind, nil
		}
	}
	return "", fmt.Errorf("neither Vault nor OpenBao: its version is %.100q", out)
}

// devConfig is the configuration file of a server in dev mode; empty if it needs none.
// The listener of dev mode has the default limit of strings, so this file adds a second
// one, which everybody uses.
func (k Kind) devConfig(addr string) string {
	if k != OpenBao {
		return ""
	}
	return k.listener(addr, "") + k.settings(true)
}

// listener is where a server listens; without a cluster address in dev mode.
func (k Kind) listener(addr, clusterAddr string) string {
	var b strings.Builder
	b.WriteString("listener \"tcp\" {\n")
	fmt.Fprintf(&b, "  address = %q\n", addr)
	if clusterAddr != "" {
		fmt.Fprintf(&b, "  cluster_address = %q\n", clusterAddr)
	}
	b.WriteString("  tls_disable = true\n")
	if k == OpenBao {
		fmt.Fprintf(&b, "  max_request_json_strings = %d\n", maxRequestStrings)
	}
	b.WriteString("}\n")
	return b.String()
}

// settings are the settings that only one server has. Vault locks its memory by default,
// which does not work with Raft storage; OpenBao has no such setting. OpenBao refuses to
// enable an audit device through the API unless a setting allows it.
func (k Kind) settings(standbyReads bool) string {
	if k == Vault {
		return "disable_mlock = true\n"
	}
	text := "unsafe_allow_api_audit_creation = true\n"
	if !standbyReads {
		text += "disable_standby_reads = true\n"
	}
	return text
}

// nodeConfig is the configuration of a cluster's node.
type nodeConfig struct {
	id, dir           string   // its name, and the folder of its data
	addr, clusterAddr string   // where it listens
	advertised        string   // where other nodes reach its cluster address
	peers             []string // where all nodes listen
	plugins           string   // the plugin directory
	logLevel          string
	multiplier        int // 0 is the server's default
	standbyReads      bool
	disableCache      bool
}

// text is the whole configuration, for one file: with two files, OpenBao loses
// disable_standby_reads.
func (n nodeConfig) text(k Kind) string {
	var b strings.Builder
	fmt.Fprintf(&b, "storage \"raft\" {\n  path = %q\n  node_id = %q\n", n.dir, n.id)
	if n.multiplier > 0 {
		fmt.Fprintf(&b, "  performance_multiplier = %d\n", n.multiplier)
	}
	for _, peer := range n.peers {
		fmt.Fprintf(&b, "  retry_join { leader_api_addr = \"http://%s\" }\n", peer)
	}
	b.WriteString("}\n" + k.listener(n.addr, n.clusterAddr))
	fmt.Fprintf(&b, "api_addr = \"http://%s\"\ncluster_addr = \"https://%s\"\n", n.addr, n.advertised)
	fmt.Fprintf(&b, "plugin_directory = %q\nlog_level = %q\n", n.plugins, n.logLevel)
	if n.disableCache {
		b.WriteString("disable_cache = true\n")
	}
	b.WriteString("enable_response_header_raft_node_id = true\n" + k.settings(n.standbyReads))
	return b.String()
}
