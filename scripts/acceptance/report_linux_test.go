// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"fmt"
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

const tableHead = `| fault | lasted | whole again | another node elected | tokens by that node since, the last | tokens of a deleted key, the last | node's clients without a token | the others' |
|---|---|---|---|---|---|---|---|`

// row measures from the beginning of the fault, and the last two tokens from its end if they
// came later.
func (r report) row(name string) string {
	elected := r.elected()
	term := r.h.LastTerm(r.id, r.began)
	deleted := r.deleted()
	var own, late tally              // tokens of the harmed node in its old term, and of deleted keys
	gaps := map[bool]time.Duration{} // by whether they are the node's own clients
	last := map[bool]time.Time{true: r.began, false: r.began}
	for _, t := range r.h.Requests { // in the order of their answers
		if !t.Token() || t.Ret.Before(r.began) {
			continue
		}
		if t.By == r.id && r.h.LastTerm(r.id, t.Ret) == term && (elected > 0 || t.Ret.Before(r.ended)) {
			own.add(t.Ret)
		}
		if at, ok := deleted[t.Values[history.Key]]; ok && t.Ret.After(at) {
			late.add(t.Ret)
		}
		side := t.Node == r.node
		gaps[side] = max(gaps[side], t.Ret.Sub(last[side]))
		last[side] = t.Ret
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s | %s |", name, seconds(r.ended.Sub(r.began)), seconds(r.whole.Sub(r.ended)),
		seconds(elected), r.text(own), r.text(late), seconds(gaps[true]), seconds(gaps[false]))
}

// elected returns how long it took until another node won an election; 0 if none did.
func (r report) elected() time.Duration {
	for _, t := range r.h.Terms {
		if t.Since.After(r.began) && t.Since.Before(r.ended) && t.Node != r.id {
			return t.Since.Sub(r.began)
		}
	}
	return 0
}

// A tally counts tokens.
type tally struct {
	count int
	last  time.Time
}

func (t *tally) add(at time.Time) { t.count, t.last = t.count+1, at }

func (r report) text(t tally) string {
	switch {
	case t.count == 0:
		return "none"
	case t.last.Before(r.ended):
		return fmt.Sprintf("%d, after %s", t.count, seconds(t.last.Sub(r.began)))
	}
	return fmt.Sprintf("%d, %s after the end", t.count, seconds(t.last.Sub(r.ended)))
}

// deleted returns when the deletion of each key version was acknowledged.
func (r report) deleted() map[int64]time.Time {
	all := map[int64]time.Time{}
	for _, d := range r.h.Requests {
		if d.Deleted() {
			all[d.Values[history.Key]] = d.Ret
		}
	}
	return all
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
