// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"fmt"
	"time"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/acceptance/history"
)

// harm is what one fault did.
type harm struct {
	*history.History
	node                int    // the node that was harmed
	id                  string // its ID
	began, ended, whole time.Time
}

// deposed returns when another node was elected after the one that made an answer, if that was
// before the answer; else the zero time.
func (h harm) deposed(r history.Request) time.Time {
	var first time.Time
	own := h.LastTerm(r.By, r.Ret)
	for _, t := range h.Terms {
		if own > 0 && t.Number > own && t.Since.Before(r.Ret) && (first.IsZero() || t.Since.Before(first)) {
			first = t.Since
		}
	}
	return first
}

// asOfDeposition returns the answers, for a cluster whose standbys forward. Each answer of a
// node that was deposed counts as if it was asked for at that moment: the node may not know
// what was written since, but must know everything before.
func (h harm) asOfDeposition() []history.Request {
	answers := h.Answers(func(history.Request) bool { return true })
	for i, r := range answers {
		if at := h.deposed(r); !at.IsZero() && at.Before(r.Call) {
			answers[i].Call = at
		}
	}
	return answers
}

// tableHead and the rows make the table that docs/reliability.md sums up.
const tableHead = `| fault | lasted | whole again | another node elected | tokens by that node since, the last | tokens of a deleted key, the last | node's clients without a token | the others' |
|---|---|---|---|---|---|---|---|`

// row measures from the beginning of the fault, and the last two tokens from its end if they
// came later.
func (h harm) row(name string) string {
	elected := h.elected()
	term := h.LastTerm(h.id, h.began)
	deleted := map[int64]time.Time{} // when the deletion of each key version was acknowledged
	for _, r := range h.Requests {
		if r.Deleted() {
			deleted[r.Values[history.Key]] = r.Ret
		}
	}
	var own, late []time.Time        // tokens of the harmed node in its old term, and of deleted keys
	gaps := map[bool]time.Duration{} // by whether they are the node's own clients
	last := map[bool]time.Time{true: h.began, false: h.began}
	for _, r := range h.Requests { // in the order of their answers
		if !r.Token() || r.Ret.Before(h.began) {
			continue
		}
		if r.By == h.id && h.LastTerm(h.id, r.Ret) == term && (elected > 0 || r.Ret.Before(h.ended)) {
			own = append(own, r.Ret)
		}
		if at, ok := deleted[r.Values[history.Key]]; ok && r.Ret.After(at) {
			late = append(late, r.Ret)
		}
		side := r.Node == h.node
		gaps[side] = max(gaps[side], r.Ret.Sub(last[side]))
		last[side] = r.Ret
	}
	return fmt.Sprintf("| %s | %.2f s | %.2f s | %.2f s | %s | %s | %.2f s | %.2f s |", name, h.ended.Sub(h.began).Seconds(),
		h.whole.Sub(h.ended).Seconds(), elected.Seconds(), h.text(own), h.text(late), gaps[true].Seconds(), gaps[false].Seconds())
}

// elected returns how long it took until another node won an election; 0 if none did.
func (h harm) elected() time.Duration {
	for _, t := range h.Terms {
		if t.Since.After(h.began) && t.Since.Before(h.ended) && t.Node != h.id {
			return t.Since.Sub(h.began)
		}
	}
	return 0
}

func (h harm) text(tokens []time.Time) string {
	if len(tokens) == 0 {
		return "none"
	}
	last := tokens[len(tokens)-1]
	if last.Before(h.ended) {
		return fmt.Sprintf("%d, after %.2f s", len(tokens), last.Sub(h.began).Seconds())
	}
	return fmt.Sprintf("%d, %.2f s after the end", len(tokens), last.Sub(h.ended).Seconds())
}
