// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package history

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

func by(node string, from, to int) Request {
	return Request{Call: at(from), Ret: at(to), By: node}
}

func roleRead(node string, from, to int, value int64) Read {
	return Read{Request: by(node, from, to), Values: [3]int64{Role: value}}
}

func roleWrite(node string, from, to int, value int64) Write {
	return Write{Request: by(node, from, to), Register: Role, Value: value}
}

// n0 leads first, n1 from 100 on.
func twoTerms() *History {
	return &History{Terms: []Term{{"n0", 2, at(0)}, {"n1", 3, at(100)}}}
}

const checkTime = time.Minute

func TestOrdinaryHistory(t *testing.T) {
	h := twoTerms()
	h.Writes = []Write{roleWrite("n0", 10, 20, 1), roleWrite("n1", 110, 120, 2)}
	h.Reads = []Read{roleRead("n0", 1, 5, 0), roleRead("n0", 12, 30, 0), roleRead("n0", 25, 30, 1), roleRead("n1", 115, 118, 2), roleRead("n1", 130, 140, 2)}
	require.Equal(t, Linearizable, h.Check(Role, checkTime))
	require.Empty(t, h.Backwards(Role))
}

// n0 was suspended: it answers with the old value after n1 has acknowledged a new one.
func TestDeposedLeader(t *testing.T) {
	h := twoTerms()
	h.Writes = []Write{roleWrite("n1", 110, 120, 2)}
	h.Reads = []Read{roleRead("n1", 121, 125, 2), roleRead("n0", 130, 140, 0)}
	require.Equal(t, ButForDeposed, h.Check(Role, checkTime))
	require.Equal(t, Linearizable, h.Check(Issuer, checkTime))
	_, deposed := h.split()
	require.Len(t, deposed, 1)
	require.Empty(t, h.Backwards(Role))
}

// Which answers come from a deposed leader.
func TestDeposed(t *testing.T) {
	h := twoTerms()
	h.Terms = append(h.Terms, Term{"n0", 4, at(200)})
	h.Writes = []Write{roleWrite("n1", 110, 120, 2)}
	require.True(t, h.deposed()(by("n0", 130, 140)), "it is elected again later")
	require.False(t, h.deposed()(by("n0", 230, 240)))
	require.False(t, h.deposed()(by("n1", 130, 140)))
	require.False(t, h.deposed()(by("n2", 130, 140)), "it never led")
	require.False(t, h.deposed()(by("n0", 105, 140)), "it was sent before the other answered")
	h.Writes[0].Result = Unknown
	require.False(t, h.deposed()(by("n0", 130, 140)), "nothing was acknowledged under the later term")
}

// A deposed leader does not explain these: they are faults of the engine, or lost writes.
func TestViolations(t *testing.T) {
	before, after := []Write{roleWrite("n0", 10, 20, 1)}, []Write{roleWrite("n1", 110, 120, 2)}
	for name, test := range map[string]struct {
		writes []Write
		reads  []Read
	}{
		"an old answer of the new leader":             {after, []Read{roleRead("n1", 130, 140, 0)}},
		"an old answer of the old one, elected again": {after, []Read{roleRead("n0", 230, 240, 0)}},
		"an old answer of nobody knows which node":    {after, []Read{roleRead("", 130, 140, 0)}},
		"an old answer before another node led":       {before, []Read{roleRead("n0", 30, 40, 0)}},
		"a value that is gone again":                  {before, []Read{roleRead("n0", 21, 25, 1), roleRead("n1", 130, 140, 0)}},
		"a value that nobody wrote":                   {nil, []Read{roleRead("n1", 130, 140, 7)}},
	} {
		h := twoTerms()
		h.Terms = append(h.Terms, Term{"n0", 4, at(200)})
		h.Writes, h.Reads = test.writes, test.reads
		require.Equal(t, Violated, h.Check(Role, checkTime), name)
	}
	h := twoTerms()
	h.Initial[Key] = 1
	h.Writes = []Write{{Request: by("n0", 10, 20), Register: Key, Value: 1, Deletion: true}}
	require.Equal(t, Violated, h.Check(Key, checkTime), "the active key can't be deleted")
}

// A write without an answer may be done late, or never. A refused one is never done.
func TestUnknownWrites(t *testing.T) {
	h := twoTerms()
	w := roleWrite("n0", 10, 20, 1)
	w.Result = Unknown
	h.Writes = []Write{w}
	h.Reads = []Read{roleRead("n0", 30, 40, 0), roleRead("n1", 130, 140, 1)}
	require.Equal(t, Linearizable, h.Check(Role, checkTime))
	h.Reads = append(h.Reads, roleRead("n1", 150, 160, 0))
	require.Equal(t, Violated, h.Check(Role, checkTime), "it was done, and is gone again")
	h.Reads = h.Reads[:1]
	require.Equal(t, Linearizable, h.Check(Role, checkTime))
	h.Writes[0].Result = Refused
	h.Reads = []Read{roleRead("n1", 130, 140, 1)}
	require.Equal(t, Violated, h.Check(Role, checkTime))
}

func TestDeletedKeys(t *testing.T) {
	h := twoTerms()
	h.Initial[Key] = 1
	h.Writes = []Write{
		{Request: by("n1", 110, 120), Register: Key, Value: 2},
		{Request: by("n1", 121, 130), Register: Key, Value: 1, Deletion: true},
	}
	token := func(node string, from, to int, version int64) Read {
		return Read{Request: by(node, from, to), Values: [3]int64{Key: version}}
	}
	h.Reads = []Read{token("n0", 50, 129, 1), token("n0", 50, 131, 1), token("n0", 140, 150, 1), token("n1", 140, 150, 2)}
	late, latest := h.LateTokens()
	require.Len(t, late, 2)
	require.Equal(t, 20*time.Millisecond, latest)
	require.Equal(t, ButForDeposed, h.Check(Key, checkTime))

	h.Reads = append(h.Reads, token("n1", 160, 170, 1))
	require.Equal(t, Violated, h.Check(Key, checkTime), "a leader signed with a deleted key")
}

func TestBackwards(t *testing.T) {
	h := twoTerms()
	h.Writes = []Write{roleWrite("n0", 10, 20, 2), roleWrite("n0", 30, 40, 1)}
	h.Reads = []Read{roleRead("n2", 50, 55, 1), roleRead("n0", 60, 65, 2)}
	require.Empty(t, h.Backwards(Role), "another node may lag")
	h.Reads = append(h.Reads, roleRead("n2", 60, 65, 2))
	require.Equal(t, "n2 answered with role 2 after a newer one", h.Backwards(Role))
	h.Reads[2] = roleRead("n2", 52, 65, 2)
	require.Empty(t, h.Backwards(Role), "the two overlap")
	h.Reads[2] = roleRead("n2", 60, 65, 0)
	require.NotEmpty(t, h.Backwards(Role), "the first value of all")
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
			h.Writes = append(h.Writes, roleWrite("n0", from, to, int64(value)))
			add(input{'w', int64(value)}, from, to)
		}
		for range 2 + random.IntN(6) {
			from, to := moment()
			value := int64(random.IntN(writes + 1))
			h.Reads = append(h.Reads, roleRead("n0", from, to, value))
			add(input{'r', value}, from, to)
		}
		want := porcupine.CheckOperations(model(0), ops)
		verdicts[want]++
		require.Equal(t, want, h.Check(Role, checkTime) == Linearizable, "%+v", ops)
	}
	require.Greater(t, verdicts[true], 300)
	require.Greater(t, verdicts[false], 300)
}

// A standby that serves reads may lag, but not for longer than the limit, except while a
// node is away.
func TestTooOld(t *testing.T) {
	h := twoTerms()
	h.Writes = []Write{roleWrite("n0", 10, 20, 1)}
	h.Reads = []Read{roleRead("n2", 60, 65, 0)}
	longer := func(ms int, from, to int) string {
		return h.TooOld(Role, time.Duration(ms)*time.Millisecond, at(from), at(to))
	}
	require.Empty(t, longer(50, 200, 200))
	require.Contains(t, longer(30, 200, 200), "n2 answered with role 0, which was replaced longer than 30ms before")
	require.Empty(t, longer(30, 50, 70), "a node was away")
	h.Reads[0].Values[Role] = 1
	require.Empty(t, longer(30, 200, 200))
}

// A restarted node may know less than before. From then on it must not go back either.
func TestBackwardsAfterAStart(t *testing.T) {
	h := twoTerms()
	h.Writes = []Write{roleWrite("n0", 10, 20, 1), roleWrite("n0", 30, 40, 2)}
	h.Reads = []Read{roleRead("n2", 50, 55, 2), roleRead("n2", 70, 75, 1)}
	require.NotEmpty(t, h.Backwards(Role))
	h.Starts = []Start{{"n2", at(60)}}
	require.Empty(t, h.Backwards(Role))
	h.Reads = append(h.Reads, roleRead("n2", 80, 85, 0))
	require.NotEmpty(t, h.Backwards(Role))
}

// What config reads is a read of the same registers, but of no role.
func TestConfigReads(t *testing.T) {
	h := twoTerms()
	w := Write{Request: by("n0", 10, 20), Register: Key, Value: 2}
	w.Result = Unknown
	h.Writes = []Write{w}
	token := Read{Request: by("n0", 50, 55), Values: [3]int64{Key: 0}}
	require.True(t, token.Token())
	h.Reads = []Read{token}
	require.Equal(t, Linearizable, h.Check(Key, checkTime), "nobody saw the write")
	config := Read{Request: by("n0", 30, 35), Values: [3]int64{Role: None, Key: 2}}
	require.False(t, config.Token())
	h.Reads = []Read{config, token}
	require.Equal(t, Violated, h.Check(Key, checkTime), "tokens must be what config says")
	require.Equal(t, Linearizable, h.Check(Role, checkTime))
}

func TestByLeaders(t *testing.T) {
	h := twoTerms()
	h.Reads = []Read{roleRead("n0", 10, 20, 0), roleRead("n2", 10, 20, 0), roleRead("n0", 130, 140, 0), roleRead("n1", 130, 140, 0)}
	require.Equal(t, []Read{h.Reads[0], h.Reads[3]}, h.ByLeaders().Reads)
}
