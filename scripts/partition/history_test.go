// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package partition

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
)

// at returns a time in an invented history, in milliseconds.
func at(ms int) time.Time {
	return time.Unix(1_700_000_000, 0).Add(time.Duration(ms) * time.Millisecond)
}

func by(node string, from, to int) request {
	return request{call: at(from), ret: at(to), by: node}
}

func roleRead(node string, from, to int, value int64) read {
	return read{request: by(node, from, to), values: [3]int64{role: value}}
}

func roleWrite(node string, from, to int, value int64) write {
	return write{request: by(node, from, to), register: role, value: value}
}

// n0 leads first, n1 from 100 on.
func twoTerms() *history {
	return &history{terms: []term{{"n0", 2, at(0)}, {"n1", 3, at(100)}}}
}

const checkTime = time.Minute

func TestOrdinaryHistory(t *testing.T) {
	h := twoTerms()
	h.writes = []write{roleWrite("n0", 10, 20, 1), roleWrite("n1", 110, 120, 2)}
	h.reads = []read{roleRead("n0", 1, 5, 0), roleRead("n0", 12, 30, 0), roleRead("n0", 25, 30, 1), roleRead("n1", 115, 118, 2), roleRead("n1", 130, 140, 2)}
	require.Equal(t, linearizable, h.check(role, checkTime))
	require.Empty(t, h.backwards(role))
}

// n0 was suspended: it answers with the old value after n1 has acknowledged a new one.
func TestDeposedLeader(t *testing.T) {
	h := twoTerms()
	h.writes = []write{roleWrite("n1", 110, 120, 2)}
	h.reads = []read{roleRead("n1", 121, 125, 2), roleRead("n0", 130, 140, 0)}
	require.Equal(t, butForDeposed, h.check(role, checkTime))
	require.Equal(t, linearizable, h.check(issuer, checkTime))
	_, deposed := h.split()
	require.Len(t, deposed, 1)
	require.True(t, h.outdated(deposed[0], role, h.written(role)))
	require.Empty(t, h.backwards(role))
}

// Which answers come from a deposed leader.
func TestDeposed(t *testing.T) {
	h := twoTerms()
	h.terms = append(h.terms, term{"n0", 4, at(200)})
	h.writes = []write{roleWrite("n1", 110, 120, 2)}
	require.True(t, h.deposed()(by("n0", 130, 140)), "it is elected again later")
	require.False(t, h.deposed()(by("n0", 230, 240)))
	require.False(t, h.deposed()(by("n1", 130, 140)))
	require.False(t, h.deposed()(by("n2", 130, 140)), "it never led")
	require.False(t, h.deposed()(by("n0", 105, 140)), "it was sent before the other answered")
	h.writes[0].result = unknown
	require.False(t, h.deposed()(by("n0", 130, 140)), "nothing was acknowledged under the later term")
}

// The same old answer from the current leader is a fault of the engine, or a lost write.
func TestOldAnswerByTheLeader(t *testing.T) {
	for name, r := range map[string]read{
		"the new leader":                       roleRead("n1", 130, 140, 0),
		"the old one, elected again meanwhile": roleRead("n0", 230, 240, 0),
		"nobody knows which node":              roleRead("", 130, 140, 0),
	} {
		h := twoTerms()
		h.terms = append(h.terms, term{"n0", 4, at(200)})
		h.writes = []write{roleWrite("n1", 110, 120, 2)}
		h.reads = []read{r}
		require.Equal(t, violated, h.check(role, checkTime), name)
	}
}

// An old answer of the first leader, before another node led, is not excused.
func TestOldAnswerBeforeTheElection(t *testing.T) {
	h := twoTerms()
	h.writes = []write{roleWrite("n0", 10, 20, 1)}
	h.reads = []read{roleRead("n0", 30, 40, 0)}
	require.Equal(t, violated, h.check(role, checkTime))
}

func TestLostWrite(t *testing.T) {
	h := twoTerms()
	h.writes = []write{roleWrite("n0", 10, 20, 1)}
	h.reads = []read{roleRead("n0", 21, 25, 1), roleRead("n1", 130, 140, 0)}
	require.Equal(t, violated, h.check(role, checkTime))
}

// An answer with a value that nobody wrote.
func TestInventedValue(t *testing.T) {
	h := twoTerms()
	h.reads = []read{roleRead("n1", 130, 140, 7)}
	require.Equal(t, violated, h.check(role, checkTime))
}

// A write without an answer may be done late, or never. A refused one is never done.
func TestUnknownWrites(t *testing.T) {
	h := twoTerms()
	w := roleWrite("n0", 10, 20, 1)
	w.result = unknown
	h.writes = []write{w}
	h.reads = []read{roleRead("n0", 30, 40, 0), roleRead("n1", 130, 140, 1)}
	require.Equal(t, linearizable, h.check(role, checkTime))
	h.reads = append(h.reads, roleRead("n1", 150, 160, 0))
	require.Equal(t, violated, h.check(role, checkTime), "it was done, and is gone again")
	h.reads = h.reads[:1]
	require.Equal(t, linearizable, h.check(role, checkTime))
	h.writes[0].result = refused
	h.reads = []read{roleRead("n1", 130, 140, 1)}
	require.Equal(t, violated, h.check(role, checkTime))
}

func TestDeletedKeys(t *testing.T) {
	h := twoTerms()
	h.initial[key] = 1
	h.writes = []write{
		{request: by("n1", 110, 120), register: key, value: 2},
		{request: by("n1", 121, 130), register: key, value: 1, deletion: true},
	}
	token := func(node string, from, to int, version int64) read {
		return read{request: by(node, from, to), values: [3]int64{key: version}}
	}
	h.reads = []read{token("n0", 50, 129, 1), token("n0", 50, 131, 1), token("n0", 140, 150, 1), token("n1", 140, 150, 2)}
	late, wrong := h.deletedKeys()
	require.Len(t, late, 2)
	require.Empty(t, wrong)
	require.Equal(t, butForDeposed, h.check(key, checkTime))

	h.reads = append(h.reads, token("n1", 160, 170, 1))
	late, wrong = h.deletedKeys()
	require.Len(t, late, 3)
	require.Len(t, wrong, 1)
	require.Equal(t, violated, h.check(key, checkTime))
}

// The active key can't be deleted.
func TestDeletionOfTheActiveKey(t *testing.T) {
	h := twoTerms()
	h.initial[key] = 1
	h.writes = []write{{request: by("n0", 10, 20), register: key, value: 1, deletion: true}}
	require.Equal(t, violated, h.check(key, checkTime))
}

func TestBackwards(t *testing.T) {
	h := twoTerms()
	h.writes = []write{roleWrite("n0", 10, 20, 2), roleWrite("n0", 30, 40, 1)}
	h.reads = []read{roleRead("n2", 50, 55, 1), roleRead("n0", 60, 65, 2)}
	require.Empty(t, h.backwards(role), "another node may lag")
	h.reads = append(h.reads, roleRead("n2", 60, 65, 2))
	require.Equal(t, "n2 answered with role 2 after a newer one", h.backwards(role))
	h.reads[2] = roleRead("n2", 52, 65, 2)
	require.Empty(t, h.backwards(role), "the two overlap")
	h.reads[2] = roleRead("n2", 60, 65, 0)
	require.NotEmpty(t, h.backwards(role), "the first value of all")
}

// In random histories that are small enough to check with all reads, leaving out reads makes
// no difference.
func TestDecisiveReads(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same histories each time
	verdicts := map[bool]int{}
	for range 3000 {
		h := twoTerms()
		moment := func() (int, int) { from := random.IntN(60); return from, from + 1 + random.IntN(25) }
		ops := []porcupine.Operation{}
		add := func(in input, from, to int) {
			ops = append(ops, porcupine.Operation{ClientId: len(ops), Input: in, Call: at(from).UnixNano(), Return: at(to).UnixNano()})
		}
		writes := 1 + random.IntN(3)
		for value := 1; value <= writes; value++ {
			from, to := moment()
			h.writes = append(h.writes, roleWrite("n0", from, to, int64(value)))
			add(input{'w', int64(value)}, from, to)
		}
		for range 2 + random.IntN(6) {
			from, to := moment()
			value := int64(random.IntN(writes + 1))
			h.reads = append(h.reads, roleRead("n0", from, to, value))
			add(input{'r', value}, from, to)
		}
		want := porcupine.CheckOperations(model(0), ops)
		verdicts[want]++
		require.Equal(t, want, h.check(role, checkTime) == linearizable, "%+v", ops)
	}
	require.Greater(t, verdicts[true], 300)
	require.Greater(t, verdicts[false], 300)
}
