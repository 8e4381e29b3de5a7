// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"fmt"
	"slices"
	"time"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/acceptance/history"
)

// A report makes a row of the table that docs/reliability.md sums up.
type report struct {
	h                   *history.History
	node                int    // the node that was harmed
	id                  string // its ID
	began, ended, whole time.Time
}

const tableHead = `| fault | lasted | whole again | another node elected | tokens by that node since | tokens of a deleted key | last after | node's clients without a token | the others' |
|---|---|---|---|---|---|---|---|---|`

func (r report) row(name string) string {
	elected := r.elected()
	after := "no"
	if elected > 0 {
		after = "after " + seconds(elected)
	}
	late, latest := r.h.LateTokens()
	return fmt.Sprintf("| %s | %s | after %s | %s | %s | %d | %s | %s | %s |",
		name, seconds(r.ended.Sub(r.began)), seconds(r.whole.Sub(r.ended)), after, r.keptSigning(elected > 0), len(late), seconds(latest),
		seconds(r.gap(func(n int) bool { return n == r.node })), seconds(r.gap(func(n int) bool { return n != r.node })))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// elected returns how long it took until another node won an election; 0 if none did.
func (r report) elected() time.Duration {
	for _, t := range r.h.Terms {
		if t.Since.After(r.began) && t.Since.Before(r.ended) && t.Node != r.id {
			return t.Since.Sub(r.began)
		}
	}
	return 0
}

// keptSigning tells of the tokens that the node made after the fault began: in its old term
// if another node was elected, otherwise until the end.
func (r report) keptSigning(elected bool) string {
	term := r.h.LastTerm(r.id, r.began)
	kept := 0
	var last time.Time
	for _, t := range r.h.Reads {
		old := r.h.LastTerm(r.id, t.Ret) == term && (elected || t.Ret.Before(r.ended))
		if t.Token() && t.By == r.id && old && t.Ret.After(r.began) {
			kept++
			if t.Ret.After(last) {
				last = t.Ret
			}
		}
	}
	switch {
	case kept == 0:
		return "none"
	case last.Before(r.ended):
		return fmt.Sprintf("%d, the last %s after the beginning", kept, seconds(last.Sub(r.began)))
	}
	return fmt.Sprintf("%d, the last %s after the end", kept, seconds(last.Sub(r.ended)))
}

// gap is the longest time without a token for the clients of some nodes.
func (r report) gap(belongs func(node int) bool) time.Duration {
	var answered []time.Time
	for _, t := range r.h.Reads {
		if belongs(t.Node) && t.Token() && t.Ret.After(r.began) {
			answered = append(answered, t.Ret)
		}
	}
	slices.SortFunc(answered, time.Time.Compare)
	longest, last := time.Duration(0), r.began
	for _, at := range answered {
		longest = max(longest, at.Sub(last))
		last = at
	}
	return longest
}
