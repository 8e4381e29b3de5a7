// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package partition

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// A report has the results of a scenario.
type report struct {
	h                   *history
	node                int    // the node that was cut off or suspended
	id                  string // its ID
	began, ended, whole time.Time

	newLeader  time.Duration // until another node won an election; 0 if none did
	kept       int           // tokens that the node made since
	last       time.Time     // when it sent the last of them
	deposed    []read        // its answers after another node had led
	outdated   int           // how many of them had an old value
	late       []read        // tokens with a key whose deletion had been acknowledged
	lateAsked  int           // how many of them were requested after that
	lateSigned int           // how many were signed after that, according to the token
	latest     time.Duration // how long after the deletion the last of them came
	sides      [2]side       // the node's clients, and the other clients
}

// A side is what the clients on one side of the cut saw, for requests sent during the cut.
type side struct {
	asked, tokens int
	failed        map[string]int
	gap, slowest  time.Duration // the longest times without a token, and until an answer
}

func newReport(h *history, node int, id string, began, ended, whole time.Time) *report {
	r := &report{h: h, node: node, id: id, began: began, ended: ended, whole: whole}
	for _, t := range h.terms {
		if t.since.After(began) && t.since.Before(ended) && t.node != id && r.newLeader == 0 {
			r.newLeader = t.since.Sub(began)
		}
	}
	_, r.deposed = h.split()
	for _, d := range r.deposed {
		if slices.ContainsFunc(registers, func(reg register) bool { return h.outdated(d, reg, h.written(reg)) }) {
			r.outdated++
		}
	}
	r.keptSigning()
	r.deletedKeys()
	r.sides[0] = r.side(func(n int) bool { return n == node })
	r.sides[1] = r.side(func(n int) bool { return n != node })
	return r
}

// keptSigning finds the tokens that the node made after it was cut off or suspended: in its
// old term if another node was elected, otherwise until the end.
func (r *report) keptSigning() {
	term := r.h.lastTerm(r.id, r.began)
	for _, t := range r.h.tokens() {
		old := r.h.lastTerm(r.id, t.ret) == term && (r.newLeader > 0 || t.ret.Before(r.ended))
		if t.by == r.id && old && t.ret.After(r.began) {
			r.kept++
			if t.ret.After(r.last) {
				r.last = t.ret
			}
		}
	}
}

func (r *report) deletedKeys() {
	r.late, _ = r.h.deletedKeys()
	for _, w := range r.h.writes {
		if !w.deletion || w.result != done {
			continue
		}
		for _, t := range r.late {
			if t.values[key] != w.value {
				continue
			}
			r.latest = max(r.latest, t.ret.Sub(w.ret))
			if t.call.After(w.ret) {
				r.lateAsked++
			}
			if t.signed.After(w.ret) {
				r.lateSigned++
			}
		}
	}
}

func (r *report) side(belongs func(int) bool) side {
	s := side{failed: map[string]int{}}
	var answered []time.Time
	for _, t := range r.h.reads {
		if !belongs(t.node) {
			continue
		}
		if t.result == done && t.ret.After(r.began) {
			answered = append(answered, t.ret)
		}
		if t.call.Before(r.began) || t.call.After(r.ended) {
			continue
		}
		s.asked++
		s.slowest = max(s.slowest, t.ret.Sub(t.call))
		if t.result == done {
			s.tokens++
		} else {
			s.failed[t.text]++
		}
	}
	slices.SortFunc(answered, time.Time.Compare)
	last := r.began
	for _, at := range answered {
		s.gap = max(s.gap, at.Sub(last))
		last = at
	}
	return s
}

func (r *report) print(t *testing.T) {
	t.Helper()
	t.Logf("%s for %s; another node was elected: %s; every node gave a token %s after its end",
		r.id, seconds(r.ended.Sub(r.began)), orNever(r.newLeader), seconds(r.whole.Sub(r.ended)))
	t.Logf("  tokens that it made since: %s", r.lastToken())
	t.Logf("  as a deposed leader it gave %d tokens, %d of them with an old setting", len(r.deposed), r.outdated)
	t.Logf("  tokens of a deleted key after the deletion was acknowledged: %d, the last %s after it; %d were asked for after it, %d say that they were signed after it",
		len(r.late), seconds(r.latest), r.lateAsked, r.lateSigned)
	for i, name := range []string{"its clients", "the others'"} {
		s := r.sides[i]
		t.Logf("  %s: %d requests, %d tokens, none for %s at the longest, slowest answer %s", name, s.asked, s.tokens, seconds(s.gap), seconds(s.slowest))
		for _, text := range slices.Sorted(maps.Keys(s.failed)) {
			t.Logf("    failed %d times: %s", s.failed[text], strings.Join(strings.Fields(text), " "))
		}
	}
	var count [3]int
	for _, w := range r.h.writes {
		count[w.result]++
	}
	t.Logf("  writes: %d acknowledged, %d refused, %d without a clear answer", count[done], count[refused], count[unknown])
}

// lastToken says when the node sent its last token.
func (r *report) lastToken() string {
	switch {
	case r.kept == 0:
		return "none"
	case r.last.Before(r.ended):
		return fmt.Sprintf("%d, the last %s after the beginning", r.kept, seconds(r.last.Sub(r.began)))
	}
	return fmt.Sprintf("%d, the last %s after the end", r.kept, seconds(r.last.Sub(r.ended)))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func orNever(d time.Duration) string {
	if d == 0 {
		return "no"
	}
	return "after " + seconds(d)
}

const tableHead = `| scenario | lasted | another node elected | tokens by that node since | old settings by a deposed leader | tokens of a deleted key (asked after; signed after) | last after | node's clients without a token | the others' | writes acknowledged | lost |
|---|---|---|---|---|---|---|---|---|---|---|`

// row is printed for a scenario that passed, so no write was lost.
func (r *report) row(name string) string {
	acknowledged := 0
	for _, w := range r.h.writes {
		if w.result == done {
			acknowledged++
		}
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %d | %d (%d; %d) | %s | %s | %s | %d | 0 |", name, seconds(r.ended.Sub(r.began)), orNever(r.newLeader),
		r.lastToken(), r.outdated, len(r.late), r.lateAsked, r.lateSigned, seconds(r.latest), seconds(r.sides[0].gap), seconds(r.sides[1].gap), acknowledged)
}
