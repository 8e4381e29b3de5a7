// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

type key struct {
	target      string
	connections int
}

type results struct {
	engines       []engine
	order         []string
	samples       map[key]*sample
	bare          map[string]*bareSignatures // by engine
	duringBatches map[string]*sample         // by engine
}

// bareSignatures are what one signature costs without anything around it: CPU time on one
// core, and on all cores at once, as under load.
type bareSignatures struct{ alone, loaded []time.Duration }

func newResults(engines []engine) *results {
	r := &results{engines: engines, samples: map[key]*sample{}, bare: map[string]*bareSignatures{}, duringBatches: map[string]*sample{}}
	for _, e := range engines {
		r.bare[e.signer], r.duringBatches[e.signer] = &bareSignatures{}, &sample{}
	}
	return r
}

// measureSignatures measures what the signers of the engines take: Go's in this process,
// OpenSSL's by its own benchmark.
func (r *results) measureSignatures(ctx context.Context, b *bench) error {
	for _, e := range r.engines {
		measure := b.signature
		if e.signer == "OpenSSL" {
			measure = opensslSpeed
		}
		alone, err := measure(ctx, 1)
		if err != nil {
			return err
		}
		loaded, err := measure(ctx, runtime.GOMAXPROCS(0))
		if err != nil {
			return err
		}
		of := r.bare[e.signer]
		of.alone, of.loaded = append(of.alone, alone), append(of.loaded, loaded)
	}
	return nil
}

func (r *results) empty() bool { return len(r.samples) == 0 }

func (r *results) add(t *target, n int, s *sample) {
	if !slices.Contains(r.order, t.name) {
		r.order = append(r.order, t.name)
	}
	k := key{t.name, n}
	if r.samples[k] == nil {
		r.samples[k] = &sample{}
	}
	r.samples[k].join(s)
}

func median(all []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(all))[len(all)/2]
}

// rate is tokens per second.
func (s *sample) rate() float64 { return float64(s.tokens) / s.elapsed.Seconds() }

func (s *sample) percentile(p float64) time.Duration {
	sorted := slices.Sorted(slices.Values(s.latencies))
	return sorted[int(p*float64(len(sorted)-1))]
}

// cpuPer is the CPU time of all processes per token.
func (s *sample) cpuPer() time.Duration {
	var total time.Duration
	for _, used := range s.cpu {
		total += used
	}
	return total / time.Duration(s.tokens)
}

// cpuOf is CPU per token, of one process.
func (s *sample) cpuOf(process string) time.Duration {
	return s.cpu[process] / time.Duration(s.tokens)
}

func (s *sample) split() string {
	var parts []string
	for _, name := range []string{"vault", engines[0].plugin, engines[1].plugin, "vault-plugin-empty", "node"} {
		if _, ok := s.cpu[name]; ok {
			parts = append(parts, fmt.Sprint(s.cpuOf(name).Microseconds()))
		}
	}
	return strings.Join(parts, " + ")
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }

func render(r *results) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s/%s, %d cores, %s. CPU in µs per token, Vault + plugin. Ratios are of tokens a second: ours to the peer's.\n\n",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	header, line := "| request | connections | tokens/s | p50 ms | p99 ms | CPU |", "|---|---|---|---|---|---|"
	for _, e := range r.engines {
		header, line = header+" "+e.signer+" ÷ it |", line+"---|"
	}
	fmt.Fprintln(&out, header+"\n"+line)
	for _, n := range connections {
		for _, name := range r.order {
			if s := r.samples[key{name, n}]; s != nil {
				fmt.Fprintln(&out, r.row(name, n, s))
			}
		}
	}
	for _, e := range r.engines {
		r.describe(&out, e)
	}
	return out.String()
}

func (r *results) row(name string, n int, s *sample) string {
	row := fmt.Sprintf("| %s | %d | %.0f | %s | %s | %s |",
		name, n, s.rate(), milliseconds(s.percentile(0.5)), milliseconds(s.percentile(0.99)), s.split())
	for _, e := range r.engines {
		ours := r.samples[key{e.target(targetCreds), n}]
		if strings.Contains(name, "batch") {
			ours = r.samples[key{e.target(targetBatch), n}]
		}
		row += fmt.Sprintf(" %.2f |", ours.rate()/s.rate())
	}
	return row
}

// describe writes the ratios of one engine's CPU time.
func (r *results) describe(out *strings.Builder, e engine) {
	alone, loaded := median(r.bare[e.signer].alone), median(r.bare[e.signer].loaded)
	fmt.Fprintf(out, "\n%s: a bare RS256 signature with 2048 bits takes %d µs of CPU on one core, %d on all at once; the ratios are to the latter, but for one connection.\n\n",
		e.signer, alone.Microseconds(), loaded.Microseconds())
	for _, n := range connections {
		bare := loaded
		if n == 1 { // one request at a time leaves a core idle
			bare = alone
		}
		creds, empty := r.samples[key{e.target(targetCreds), n}], r.samples[key{targetEmpty, n}]
		fmt.Fprintf(out, "- %s, connections: %d: CPU of a token ÷ (an empty call + a bare signature): %.3f; of the plugin alone: %.3f\n",
			e.signer, n, float64(creds.cpuPer())/float64(empty.cpuPer()+bare),
			float64(creds.cpuOf(e.plugin))/float64(empty.cpuOf("vault-plugin-empty")+bare))
	}
	batch, during := r.samples[key{e.target(targetBatch), 1}], r.duringBatches[e.signer]
	fmt.Fprintf(out, "- %s: CPU of a token in a batch of 100 ÷ a bare signature: %.3f; of the plugin alone: %.3f\n",
		e.signer, float64(batch.cpuPer())/float64(loaded), float64(batch.cpuOf(e.plugin))/float64(loaded))
	fmt.Fprintf(out, "- %s: single reads while batches of 1,000 are signed: p50 %s ms, p99 %s ms\n",
		e.signer, milliseconds(during.percentile(0.5)), milliseconds(during.percentile(0.99)))
}

// plot draws a bar with each target's tokens per second, at the most connections.
func plot(r *results) string {
	// perCharacter is more than the width of an average character in this size of letters.
	const fontSize, perCharacter, height, scale = 13, 7, 26, 420
	n := connections[len(connections)-1]
	most, longest := 0.0, 0
	var names []string
	for _, name := range r.order {
		if s := r.samples[key{name, n}]; s != nil {
			names = append(names, name)
			most, longest = max(most, s.rate()), max(longest, len(name))
		}
	}
	left := 16 + longest*perCharacter
	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="%d">`+"\n", left+scale+60, len(names)*height+40, fontSize)
	fmt.Fprintln(&out, `<rect width="100%" height="100%" fill="white"/>`)
	fmt.Fprintf(&out, `<text x="10" y="20">Requests a second at %d connections</text>`+"\n", n)
	for i, name := range names {
		rate := r.samples[key{name, n}].rate()
		fill := "#9aa7b1"
		if strings.HasPrefix(name, targetCreds+", ") {
			fill = "#1f6feb"
		}
		y := 32 + i*height
		fmt.Fprintf(&out, `<text x="%d" y="%d" text-anchor="end">%s</text>`, left-8, y+14, name)
		fmt.Fprintf(&out, `<rect x="%d" y="%d" width="%.0f" height="18" fill="%s"/>`, left, y, rate/most*scale, fill)
		fmt.Fprintf(&out, `<text x="%.0f" y="%d">%.0f</text>`+"\n", float64(left)+rate/most*scale+6, y+14, rate)
	}
	fmt.Fprintln(&out, "</svg>")
	return out.String()
}
