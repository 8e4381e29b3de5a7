// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
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
	order         []string
	samples       map[key]*sample
	alone         []time.Duration // bare signatures on one core
	signatures    []time.Duration // the same on all cores, as under load
	duringBatches sample
}

func newResults() *results { return &results{samples: map[key]*sample{}} }

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

func (s *sample) split() string {
	var parts []string
	for _, name := range []string{"vault", "vault-plugin-secrets-clanmeeting", "vault-plugin-empty", "node"} {
		if used, ok := s.cpu[name]; ok {
			parts = append(parts, fmt.Sprint((used / time.Duration(s.tokens)).Microseconds()))
		}
	}
	return strings.Join(parts, " + ")
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }

func render(r *results) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s/%s, %d cores, %s. CPU in µs per token, Vault + plugin. Ratios are of tokens a second: ours to the peer's.\n\n",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	fmt.Fprintln(&out, "| request | connections | tokens/s | p50 ms | p99 ms | CPU | ours ÷ it |")
	fmt.Fprintln(&out, "|---|---|---|---|---|---|---|")
	for _, n := range connections {
		for _, name := range r.order {
			s := r.samples[key{name, n}]
			if s == nil {
				continue
			}
			ours := r.samples[key{targetCreds, n}]
			if strings.Contains(name, "batch") {
				ours = r.samples[key{targetBatch, n}]
			}
			fmt.Fprintf(&out, "| %s | %d | %.0f | %s | %s | %s | %.2f |\n",
				name, n, s.rate(), milliseconds(s.percentile(0.5)), milliseconds(s.percentile(0.99)), s.split(), ours.rate()/s.rate())
		}
	}
	signature := median(r.signatures)
	fmt.Fprintf(&out, "\nA bare RS256 signature with 2048 bits: %d µs of CPU on one core, %d on all at once; the ratios are to the latter, but for one connection.\n",
		median(r.alone).Microseconds(), signature.Microseconds())
	for _, n := range connections {
		creds, empty := r.samples[key{targetCreds, n}], r.samples[key{targetEmpty, n}]
		floor := r.samples[key{targetFloor, n}]
		bare := signature
		if n == 1 { // one request at a time leaves a core idle
			bare = median(r.alone)
		}
		fmt.Fprintf(&out, "CPU of a token, connections: %d, ÷ (an empty call + a bare signature): %.3f; ÷ a plugin that only signs: %.3f\n",
			n, float64(creds.cpuPer())/float64(empty.cpuPer()+bare), float64(creds.cpuPer())/float64(floor.cpuPer()))
	}
	batch := r.samples[key{targetBatch, 1}]
	fmt.Fprintf(&out, "CPU of a token in a batch of 100 ÷ a bare signature: %.3f\n", float64(batch.cpuPer())/float64(signature))
	fmt.Fprintf(&out, "Single reads while batches of 1,000 are signed: p50 %s ms, p99 %s ms\n",
		milliseconds(r.duringBatches.percentile(0.5)), milliseconds(r.duringBatches.percentile(0.99)))
	return out.String()
}

// plot draws a bar with each target's tokens per second, at the most connections.
func plot(r *results) string {
	const left, width, height, scale = 220, 760, 26, 420
	n := connections[len(connections)-1]
	most := 0.0
	var names []string
	for _, name := range r.order {
		if s := r.samples[key{name, n}]; s != nil {
			names = append(names, name)
			most = max(most, s.rate())
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="13">`+"\n", width, len(names)*height+40)
	fmt.Fprintln(&out, `<rect width="100%" height="100%" fill="white"/>`)
	fmt.Fprintf(&out, `<text x="10" y="20">Requests a second at %d connections</text>`+"\n", n)
	for i, name := range names {
		rate := r.samples[key{name, n}].rate()
		fill := "#9aa7b1"
		if name == targetCreds {
			fill = "#1f6feb"
		}
		y := 32 + i*height
		fmt.Fprintf(&out, `<text x="%d" y="%d" text-anchor="end">%s</text>`, left-8, y+14, name)
		fmt.Fprintf(&out, `<rect x="%d" y="%d" width="%.0f" height="18" fill="%s"/>`, left, y, rate/most*scale, fill)
		fmt.Fprintf(&out, `<text x="%.0f" y="%d">%.0f</text>`+"\n", left+rate/most*scale+6, y+14, rate)
	}
	fmt.Fprintln(&out, "</svg>")
	return out.String()
}
