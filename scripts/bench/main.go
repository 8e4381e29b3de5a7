// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Bench measures what a token costs in a real Vault on this machine: tokens per second,
// latency, and the CPU time of Vault and of the plugin. It compares both builds of the
// engine, which sign with Go and with OpenSSL, with Vault's own signers, with a plugin that
// does nothing, and with the vendor's snippet. The targets alternate in short slices, so
// that the ratios hold even if the machine's speed changes. It prints a table, and writes
// the table and a plot. It fails if an answer is wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

var connections = []int{1, 8, 32}

func main() {
	o := options{}
	flag.StringVar(&o.vaultBin, "vault", "", "the Vault binary")
	flag.StringVar(&o.pluginDir, "plugin-dir", "", "the folder with the plugin and the empty one")
	flag.StringVar(&o.nodeModules, "node-modules", "", "a folder with jsonwebtoken; if empty, the vendor's snippet is not measured")
	flag.StringVar(&o.out, "out", "", "the folder for the table and the plot")
	flag.IntVar(&o.rounds, "rounds", 4, "how many slices each target gets")
	flag.DurationVar(&o.slice, "slice", 2*time.Second, "how long a slice is")
	flag.BoolVar(&o.scale, "scale", false, "only show what 100,000 roles cost")
	flag.DurationVar(&o.soak, "soak", 0, "only run a mixed load, for this long")
	flag.BoolVar(&o.pairs, "pairs", false, "only compare the builds of the engine in the plugin folder")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

type options struct {
	vaultBin, pluginDir, nodeModules, out string

	rounds int
	slice  time.Duration
	scale  bool
	pairs  bool
	soak   time.Duration
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

	b := &bench{vault: vault, keyFile: filepath.Join(dir, "key.pem")}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	if o.pairs {
		return b.pairs(ctx, o)
	}
	for _, e := range engines {
		if _, err := os.Stat(filepath.Join(o.pluginDir, e.plugin)); err != nil {
			continue
		}
		if err := b.mountEngine(ctx, e.mount, e.plugin); err != nil {
			return err
		}
		b.addCreds(e)
		b.engines = append(b.engines, e)
	}
	b.findProcesses()
	switch {
	case o.scale:
		return b.scale(ctx, o.slice)
	case o.soak > 0:
		return b.soak(ctx, o.soak)
	}
	return b.compare(ctx, o)
}

// compare measures the engine and its peers.
func (b *bench) compare(ctx context.Context, o options) error {
	if err := b.mountPeers(ctx); err != nil {
		return err
	}
	b.addPeers()
	for _, e := range b.engines {
		b.addBatch(e)
	}
	if o.nodeModules != "" {
		stop, err := b.startVendor(ctx, o.nodeModules)
		if err != nil {
			return err
		}
		defer stop()
	}
	b.findProcesses()
	results, err := b.measure(ctx, o)
	if err != nil {
		return err
	}
	report := render(results)
	fmt.Print(report)
	if err := os.WriteFile(filepath.Join(o.out, "bench.md"), []byte(report), 0o600); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	if err := os.WriteFile(filepath.Join(o.out, "bench.svg"), []byte(plot(results)), 0o600); err != nil {
		return fmt.Errorf("writing the plot: %w", err)
	}
	return nil
}

// measure runs the slices of all targets alternately, at each number of connections.
func (b *bench) measure(ctx context.Context, o options) (*results, error) {
	r := newResults(b.engines)
	for _, n := range connections {
		for round := range o.rounds {
			fmt.Fprintf(os.Stderr, "%d connections, round %d of %d\n", n, round+1, o.rounds)
			if err := r.measureSignatures(ctx, b); err != nil {
				return nil, err
			}
			for _, t := range b.targets {
				if t.batch > 0 && n != 1 {
					continue // a batch has one caller
				}
				s, err := b.load(ctx, t, n, o.slice)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", t.name, err)
				}
				r.add(t, n, s)
			}
		}
	}
	for i, e := range b.engines {
		single := b.targets[2*i] // addCreds adds two
		for range o.rounds {
			s, err := b.readsDuringBatches(ctx, e.mount, single, o.slice)
			if err != nil {
				return nil, err
			}
			r.duringBatches[e.signer].join(s)
		}
	}
	if r.empty() {
		return nil, errors.New("nothing was measured")
	}
	return r, nil
}
