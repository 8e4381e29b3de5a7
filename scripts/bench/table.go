// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

var connections = []uint64{1, 8, 32}

// signers are the builds that the table has. The second one may be missing.
var signers = []struct{ name, plugin string }{
	{"Go", devvault.PluginName},
	{"OpenSSL", devvault.PluginName + "-openssl"},
}

// A table has a sample for each target and number of connections.
type table struct {
	engines []*engine
	targets []*target
	samples map[uint64]map[*target]*sample
	during  map[*engine]*sample // single reads during batches
}

// compare measures the engine and its peers, and prints the table.
func (b *bench) compare(ctx context.Context, o options) error {
	r := &table{samples: map[uint64]map[*target]*sample{}, during: map[*engine]*sample{}}
	for _, s := range signers {
		if _, err := os.Stat(filepath.Join(o.pluginDir, s.plugin)); err != nil {
			continue // bench.sh has said why
		}
		e, err := b.mountEngine(ctx, strings.ToLower(s.name), s.plugin, s.name)
		if err != nil {
			return err
		}
		r.engines, r.targets = append(r.engines, e), append(r.targets, e.single, e.lean)
	}
	peers, err := b.mountPeers(ctx)
	if err != nil {
		return err
	}
	r.targets = append(r.targets, peers...)
	for _, e := range r.engines {
		r.targets = append(r.targets, e.batch)
	}
	if o.nodeModules != "" {
		vendor, stop, err := b.startVendor(ctx, o.nodeModules)
		if err != nil {
			return err
		}
		defer stop()
		r.targets = append(r.targets, vendor)
	}
	if err := b.findProcesses(); err != nil {
		return err
	}
	if err := r.measure(ctx, b, o); err != nil {
		return err
	}
	fmt.Print(r)
	return nil
}

// measure runs the slices of all targets in turns, at each number of connections.
func (r *table) measure(ctx context.Context, b *bench, o options) error {
	for _, n := range connections {
		r.samples[n] = map[*target]*sample{}
		for round := range o.rounds {
			fmt.Fprintf(os.Stderr, "%d connections, round %d of %d\n", n, round+1, o.rounds)
			for _, t := range r.targets {
				if t.tokens > 1 && n != 1 {
					continue // a batch has one caller
				}
				if r.samples[n][t] == nil {
					r.samples[n][t] = &sample{}
				}
				if err := b.load(ctx, t, n, o.slice, r.samples[n][t]); err != nil {
					return err
				}
			}
		}
	}
	for _, e := range r.engines {
		r.during[e] = &sample{}
		for range o.rounds {
			if err := b.readsDuringBatches(ctx, e, o.slice, r.during[e]); err != nil {
				return err
			}
		}
	}
	return nil
}

// String is the table in Markdown.
func (r *table) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s/%s, %d cores, %s. CPU in µs per token, Vault + plugin. The last columns are our tokens/s divided by theirs.\n\n",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	header, line := "| request | connections | tokens/s | p50 ms | p99 ms | CPU |", "|---|---|---|---|---|---|"
	for _, e := range r.engines {
		header, line = header+" "+e.label+" ÷ theirs |", line+"---|"
	}
	fmt.Fprintln(&out, header+"\n"+line)
	for _, n := range connections {
		for _, t := range r.targets {
			if s := r.samples[n][t]; s != nil {
				fmt.Fprintln(&out, r.row(t, n, s))
			}
		}
	}
	for _, e := range r.engines {
		fmt.Fprintf(&out, "\nSingle reads during batches of 1,000, %s: p50 %.1f ms, p99 %.1f ms\n",
			e.label, r.during[e].percentile(0.5), r.during[e].percentile(0.99))
	}
	return out.String()
}

func (r *table) row(t *target, n uint64, s *sample) string {
	var cpu []string
	for _, process := range t.processes {
		cpu = append(cpu, fmt.Sprintf("%.0f", s.per(s.cpu[process])))
	}
	row := fmt.Sprintf("| %s | %d | %.0f | %.1f | %.1f | %s |", t.name, n, s.rate(), s.percentile(0.5), s.percentile(0.99), strings.Join(cpu, " + "))
	for _, e := range r.engines {
		ours := r.samples[n][e.single]
		if t.tokens > 1 {
			ours = r.samples[n][e.batch]
		}
		row += fmt.Sprintf(" %.2f |", ours.rate()/s.rate())
	}
	return row
}
