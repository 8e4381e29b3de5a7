// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package partition

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// A register is a setting that is written with a new number each time.
type register int

const (
	role   register = iota // default_room and allowed_rooms: each write removes the last room
	issuer                 // of the configuration
	key                    // the active version
)

var registers = []register{role, issuer, key}

func (r register) String() string { return [...]string{"role", "issuer", "key"}[r] }

// A result is what is known about a request.
type result int

const (
	done    result = iota // acknowledged
	refused               // certainly not done
	unknown               // no answer, or one that does not say
)

// A request is a client's request and its result.
type request struct {
	node      int       // where it was sent
	call, ret time.Time // when it was sent, and when the answer arrived
	by        string    // the node that made the answer; empty if it does not say
	result    result
	text      string // how it failed
}

// A write sets a register. A deletion is a write to the key register that removes a version.
type write struct {
	request
	register register
	value    int64
	deletion bool
}

// A read is a read of creds: a token has the value of each register.
type read struct {
	request
	values [3]int64  // by register
	signed time.Time // according to the token, in whole seconds
}

// A term is a term of Raft: the node won its election at that time.
type term struct {
	node   string
	number int
	since  time.Time
}

// A history is what all clients did and saw in a scenario.
type history struct {
	initial [3]int64 // by register
	reads   []read
	writes  []write
	terms   []term
}

// lastTerm returns the last term that a node had won at a time; 0 if it never led.
func (h *history) lastTerm(node string, at time.Time) int {
	last := 0
	for _, t := range h.terms {
		if t.node == node && !t.since.After(at) {
			last = max(last, t.number)
		}
	}
	return last
}

// deposed returns a function that reports whether an answer came from a deposed leader:
// before the request was sent, another request was completed in a later term.
func (h *history) deposed() func(request) bool {
	type completion struct {
		at     time.Time
		latest int // the latest term in which a request was completed so far
	}
	var all []completion
	add := func(r request) {
		if r.result == done {
			all = append(all, completion{r.ret, h.lastTerm(r.by, r.ret)})
		}
	}
	for _, w := range h.writes {
		add(w.request)
	}
	for _, r := range h.reads {
		add(r.request)
	}
	slices.SortFunc(all, func(a, b completion) int { return a.at.Compare(b.at) })
	for i := range all[min(1, len(all)):] {
		all[i+1].latest = max(all[i+1].latest, all[i].latest)
	}
	return func(r request) bool {
		before, _ := slices.BinarySearchFunc(all, r.call, func(c completion, at time.Time) int { return c.at.Compare(at) })
		own := h.lastTerm(r.by, r.ret)
		return r.by != "" && own > 0 && before > 0 && all[before-1].latest > own
	}
}

// tokens are the reads that were answered by a token.
func (h *history) tokens() []read {
	return slices.DeleteFunc(slices.Clone(h.reads), func(r read) bool { return r.result != done })
}

// split separates the answers of deposed leaders from the others.
func (h *history) split() (others, deposed []read) {
	isDeposed := h.deposed()
	for _, r := range h.tokens() {
		if isDeposed(r.request) {
			deposed = append(deposed, r)
		} else {
			others = append(others, r)
		}
	}
	return others, deposed
}

// A verdict is the result of checking one register.
type verdict int

const (
	linearizable  verdict = iota
	butForDeposed         // linearizable without the answers of deposed leaders
	violated
	undecided // the check took too long
)

func (v verdict) String() string {
	return [...]string{"linearizable", "linearizable without the answers of a deposed leader", "VIOLATED", "UNDECIDED"}[v]
}

// check says whether a register was linearizable.
func (h *history) check(r register, timeout time.Duration) verdict {
	others, deposed := h.split()
	all := slices.Concat(others, deposed)
	switch h.porcupine(r, all, timeout) {
	case porcupine.Ok:
		return linearizable
	case porcupine.Unknown:
		return undecided
	}
	if len(deposed) == 0 {
		return violated
	}
	switch h.porcupine(r, others, timeout) {
	case porcupine.Ok:
		return butForDeposed
	case porcupine.Unknown:
		return undecided
	}
	return violated
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

func (h *history) porcupine(r register, reads []read, timeout time.Duration) porcupine.CheckResult {
	var ops []porcupine.Operation
	add := func(in input, call, ret int64) {
		ops = append(ops, porcupine.Operation{ClientId: len(ops), Input: in, Call: call, Return: ret})
	}
	seen := map[int64]bool{}
	for _, t := range decisive(r, reads) {
		seen[t.values[r]] = true
		add(input{'r', t.values[r]}, t.call.UnixNano(), t.ret.UnixNano())
	}
	for _, w := range h.writes {
		// A write that was not acknowledged may have been done at any time after it was
		// sent, or never. If nobody saw it, leave it out.
		switch {
		case w.register != r || w.result == refused, w.result == unknown && (w.deletion || !seen[w.value]):
		case w.deletion:
			add(input{'d', w.value}, w.call.UnixNano(), w.ret.UnixNano())
		case w.result == unknown:
			add(input{'w', w.value}, w.call.UnixNano(), math.MaxInt64)
		default:
			add(input{'w', w.value}, w.call.UnixNano(), w.ret.UnixNano())
		}
	}
	return porcupine.CheckOperationsTimeout(model(h.initial[r]), ops, timeout)
}

// decisive returns the reads that decide on a register: for each value, the one that was
// answered first and the one that was sent last. Every value is written once, so the
// register holds it during one span of time. If these two reads fit into the span, so does
// every other read of the value: it was answered after the first, and sent before the last.
// With all reads the check would not end, because hundreds wait at a node that hangs.
func decisive(r register, reads []read) []read {
	first, last := map[int64]read{}, map[int64]read{}
	for _, t := range reads {
		v := t.values[r]
		if f, ok := first[v]; !ok || t.ret.Before(f.ret) {
			first[v] = t
		}
		if l, ok := last[v]; !ok || t.call.After(l.call) {
			last[v] = t
		}
	}
	return slices.AppendSeq(slices.Collect(maps.Values(first)), maps.Values(last))
}

// written returns the writes of a register that may have been done, by value.
func (h *history) written(r register) map[int64]write {
	all := map[int64]write{}
	for _, w := range h.writes {
		if w.register == r && !w.deletion && w.result != refused {
			all[w.value] = w
		}
	}
	return all
}

// outdated reports whether a read returned a value that had been replaced before the read
// was sent: a later write began after the value's own write had ended, and was acknowledged.
func (h *history) outdated(r read, reg register, written map[int64]write) bool {
	own, ok := written[r.values[reg]]
	for _, w := range written {
		after := !ok && w.value != h.initial[reg] || ok && own.result == done && w.call.After(own.ret)
		if after && w.result == done && w.ret.Before(r.call) {
			return true
		}
	}
	return false
}

// backwards finds a node's answer with an older value than in an earlier answer of the same
// node. No node may do that, whether it leads, led or only serves reads.
func (h *history) backwards(r register) string {
	byNode := map[string][]read{}
	for _, t := range h.tokens() {
		byNode[t.by] = append(byNode[t.by], t)
	}
	for node, reads := range byNode {
		if old, ok := h.older(r, reads); ok {
			return fmt.Sprintf("%s answered with %s %d after a newer one", node, r, old.values[r])
		}
	}
	return ""
}

// older finds a read of one node that returned an older value than an earlier read did: the
// write of its value had ended before the write of the other value began.
func (h *history) older(r register, reads []read) (read, bool) {
	written := h.written(r)
	ends := slices.Clone(reads)
	slices.SortFunc(ends, func(a, b read) int { return a.ret.Compare(b.ret) })
	slices.SortFunc(reads, func(a, b read) int { return a.call.Compare(b.call) })
	newest, next := time.Time{}, 0 // when the write of the newest returned value began
	for _, t := range reads {
		for ; next < len(ends) && ends[next].ret.Before(t.call); next++ {
			if w, ok := written[ends[next].values[r]]; ok && w.call.After(newest) {
				newest = w.call
			}
		}
		own, ok := written[t.values[r]]
		if !ok && !newest.IsZero() || ok && own.result == done && own.ret.Before(newest) {
			return t, true
		}
	}
	return read{}, false
}

// deletedKeys returns the tokens whose key's deletion was acknowledged before the answer:
// late has all of them; wrong has those that were also requested after the deletion, and
// not signed by a deposed leader.
func (h *history) deletedKeys() (late, wrong []read) {
	tokens, isDeposed := h.tokens(), h.deposed()
	for _, w := range h.writes {
		if !w.deletion || w.result != done {
			continue
		}
		for _, t := range tokens {
			if t.values[key] != w.value || !t.ret.After(w.ret) {
				continue
			}
			late = append(late, t)
			if t.call.After(w.ret) && !isDeposed(t.request) {
				wrong = append(wrong, t)
			}
		}
	}
	return late, wrong
}

// byLeaders returns the reads that were answered by the node that had won the latest term.
// If standbys serve reads, only these must not lag.
func (h *history) byLeaders() []read {
	return slices.DeleteFunc(slices.Clone(h.reads), func(r read) bool {
		own := h.lastTerm(r.by, r.ret)
		return own == 0 || slices.ContainsFunc(h.terms, func(t term) bool { return t.number > own && !t.since.After(r.ret) })
	})
}

// offenders lists some of the answers that make a register's history not linearizable, to
// help to find the cause.
func (h *history) offenders(reg register) string {
	others, _ := h.split()
	written := h.written(reg)
	text := ""
	for _, r := range others {
		if h.outdated(r, reg, written) && len(text) < 2000 {
			text += fmt.Sprintf("\n%s answered with %d under term %d, asked at %s, answered at %s", r.by, r.values[reg],
				h.lastTerm(r.by, r.ret), r.call.Format(time.StampMilli), r.ret.Format(time.StampMilli))
		}
	}
	return text
}
