// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package history

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
)

// at returns a time in an invented history, in milliseconds.
func at(ms int) time.Time {
	return time.Unix(1_700_000_000, 0).Add(time.Duration(ms) * time.Millisecond)
}

// request is one about the key.
func request(kind Kind, node string, from, to int, value int64) Request {
	return Request{Kind: kind, Values: Only(Key, value), Call: at(from), Ret: at(to), By: node}
}

func read(node string, from, to int, value int64) Request {
	return request(Read, node, from, to, value)
}

func write(node string, from, to int, value int64) Request {
	return request(Write, node, from, to, value)
}

func with(result Result, r Request) Request {
	r.Result = result
	return r
}

// n0 leads first, n1 from 100 on, n0 again from 200 on. n2 was started at 300.
func of(requests ...Request) *History {
	return &History{
		Requests: requests, Starts: []Start{{"n2", at(300)}},
		Terms: []Term{{"n0", 2, at(0)}, {"n1", 3, at(100)}, {"n0", 4, at(200)}},
	}
}

// Which answers of leaders are refused: a deposed leader does not explain them, so they are
// faults of the engine, or lost writes.
func TestCheck(t *testing.T) {
	before, after := write("n0", 10, 20, 1), write("n1", 110, 120, 2)
	unknown, deletion := with(Unknown, before), request(Deletion, "n0", 21, 29, 0)
	for name, test := range map[string]struct {
		fits     bool
		requests []Request
	}{
		"an ordinary history":                     {true, []Request{before, read("n0", 1, 5, 0), read("n0", 12, 30, 0), read("n0", 25, 30, 1), after, read("n1", 130, 140, 2)}},
		"a deposed leader":                        {true, []Request{after, read("n1", 121, 125, 2), read("n0", 130, 140, 0)}},
		"an old answer of the new leader":         {false, []Request{after, read("n1", 130, 140, 0)}},
		"an old answer of a leader elected again": {false, []Request{after, read("n0", 230, 240, 0)}},
		"an old answer of an unknown node":        {false, []Request{after, read("", 130, 140, 0)}},
		"a write without an answer, done late":    {true, []Request{unknown, read("n0", 30, 40, 0), read("n1", 130, 140, 1)}},
		"a write without an answer, gone again":   {false, []Request{unknown, read("n0", 30, 40, 1), read("n1", 130, 140, 0)}},
		"a refused write that was done":           {false, []Request{with(Refused, before), read("n0", 30, 40, 1)}},
		"a deletion":                              {true, []Request{before, deletion, read("n0", 40, 50, 1)}},
		"a deletion of the active key":            {false, []Request{deletion}},
	} {
		h := of(test.requests...)
		require.Equal(t, test.fits, h.Check(Key, h.ByLeaders(), 0) == "", name)
		require.Empty(t, h.Check(Role, h.ByLeaders(), 0), "none has a role: %s", name)
	}
	h := of(write("n0", 10, 60, 1), write("n0", 11, 40, 2), read("n0", 20, 25, 1), read("n0", 42, 45, 2), read("n0", 61, 65, 1))
	require.NotEmpty(t, h.Check(Key, h.ByLeaders(), 0))
	h.Killed = at(30)
	require.Empty(t, h.Check(Key, h.ByLeaders(), 0), "the next plugin gets a write again")
	h.Killed = at(60)
	require.NotEmpty(t, h.Check(Key, h.ByLeaders(), 0), "the write had its answer")

	h = of(after, read("n1", 130, 140, 0), read("n1", 150, 160, 2))
	require.Contains(t, h.Check(Key, h.ByLeaders(), 0), "key: Illegal: n1 answered with 0: asked at ")

	// A standby that serves reads may lag, but not for longer than the limit.
	h = of(write("n0", 10, 20, 1), read("n2", 60, 65, 0))
	require.Empty(t, h.Check(Key, h.Requests[1:], 50*time.Millisecond))
	require.NotEmpty(t, h.Check(Key, h.Requests[1:], 30*time.Millisecond))
}

// Another node may lag, and a restarted one may know less than before.
func TestBackwards(t *testing.T) {
	first, second := write("n0", 10, 20, 2), write("n0", 30, 40, 1)
	for name, test := range map[string]struct {
		backwards bool
		requests  []Request
	}{
		"another node":                     {false, []Request{read("n2", 50, 55, 1), read("n0", 60, 65, 2)}},
		"an older value":                   {true, []Request{read("n2", 50, 55, 1), read("n2", 60, 65, 2)}},
		"the first value of all":           {true, []Request{read("n2", 50, 55, 1), read("n2", 60, 65, 0)}},
		"answers at the same time":         {false, []Request{read("n2", 50, 55, 1), read("n2", 52, 65, 2)}},
		"a restarted node":                 {false, []Request{read("n2", 50, 55, 1), read("n2", 310, 315, 2)}},
		"a restarted node that goes back":  {true, []Request{read("n2", 310, 315, 1), read("n2", 320, 325, 2)}},
		"another order is not known to be": {false, []Request{with(Unknown, write("n0", 5, 9, 3)), read("n2", 50, 55, 1), read("n2", 60, 65, 3)}},
	} {
		require.Equal(t, test.backwards, of(append(test.requests, first, second)...).Backwards(Key) != "", name)
	}
}

// In random histories that are small enough to check with all reads, leaving out reads makes
// no difference.
func TestDecisive(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same histories each time
	results := map[porcupine.CheckResult]int{}
	for range 3000 {
		var all []Request
		add := func(kind Kind, value int64) {
			from := random.IntN(60)
			all = append(all, request(kind, "n0", from, from+1+random.IntN(25), value))
		}
		writes := 1 + random.Int64N(3)
		for value := range writes {
			add(Write, value+1)
		}
		for range 2 + random.IntN(6) {
			add(Read, random.Int64N(writes+1))
		}
		h := of(all...)
		reads := slices.Clone(all[writes:])
		want := h.check(Key, reads, 0)
		results[want]++
		require.Equal(t, want, h.check(Key, decisive(Key, reads), 0), "%+v", all)
	}
	require.Greater(t, results[porcupine.Ok], 300)
	require.Greater(t, results[porcupine.Illegal], 300)
}
