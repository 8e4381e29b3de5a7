// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Package history judges what the clients of a cluster did and saw.
//
// Writers set a role, the issuer and the active key to a new number each time, and delete
// old keys. Readers read tokens and the configuration. The start and the end of every
// request are recorded. The history must be linearizable: one register each for role, issuer
// and key.
//
// # A deposed leader
//
// A leader may still answer for a moment after another node was elected, because it does not
// know that yet. No engine can prevent that: everything that an engine can ask comes from
// its own server. So such an answer is judged as if it was asked for at that election: it must
// know what was written before. If standbys serve reads, it is not judged, see
// [History.ByLeaders]. Any older answer is a fault of the engine, or a lost write.
//
// # Standbys that serve reads
//
// They may lag, but not longer than a limit, see [History.Check], and no node may go back to
// an older value, see [History.Backwards].
package history

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// A Register is a setting that is written with a new number each time.
type Register int

// The registers.
const (
	Role   Register = iota // default_room and allowed_rooms: each write removes the last room
	Issuer                 // of the configuration
	Key                    // the active version
)

// Registers are all of them.
var Registers = []Register{Role, Issuer, Key}

func (r Register) String() string { return [...]string{"role", "issuer", "key"}[r] }

// None is the value of a register that a request does not have.
const None = -1

// Values are those of each register.
type Values [3]int64

// Only returns the values of a request that has only one register.
func Only(r Register, value int64) Values {
	v := Values{None, None, None}
	v[r] = value
	return v
}

// A Kind is what a request does.
type Kind byte

// The kinds.
const (
	Read     Kind = iota // of creds, whose token has every register, or of config, which has no role
	Write                // of one register
	Deletion             // of a key version
)

// A Result is what is known about a request.
type Result int

// The results.
const (
	Done    Result = iota // acknowledged
	Refused               // certainly not done
	Unknown               // no answer, or one that does not say
)

// A Request is a client's request and its result.
type Request struct {
	Kind      Kind
	Values    Values
	Node      int       // where it was sent
	Call, Ret time.Time // when it was sent, and when the answer arrived
	By        string    // the node that made the answer; empty if it does not say
	Result    Result
	Text      string // how it failed
}

// Token reports whether the request got a token.
func (r Request) Token() bool { return r.Kind == Read && r.Result == Done && r.Values[Role] != None }

// Deleted reports whether a key version was deleted.
func (r Request) Deleted() bool { return r.Kind == Deletion && r.Result == Done }

// A Term is a term of Raft: the node won its election at that time.
type Term struct {
	Node   string
	Number int
	Since  time.Time
}

// A Start is a node's start, after which it does not know its earlier answers.
type Start struct {
	Node string
	At   time.Time
}

// A History is what all clients did and saw.
type History struct {
	Initial  Values
	Requests []Request
	Terms    []Term
	Starts   []Start // of nodes that ended meanwhile

	// Killed is when the leader's plugin was killed; zero if it was not. Vault sends what it had
	// in work to the next process again, so a write may be done twice, before and after another.
	Killed time.Time
}

// LastTerm returns the last term that a node had won at a time; 0 if it never led.
func (h *History) LastTerm(node string, at time.Time) int {
	last := 0
	for _, t := range h.Terms {
		if t.Node == node && !t.Since.After(at) {
			last = max(last, t.Number)
		}
	}
	return last
}

// Answers returns the reads that were answered, and that the function chooses.
func (h *History) Answers(choose func(Request) bool) []Request {
	return slices.DeleteFunc(slices.Clone(h.Requests), func(r Request) bool {
		return r.Kind != Read || r.Result != Done || !choose(r)
	})
}

// ByLeaders returns the answers of nodes that led: no other node had won a later term when
// the answer arrived. An answer that does not say who made it counts, too.
func (h *History) ByLeaders() []Request {
	return h.Answers(func(r Request) bool {
		own := h.LastTerm(r.By, r.Ret)
		return r.By == "" || !slices.ContainsFunc(h.Terms, func(t Term) bool { return t.Number > own && !t.Since.After(r.Ret) })
	})
}

// patience is for one check.
const patience = time.Minute

// Check finds the first of the answers that does not fit, if the register is not
// linearizable. Each answer may be older by lag. The text is empty if all is well.
func (h *History) Check(reg Register, answers []Request, lag time.Duration) string {
	result := h.check(reg, decisive(reg, answers), lag)
	if result == porcupine.Ok {
		return ""
	}
	slices.SortFunc(answers, func(a, b Request) int { return a.Ret.Compare(b.Ret) })
	first := sort.Search(len(answers), func(n int) bool { return h.check(reg, decisive(reg, answers[:n]), lag) != porcupine.Ok })
	if first == 0 {
		return fmt.Sprintf("%s: the writes alone are %s", reg, result)
	}
	r := answers[first-1]
	return fmt.Sprintf("%s: %s: %s answered with %d: asked at %s, answered at %s",
		reg, result, r.By, r.Values[reg], r.Call.Format(time.StampMilli), r.Ret.Format(time.StampMilli))
}

// model is a register that holds the last value written. The active key can't be deleted,
// so a deletion is possible only while the register holds another value.
func model(initial int64) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return initial },
		Step: func(state, in, value any) (bool, any) {
			switch in.(Kind) {
			case Write:
				return true, value
			case Deletion:
				return state != value, state
			}
			return state == value, state
		},
	}
}

func (h *History) check(reg Register, answers []Request, lag time.Duration) porcupine.CheckResult {
	var ops []porcupine.Operation
	add := func(r Request, call, ret int64) {
		ops = append(ops, porcupine.Operation{ClientId: len(ops), Input: r.Kind, Output: r.Values[reg], Call: call, Return: ret})
	}
	seen := map[int64]bool{}
	for _, r := range answers {
		seen[r.Values[reg]] = true
		add(r, r.Call.Add(-lag).UnixNano(), r.Ret.UnixNano())
	}
	for _, r := range h.Requests {
		switch {
		case r.Kind == Read || r.Values[reg] == None || r.Result == Refused:
		case r.Result == Done:
			add(r, r.Call.UnixNano(), r.Ret.UnixNano())
			if r.Call.Before(h.Killed) && h.Killed.Before(r.Ret) {
				add(r, r.Call.UnixNano(), r.Ret.UnixNano())
			}
		case r.Kind == Write && seen[r.Values[reg]]:
			// It may have been done at any time after it was sent. If nobody saw it, it is
			// left out.
			add(r, r.Call.UnixNano(), math.MaxInt64)
		}
	}
	return porcupine.CheckOperationsTimeout(model(h.Initial[reg]), ops, patience)
}

// decisive returns the answers that decide on a register: for each value, the one that
// arrived first and the one that was asked for last. Every value is written once, so the
// register holds it during one span of time. If these two fit into the span, so does every
// other answer with the value: it arrived after the first, and was asked for before the
// last. With all of them the check would not end, because hundreds wait at a node that hangs.
func decisive(reg Register, answers []Request) []Request {
	first, last := map[int64]Request{}, map[int64]Request{}
	for _, r := range answers {
		v := r.Values[reg]
		if v == None {
			continue
		}
		if f, ok := first[v]; !ok || r.Ret.Before(f.Ret) {
			first[v] = r
		}
		if l, ok := last[v]; !ok || r.Call.After(l.Call) {
			last[v] = r
		}
	}
	return slices.AppendSeq(slices.Collect(maps.Values(first)), maps.Values(last))
}

// A run is a node between two of its starts.
type run struct {
	node   string
	starts int // how often it was started before
}

// runs returns the answers of each run.
func (h *History) runs() map[run][]Request {
	runs := map[run][]Request{}
	for _, r := range h.Answers(func(Request) bool { return true }) {
		of := run{node: r.By}
		for _, s := range h.Starts {
			if s.Node == r.By && !s.At.After(r.Ret) {
				of.starts++
			}
		}
		runs[of] = append(runs[of], r)
	}
	return runs
}

// Backwards finds a node's answer with an older value than in an earlier answer of the same
// node, since it was started. No node may do that, whether it leads, led or only serves
// reads.
func (h *History) Backwards(reg Register) string {
	written := map[int64]Request{} // a value that nobody wrote is as old as the first
	for _, r := range h.Requests {
		if r.Kind == Write && r.Values[reg] != None && r.Result != Refused {
			written[r.Values[reg]] = r
		}
	}
	for of, answers := range h.runs() {
		answers = decisive(reg, answers)
		for _, a := range answers {
			for _, b := range answers {
				newer, older := written[a.Values[reg]], written[b.Values[reg]]
				if a.Ret.Before(b.Call) && older.Result == Done && older.Ret.Before(newer.Call) {
					return fmt.Sprintf("%s answered with %s %d after %d, which is newer", of.node, reg, b.Values[reg], a.Values[reg])
				}
			}
		}
	}
	return ""
}
