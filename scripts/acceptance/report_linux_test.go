// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/acceptance/history"
)

// A report is a row of the table that docs/reliability.md shows.
type report struct {
	h                   *history.History
	node                int    // the node that was harmed
	id                  string // its ID
	began, ended, whole time.Time

	newLeader time.Duration  // until another node won an election; 0 if none did
	kept      int            // tokens that the node made since
	last      time.Time      // when it sent the last of them
	outdated  int            // answers of a deposed leader with an old value
	late      []history.Read // tokens with a key whose deletion had been acknowledged
	lateAsked int            // how many of them were requested after that
	latest    time.Duration  // how long after the deletion the last of them came
	sides     [2]side        // the node's clients, and the other clients
}

// A side is what the clients on one side of a cut saw, for requests sent during the fault.
type side struct {
	asked, answered int
	failed          map[string]int
	gap, slowest    time.Duration // the longest times without a token, and until an answer
}

func newReport(h *history.History, node int, id string, began, ended, whole time.Time) *report {
	r := &report{h: h, node: node, id: id, began: began, ended: ended, whole: whole}
	for _, t := range h.Terms {
		if t.Since.After(began) && t.Since.Before(ended) && t.Node != id && r.newLeader == 0 {
			r.newLeader = t.Since.Sub(began)
		}
	}
	_, deposed := h.Split()
	for _, d := range deposed {
		if slices.ContainsFunc(history.Registers, func(reg history.Register) bool { return len(h.Outdated([]history.Read{d}, reg, 0)) > 0 }) {
			r.outdated++
		}
	}
	r.keptSigning()
	r.deletedKeys()
	r.sides[0] = r.side(func(n int) bool { return n == node })
	r.sides[1] = r.side(func(n int) bool { return n != node })
	return r
}

// keptSigning finds the tokens that the node made after the fault began: in its old term if
// another node was elected, otherwise until the end.
func (r *report) keptSigning() {
	term := r.h.LastTerm(r.id, r.began)
	for _, t := range r.h.Reads {
		old := r.h.LastTerm(r.id, t.Ret) == term && (r.newLeader > 0 || t.Ret.Before(r.ended))
		if t.Token() && t.By == r.id && old && t.Ret.After(r.began) {
			r.kept++
			if t.Ret.After(r.last) {
				r.last = t.Ret
			}
		}
	}
}

func (r *report) deletedKeys() {
	r.late, _ = r.h.DeletedKeys()
	for _, w := range r.h.Writes {
		if !w.Deletion || w.Result != history.Done {
			continue
		}
		for _, t := range r.late {
			if t.Values[history.Key] != w.Value {
				continue
			}
			r.latest = max(r.latest, t.Ret.Sub(w.Ret))
			if t.Call.After(w.Ret) {
				r.lateAsked++
			}
		}
	}
}

func (r *report) side(belongs func(int) bool) side {
	s := side{failed: map[string]int{}}
	var answered []time.Time
	for _, t := range r.h.Reads {
		if !belongs(t.Node) {
			continue
		}
		if t.Token() && t.Ret.After(r.began) {
			answered = append(answered, t.Ret)
		}
		if t.Call.Before(r.began) || t.Call.After(r.whole) {
			continue
		}
		s.asked++
		s.slowest = max(s.slowest, t.Ret.Sub(t.Call))
		if t.Result == history.Done {
			s.answered++
		} else {
			s.failed[t.Text]++
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

// failures lists how requests failed, and how often.
func (r *report) failures() string {
	text := ""
	for i, name := range []string{"its clients", "the others"} {
		s := r.sides[i]
		text += fmt.Sprintf("%s: %d requests, %d answered, the slowest after %s\n", name, s.asked, s.answered, seconds(s.slowest))
		for _, failure := range slices.Sorted(maps.Keys(s.failed)) {
			text += fmt.Sprintf("  failed %d times: %s\n", s.failed[failure], failure)
		}
	}
	return text
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

const tableHead = `| fault | lasted | whole again | another node elected | tokens by that node since | old settings by a deposed leader | tokens of a deleted key (asked after) | last after | node's clients without a token | the others' | writes acknowledged |
|---|---|---|---|---|---|---|---|---|---|---|`

func (r *report) row(name string) string {
	acknowledged := 0
	for _, w := range r.h.Writes {
		if w.Result == history.Done {
			acknowledged++
		}
	}
	return fmt.Sprintf("| %s | %s | after %s | %s | %s | %d | %d (%d) | %s | %s | %s | %d |", name, seconds(r.ended.Sub(r.began)), seconds(r.whole.Sub(r.ended)),
		orNever(r.newLeader), r.lastToken(), r.outdated, len(r.late), r.lateAsked, seconds(r.latest), seconds(r.sides[0].gap), seconds(r.sides[1].gap), acknowledged)
}
