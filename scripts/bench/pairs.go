// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/perf/benchmath"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// A build is one of the compared builds of the engine, and what was measured of it.
type build struct {
	*engine
	samples [][]*sample // by load and round
}

// pairLoads are the loads under which builds are compared.
var pairLoads = []struct {
	name string
	run  func(context.Context, *bench, *engine, time.Duration, *sample) error
}{
	{"single reads, 32 connections", func(ctx context.Context, b *bench, e *engine, slice time.Duration, s *sample) error {
		return b.load(ctx, e.single, 32, slice, s)
	}},
	{"batches of 100", func(ctx context.Context, b *bench, e *engine, slice time.Duration, s *sample) error {
		return b.load(ctx, e.batch, 1, slice, s)
	}},
	{"single reads during batches of 1,000", func(ctx context.Context, b *bench, e *engine, slice time.Duration, s *sample) error {
		return b.readsDuringBatches(ctx, e, 2*slice, s) // a batch takes as long as a slice
	}},
}

// pairFigures are what is compared. Less is better for all.
var pairFigures = []struct {
	load int
	name string
	of   func(*build, *sample) float64
}{
	{0, "time, µs per token", func(_ *build, s *sample) float64 { return s.per(s.elapsed) }},
	{0, "CPU, µs per token", func(_ *build, s *sample) float64 { return s.cpuPer() }},
	{0, "CPU of the plugin, µs per token", func(one *build, s *sample) float64 { return s.per(s.cpu[one.plugin]) }},
	{1, "time, µs per token", func(_ *build, s *sample) float64 { return s.per(s.elapsed) }},
	{1, "CPU, µs per token", func(_ *build, s *sample) float64 { return s.cpuPer() }},
	{1, "CPU of the plugin, µs per token", func(one *build, s *sample) float64 { return s.per(s.cpu[one.plugin]) }},
	{2, "p50, ms", func(_ *build, s *sample) float64 { return s.percentile(0.5) }},
	{2, "p99, ms", func(_ *build, s *sample) float64 { return s.percentile(0.99) }},
}

// pairs compares builds of the engine, each with its own mount in the same Vault. Their
// slices alternate, and the order changes with every round. So a change in the machine's
// speed hits all builds alike.
func (b *bench) pairs(ctx context.Context, o options) error {
	builds, err := b.mountBuilds(ctx, o.pluginDir)
	if err != nil {
		return err
	}
	turns := slices.Clone(builds)
	for round := range o.rounds + 1 { // the first one warms up
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round, o.rounds)
		for i, load := range pairLoads {
			for _, one := range turns {
				s := &sample{}
				if err := load.run(ctx, b, one.engine, o.slice, s); err != nil {
					return err
				}
				if round > 0 {
					one.samples[i] = append(one.samples[i], s)
				}
			}
		}
		slices.Reverse(turns)
	}
	for _, one := range builds[1:] {
		if err := comparePair(builds[0], one, o.rounds); err != nil {
			return err
		}
	}
	return nil
}

// mountBuilds mounts the builds in a folder.
func (b *bench) mountBuilds(ctx context.Context, dir string) ([]*build, error) {
	names, err := filepath.Glob(filepath.Join(dir, devvault.PluginName+"*"))
	if err != nil || len(names) < 2 {
		return nil, fmt.Errorf("%s must have two builds or more, named %s-something", dir, devvault.PluginName)
	}
	builds := make([]*build, len(names))
	for i, name := range names {
		plugin := filepath.Base(name)
		e, err := b.mountEngine(ctx, fmt.Sprintf("build%d", i), plugin, strings.TrimPrefix(plugin, devvault.PluginName+"-"))
		if err != nil {
			return nil, err
		}
		builds[i] = &build{e, make([][]*sample, len(pairLoads))}
	}
	return builds, b.findProcesses()
}

// comparePair prints the figures of a build beside those of the first one. The ratio is that
// of two neighbouring slices: its median over the rounds, and the 95 % confidence interval
// of the median. It shows differences that are smaller than the changes in the machine's
// speed. The last column is benchstat's verdict on the two builds' figures, which knows
// nothing of neighbours.
func comparePair(first, one *build, rounds int) error {
	fmt.Printf("\n%s ÷ %s, rounds: %d. All figures are costs: a ratio below 1 means that %s is better.\n", one.label, first.label, rounds, one.label)
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	logs := 0.0
	load := -1
	for _, figure := range pairFigures {
		if load != figure.load {
			load = figure.load
			fmt.Fprintf(out, "%s\t%s\t%s\tratio\t95 %% interval\tbenchstat\t\n", pairLoads[load].name, first.label, one.label)
		}
		var theirs, ours, ratios []float64
		for i, s := range one.samples[load] {
			ours = append(ours, figure.of(one, s))
			theirs = append(theirs, figure.of(first, first.samples[load][i]))
			ratios = append(ratios, ours[i]/theirs[i])
		}
		before, after := newSample(theirs), newSample(ours)
		old, now, ratio := summary(before), summary(after), summary(newSample(ratios))
		verdict := benchmath.AssumeNothing.Compare(before, after)
		logs += math.Log(ratio.Center)
		fmt.Fprintf(out, "%s\t%.2f\t%.2f\t%.3f\t%.3f to %.3f\t%s (%s)\t\n", figure.name, old.Center, now.Center,
			ratio.Center, ratio.Lo, ratio.Hi, verdict.FormatDelta(old.Center, now.Center), verdict)
	}
	fmt.Fprintf(out, "geomean%s%.3f\t\t\t\n", strings.Repeat("\t", 3), math.Exp(logs/float64(len(pairFigures))))
	return out.Flush()
}

func newSample(values []float64) *benchmath.Sample {
	return benchmath.NewSample(values, &benchmath.DefaultThresholds)
}

func summary(s *benchmath.Sample) benchmath.Summary { return benchmath.AssumeNothing.Summary(s, 0.95) }
