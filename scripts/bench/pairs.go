// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// pairConnections is the load under which builds are compared: all cores busy.
const pairConnections = 32

// A build is one of the compared builds of the engine, with its own mount.
type build struct {
	single, batch *target
	mount         string
	rounds        []round
}

// A round is the result of a build in one turn.
type round struct{ single, batch, during *sample }

// pairs compares builds of the engine, each with its own mount in the same Vault. They
// alternate. Every figure is divided by the figure of the first build in the same round,
// and pairs prints the median, minimum and maximum of the rounds. So it shows differences
// that are smaller than the changes in the machine's speed.
func (b *bench) pairs(ctx context.Context, o options) error {
	names, err := filepath.Glob(filepath.Join(o.pluginDir, devvault.PluginName+"*"))
	if err != nil || len(names) < 2 {
		return fmt.Errorf("%s must have two builds or more, named %s-something", o.pluginDir, devvault.PluginName)
	}
	builds := make([]*build, len(names))
	for i, name := range names {
		if builds[i], err = b.mountBuild(ctx, fmt.Sprintf("build%d", i), filepath.Base(name)); err != nil {
			return err
		}
	}
	b.findProcesses()
	for n := range o.rounds {
		for _, one := range builds {
			if err := b.turn(ctx, one, o.slice); err != nil {
				return err
			}
		}
		slices.Reverse(builds)
		fmt.Printf("round %d of %d\n", n+1, o.rounds)
	}
	slices.SortFunc(builds, func(x, y *build) int { return cmp.Compare(x.single.name, y.single.name) })
	for _, one := range builds {
		describePair(one, builds[0])
	}
	return nil
}

func (b *bench) mountBuild(ctx context.Context, mount, plugin string) (*build, error) {
	if err := b.mountEngine(ctx, mount, plugin); err != nil {
		return nil, err
	}
	charge := []string{"vault", plugin}
	return &build{
		mount: mount,
		single: &target{
			name: plugin, method: http.MethodGet, charge: charge, check: b.checkToken,
			url: func(n int64) string {
				return fmt.Sprintf("%s/v1/%s/creds/bench?room=%s", b.vault.Addr, mount, roomOf(n))
			},
		},
		batch: &target{
			name: plugin, method: http.MethodPost, charge: charge, check: b.checkBatch, batch: batchSize, body: batchBody,
			url: func(int64) string { return fmt.Sprintf("%s/v1/%s/creds/bench", b.vault.Addr, mount) },
		},
	}, nil
}

func (b *bench) turn(ctx context.Context, one *build, slice time.Duration) error {
	single, err := b.load(ctx, one.single, pairConnections, slice)
	if err != nil {
		return err
	}
	batch, err := b.load(ctx, one.batch, 1, slice)
	if err != nil {
		return err
	}
	during, err := b.readsDuringBatches(ctx, one.mount, one.single, slice)
	if err != nil {
		return err
	}
	one.rounds = append(one.rounds, round{single, batch, during})
	return nil
}

func describePair(one, first *build) {
	fmt.Printf("%s\n", one.single.name)
	for _, figure := range []struct {
		name string
		of   func(round) float64
	}{
		{"tokens/s", func(r round) float64 { return r.single.rate() }},
		{"CPU µs", func(r round) float64 { return float64(r.single.cpuPer().Microseconds()) }},
		{"batch tokens/s", func(r round) float64 { return r.batch.rate() }},
		{"batch CPU µs", func(r round) float64 { return float64(r.batch.cpuPer().Microseconds()) }},
		{"p50 ms during batches", func(r round) float64 { return r.during.percentile(0.5).Seconds() * 1000 }},
		{"p99 ms during batches", func(r round) float64 { return r.during.percentile(0.99).Seconds() * 1000 }},
	} {
		var values, ratios []float64
		for i, r := range one.rounds {
			values = append(values, figure.of(r))
			ratios = append(ratios, figure.of(r)/figure.of(first.rounds[i]))
		}
		slices.Sort(values)
		slices.Sort(ratios)
		fmt.Printf("  %-22s %8.1f   ÷ the first %.3f (%.3f to %.3f)\n",
			figure.name, values[len(values)/2], ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1])
	}
}
