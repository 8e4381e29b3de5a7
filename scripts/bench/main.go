// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Bench measures what a token costs in a real Vault on this machine: tokens per second,
// latency, and the CPU time of Vault and of the plugin. It compares both builds of the
// engine, which sign with Go and with OpenSSL, with Vault's own signers, with a plugin that
// does nothing, and with the vendor's snippet; or, with -pairs, builds of the engine with
// each other; or, with -soak, it looks whether the plugin grows. What is compared alternates in short slices, so that the ratios hold even if
// the machine's speed changes. It fails if an answer is wrong.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

type options struct {
	vaultBin, pluginDir, nodeModules string

	rounds int
	slice  time.Duration
	pairs  bool
	soak   time.Duration
}

func main() {
	o := options{}
	flag.StringVar(&o.vaultBin, "vault", "", "the Vault binary")
	flag.StringVar(&o.pluginDir, "plugin-dir", "", "the folder with the plugin and the empty one")
	flag.StringVar(&o.nodeModules, "node-modules", "", "a folder with jsonwebtoken; if empty, the vendor's snippet is not measured")
	flag.IntVar(&o.rounds, "rounds", 4, "how many slices each request gets")
	flag.DurationVar(&o.slice, "slice", 2*time.Second, "how long a slice is")
	flag.BoolVar(&o.pairs, "pairs", false, "only compare the builds of the engine in the plugin folder")
	flag.DurationVar(&o.soak, "soak", 0, "only make requests of all kinds, for this long")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "clanmeeting-bench-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	vault, err := devvault.Start(ctx, devvault.Options{VaultBin: o.vaultBin, PluginDir: o.pluginDir, LogLevel: "error"})
	if err != nil {
		return err
	}
	defer vault.Stop()
	// Connections stay open between slices.
	b := &bench{vault: vault, dir: dir, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	switch {
	case o.pairs:
		return b.pairs(ctx, o)
	case o.soak > 0:
		return b.soak(ctx, o.soak)
	}
	return b.compare(ctx, o)
}
