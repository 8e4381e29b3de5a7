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
// its own server. Such answers are reported, and are no fault. Everything else is.
//
// Raft's terms show which answers these are. Every answer names the node that made it (the
// header X-Vault-Raft-Node-ID), and every node's log says which terms it won. An answer
// comes from a deposed leader if, before its request was sent, a node that led in a later
// term had completed a request. Only these answers may be left out of the history. The rest
// must be linearizable: an old answer from the node that led last is a fault of the engine,
// or a lost write.
//
// # Standbys that serve reads
//
// They may lag, so only the leader's answers must be linearizable. What a standby answers
// must not be older than a limit, see [History.TooOld], and no node may go back to an older
// value, see [History.Backwards].
package history

import (
	"fmt"
	"maps"
	"math"
	"slices"
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
	Node      int       // where it was sent
	Call, Ret time.Time // when it was sent, and when the answer arrived
	By        string    // the node that made the answer; empty if it does not say
	Result    Result
	Text      string // how it failed
}

// A Write sets a register. A deletion is a write to the key register that removes a version.
type Write struct {
	Request

	Register Register
	Value    int64
	Deletion bool
}

// None is the value of a register that an answer does not have.
const None = -1

// A Read is a read of creds, whose token has the value of each register, or a read of
// config, which has no role.
type Read struct {
	Request

	Values [3]int64 // by register
}

// Token reports whether the read was one of creds that was answered.
func (r Read) Token() bool { return r.Result == Done && r.Values[Role] != None }

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
	Initial [3]int64 // by register
	Reads   []Read
	Writes  []Write
	Terms   []Term
	Starts  []Start // of nodes that ended meanwhile
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

// deposed returns a function that reports whether an answer came from a deposed leader:
// before the request was sent, another request was completed in a later term.
func (h *History) deposed() func(Request) bool {
	type completion struct {
		at     time.Time
		latest int // the latest term in which a request was completed so far
	}
	var all []completion
	add := func(r Request) {
		if r.Result == Done {
			all = append(all, completion{r.Ret, h.LastTerm(r.By, r.Ret)})
		}
	}
	for _, w := range h.Writes {
		add(w.Request)
	}
	for _, r := range h.Reads {
		add(r.Request)
	}
	slices.SortFunc(all, func(a, b completion) int { return a.at.Compare(b.at) })
	for i := range all[min(1, len(all)):] {
		all[i+1].latest = max(all[i+1].latest, all[i].latest)
	}
	return func(r Request) bool {
		before, _ := slices.BinarySearchFunc(all, r.Call, func(c completion, at time.Time) int { return c.at.Compare(at) })
		own := h.LastTerm(r.By, r.Ret)
		return r.By != "" && own > 0 && before > 0 && all[before-1].latest > own
	}
}

// answered are the reads that were answered.
func (h *History) answered() []Read {
	return slices.DeleteFunc(slices.Clone(h.Reads), func(r Read) bool { return r.Result != Done })
}

// split separates the answers of deposed leaders from the others.
func (h *History) split() (others, deposed []Read) {
	isDeposed := h.deposed()
	for _, r := range h.answered() {
		if isDeposed(r.Request) {
			deposed = append(deposed, r)
		} else {
			others = append(others, r)
		}
	}
	return others, deposed
}

// ByLeaders returns the history with only those answers that the node with the latest term
// gave.
func (h *History) ByLeaders() *History {
	judged := *h
	judged.Reads = slices.DeleteFunc(slices.Clone(h.Reads), func(r Read) bool {
		own := h.LastTerm(r.By, r.Ret)
		return own == 0 || slices.ContainsFunc(h.Terms, func(t Term) bool { return t.Number > own && !t.Since.After(r.Ret) })
	})
	return &judged
}

// A Verdict is the result of checking one register.
type Verdict int

// The verdicts.
const (
	Linearizable  Verdict = iota
	ButForDeposed         // linearizable without the answers of deposed leaders
	Violated
	Undecided // the check took too long
)

func (v Verdict) String() string {
	return [...]string{"linearizable", "linearizable without the answers of a deposed leader", "VIOLATED", "UNDECIDED"}[v]
}

// Check says whether a register was linearizable.
func (h *History) Check(r Register, timeout time.Duration) Verdict {
	others, deposed := h.split()
	switch h.porcupine(r, slices.Concat(others, deposed), timeout) {
	case porcupine.Ok:
		return Linearizable
	case porcupine.Unknown:
		return Undecided
	}
	if len(deposed) == 0 {
		return Violated
	}
	switch h.porcupine(r, others, timeout) {
	case porcupine.Ok:
		return ButForDeposed
	case porcupine.Unknown:
		return Undecided
	}
	return Violated
}

// An input is one operation of a register, for the model.
type input struct {
	kind  byte // 'r', 'w' or 'd'
	value int64
}

// model is a register that holds the last value written. The active key can't be deleted,
// so a deletion is possible only while the register holds another value.
func model(initial int64) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return initial },
		Step: func(state, in, _ any) (bool, any) {
			op := in.(input)
			switch op.kind {
			case 'w':
				return true, op.value
			case 'd':
				return state != op.value, state
			}
			return state == op.value, state
		},
	}
}

func (h *History) porcupine(r Register, reads []Read, timeout time.Duration) porcupine.CheckResult {
	var ops []porcupine.Operation
	add := func(in input, call, ret int64) {
		ops = append(ops, porcupine.Operation{ClientId: len(ops), Input: in, Call: call, Return: ret})
	}
	seen := map[int64]bool{}
	for _, t := range decisive(r, reads) {
		seen[t.Values[r]] = true
		add(input{'r', t.Values[r]}, t.Call.UnixNano(), t.Ret.UnixNano())
	}
	for _, w := range h.Writes {
		// A write that was not acknowledged may have been done at any time after it was
		// sent, or never. If nobody saw it, leave it out.
		switch {
		case w.Register != r || w.Result == Refused, w.Result == Unknown && (w.Deletion || !seen[w.Value]):
		case w.Deletion:
			add(input{'d', w.Value}, w.Call.UnixNano(), w.Ret.UnixNano())
		case w.Result == Unknown:
			add(input{'w', w.Value}, w.Call.UnixNano(), math.MaxInt64)
		default:
			add(input{'w', w.Value}, w.Call.UnixNano(), w.Ret.UnixNano())
		}
	}
	return porcupine.CheckOperationsTimeout(model(h.Initial[r]), ops, timeout)
}

// decisive returns the reads that decide on a register: for each value, the one that was
// answered first and the one that was sent last. Every value is written once, so the
// register holds it during one span of time. If these two reads fit into the span, so does
// every other read of the value: it was answered after the first, and sent before the last.
// With all reads the check would not end, because hundreds wait at a node that hangs.
func decisive(r Register, reads []Read) []Read {
	first, last := map[int64]Read{}, map[int64]Read{}
	for _, t := range reads {
		v := t.Values[r]
		if v == None {
			continue
		}
		if f, ok := first[v]; !ok || t.Ret.Before(f.Ret) {
			first[v] = t
		}
		if l, ok := last[v]; !ok || t.Call.After(l.Call) {
			last[v] = t
		}
	}
	return slices.AppendSeq(slices.Collect(maps.Values(first)), maps.Values(last))
}

// written returns the writes of a register that may have been done, by value.
func (h *History) written(r Register) map[int64]Write {
	all := map[int64]Write{}
	for _, w := range h.Writes {
		if w.Register == r && !w.Deletion && w.Result != Refused {
			all[w.Value] = w
		}
	}
	return all
}

// outdated reports whether a later write began after the value's own write had ended, and
// was acknowledged longer than a time before the read was sent.
func (h *History) outdated(r Read, reg Register, written map[int64]Write, longer time.Duration) bool {
	if r.Values[reg] == None {
		return false
	}
	own, ok := written[r.Values[reg]]
	for _, w := range written {
		after := !ok && w.Value != h.Initial[reg] || ok && own.Result == Done && w.Call.After(own.Ret)
		if after && w.Result == Done && w.Ret.Add(longer).Before(r.Call) {
			return true
		}
	}
	return false
}

// TooOld finds an answer with a value that was replaced longer than a time ago, among the
// reads sent before from or after to. Between them nodes may miss changes.
func (h *History) TooOld(reg Register, longer time.Duration, from, to time.Time) string {
	written := h.written(reg)
	for _, r := range h.answered() {
		if (r.Call.Before(from) || r.Call.After(to)) && h.outdated(r, reg, written, longer) {
			return fmt.Sprintf("%s answered with %s %d, which was replaced longer than %s before: asked at %s, answered at %s",
				r.By, reg, r.Values[reg], longer, r.Call.Format(time.StampMilli), r.Ret.Format(time.StampMilli))
		}
	}
	return ""
}

// Backwards finds a node's answer with an older value than in an earlier answer of the same
// node, since it was started. No node may do that, whether it leads, led or only serves
// reads.
func (h *History) Backwards(r Register) string {
	type run struct {
		node   string
		starts int // how often it was started before
	}
	byRun := map[run][]Read{}
	for _, t := range h.answered() {
		if t.Values[r] == None {
			continue
		}
		of := run{node: t.By}
		for _, s := range h.Starts {
			if s.Node == t.By && !s.At.After(t.Ret) {
				of.starts++
			}
		}
		byRun[of] = append(byRun[of], t)
	}
	for of, reads := range byRun {
		if old, ok := h.older(r, reads); ok {
			return fmt.Sprintf("%s answered with %s %d after a newer one", of.node, r, old.Values[r])
		}
	}
	return ""
}

// older finds a read of one node that returned an older value than an earlier read did: the
// write of its value had ended before the write of the other value began.
func (h *History) older(r Register, reads []Read) (Read, bool) {
	written := h.written(r)
	ends := slices.Clone(reads)
	slices.SortFunc(ends, func(a, b Read) int { return a.Ret.Compare(b.Ret) })
	slices.SortFunc(reads, func(a, b Read) int { return a.Call.Compare(b.Call) })
	newest, next := time.Time{}, 0 // when the write of the newest returned value began
	for _, t := range reads {
		for ; next < len(ends) && ends[next].Ret.Before(t.Call); next++ {
			if w, ok := written[ends[next].Values[r]]; ok && w.Call.After(newest) {
				newest = w.Call
			}
		}
		own, ok := written[t.Values[r]]
		if !ok && !newest.IsZero() || ok && own.Result == Done && own.Ret.Before(newest) {
			return t, true
		}
	}
	return Read{}, false
}

// LateTokens returns the tokens whose key's deletion was acknowledged before the answer, and
// how long after it the last of them came. Each was signed before the deletion or by a
// deposed leader, or the key's register is not linearizable.
func (h *History) LateTokens() (late []Read, latest time.Duration) {
	answered := h.answered()
	for _, w := range h.Writes {
		if !w.Deletion || w.Result != Done {
			continue
		}
		for _, t := range answered {
			if t.Token() && t.Values[Key] == w.Value && t.Ret.After(w.Ret) {
				late = append(late, t)
				latest = max(latest, t.Ret.Sub(w.Ret))
			}
		}
	}
	return late, latest
}
