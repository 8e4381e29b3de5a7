// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/rsa"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A write that its caller abandons is not overtaken by a reader that keeps the old entry,
// and subscribers learn of it, too.
func TestAbandonedWrites(t *testing.T) {
	for path, data := range map[string]map[string]any{"config": {fieldActiveKey: 2}, "roles/support": {fieldAllowedRooms: "lobby"}} {
		m := configured(t)
		m.stageSecond()
		m.events.take()
		read := func() *logical.Response {
			resp, err := m.do(operations(t)["creds read"])
			assert.NoError(t, err)
			return resp
		}
		before, write := read(), newGate("put "+path)
		m.storage.gate = write
		ctx, abandon := context.WithCancel(t.Context())
		abandoned := make(chan error)
		go func() {
			_, err := m.callIn(ctx, operation{logical.UpdateOperation, path, data})
			abandoned <- err
		}()
		<-write.reached
		abandon()
		require.Error(t, <-abandoned, path)
		time.Sleep(20 * time.Millisecond) // the engine learns of it a moment later

		// What a reader needs is not cached, so that it loads the old entry, or waits.
		var others sync.WaitGroup
		others.Go(func() { m.wire.InvalidateKey(t.Context(), path) })
		time.Sleep(20 * time.Millisecond)
		others.Go(func() { read() })
		time.Sleep(20 * time.Millisecond)
		close(write.proceed)
		others.Wait()
		told := func() bool { return strings.Contains(strings.Join(m.events.take(), "\n"), " path="+path) }
		require.Eventually(t, told, 10*time.Second, 10*time.Millisecond, path)
		require.NotEqual(t, before, read(), path)
	}
}

// A failed write drops what it may have changed: storage may have it all the same.
func TestFailedWritesDropWhatTheyMayHaveChanged(t *testing.T) {
	m := configured(t)
	m.stageSecond()
	m.creds()
	m.storage.lost = errors.New("leadership lost while committing log")
	for path, data := range map[string]map[string]any{"config": {fieldActiveKey: 2}, "roles/support": {fieldAllowedRooms: "lobby"}} {
		_, err := m.call(logical.UpdateOperation, path, data)
		require.ErrorContains(t, err, "leadership lost")
	}
	m.storage.lost = nil
	require.EqualValues(t, 2, m.mustRead("creds/support", map[string]any{fieldRoom: "lobby"})[fieldKeyVersion])
}

// What does not change tokens disturbs no request that is in work, on the node that writes
// and on others.
func TestWritesThatChangeNothing(t *testing.T) {
	m := configured(t)
	i := m.issuanceOf("support")
	writes := m.storage.written()
	m.mustWrite("config", map[string]any{fieldIssuer: defaultIssuer, fieldActiveKey: 1})
	m.mustWrite("roles/support", map[string]any{fieldAllowedRooms: "Support-*"})
	require.Equal(t, writes, m.storage.written())
	require.Contains(t, m.events.take(), "clanmeeting/role-write modified=false name=support operation=role-write path=roles/support")

	m.refused(logical.UpdateOperation, "config", map[string]any{fieldActiveKey: 9})
	m.refused(logical.UpdateOperation, "roles/support", map[string]any{fieldTTL: "10h"})
	m.mustWrite("config", map[string]any{fieldDeleteEndedRolesAfter: "1h"})
	m.stageSecond()
	m.wire.InvalidateKey(t.Context(), "keys/2")
	m.mustDelete("keys/2")
	require.Same(t, i.snapshot, m.inside.state.snapshot.Load())
	require.Same(t, i.role, m.inside.process.roles.get(m.inside.roleKey("support")))
	require.NoError(t, i.checkCurrent(t.Context()))

	// What the cache dropped is not loaded before a signature. Loaded again, it is the same.
	// Vault's context does not stop an invalidation.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, entry := range []string{"config", "keys/1", "roles/support"} {
		m.inside.invalidate(gone, entry)
		require.ErrorIs(t, i.checkCurrent(t.Context()), errChanged, entry)
		m.issuanceOf("support")
		require.NoError(t, i.checkCurrent(t.Context()), entry)
	}
}

// changes are what must stop a request that was decided before.
var changes = map[string]func(m *testMount){
	"config deleted": func(m *testMount) { m.mustDelete("config") },
	"key replaced": func(m *testMount) {
		m.mustWrite("config", map[string]any{fieldPrivateKey: readTestdata(m.t, "rsa2048.openssh.pem")})
		m.mustDelete("keys/1")
	},
	"issuer changed": func(m *testMount) { m.mustWrite("config", map[string]any{fieldIssuer: "staging"}) },
	"by another node": func(m *testMount) {
		m.storeConfig(func(c *config) { c.Issuer = "staging" })
		m.wire.InvalidateKey(m.t.Context(), configStoragePath)
	},
	"role narrowed": func(m *testMount) { m.mustWrite("roles/support", map[string]any{fieldAllowedRooms: "lobby"}) },
	"role deleted":  func(m *testMount) { m.mustDelete("roles/support") },
}

// After a change is acknowledged, nothing is signed with the old state.
func TestChangesBeforeASignature(t *testing.T) {
	for name, change := range changes {
		m := configured(t)
		i := m.issuanceOf("support")
		items := parsed(manyItems(40))
		grants, _, err := i.decideAll(t.Context(), items)
		require.NoError(t, err)
		change(m)
		_, err = i.signAll(t.Context(), items, grants)
		require.ErrorIs(t, err, errChanged, name)

		// Also once another request has loaded the new state.
		_, _ = m.inside.newIssuance(t.Context(), &logical.Request{Storage: m.storage}, "support")
		_, err = i.sign(t.Context(), grants[0])
		require.ErrorIs(t, err, errChanged, name)
	}
}

// A request that has read what it depends on is stopped, and decided again after the
// change: it gets what a new request gets.
func TestRequestsAreDecidedAgain(t *testing.T) {
	for name, change := range changes {
		for _, data := range []map[string]any{{fieldRoom: "support-1"}, {fieldBatchInput: manyItems(3)}} {
			m := configured(t)
			ask := func() *logical.Response {
				resp, err := m.call(logical.UpdateOperation, "creds/support", data)
				assert.NoError(t, err)
				return resp
			}
			before, g, now := ask(), newGate("clock"), m.inside.now
			m.inside.now = func() time.Time { g.pass("clock"); return now() }
			answered := make(chan *logical.Response, 1)
			go func() { answered <- ask() }()
			<-g.reached
			change(m)
			close(g.proceed)
			answer := <-answered
			require.Equal(t, ask(), answer, name)
			require.NotEqual(t, before, answer, name)
		}
	}
}

// A request that is overtaken again and again ends with a 503.
func TestRequestsAreDecidedAFewTimes(t *testing.T) {
	tries := 0
	_, err := retryIfChanged(func() (*logical.Response, error) { tries++; return nil, errChanged })
	require.ErrorContains(t, err, "send it again")
	require.True(t, isUnavailable(err))
	require.Equal(t, attempts, tries)
}

// callFor makes one request that may take so long, in the process: over the wire, the caller
// would not wait for the engine to give up.
func (m *testMount) callFor(limit time.Duration, o operation) error {
	ctx, cancel := context.WithTimeout(m.t.Context(), limit)
	defer cancel()
	_, err := m.inside.HandleRequest(ctx, &logical.Request{Operation: o.op, Path: o.path, Data: maps.Clone(o.data), Storage: m.storage})
	return err
}

// Requests wait in the line of their mount, and stop waiting when they end. A change never
// waits for them, nor does another mount.
func TestLine(t *testing.T) {
	m := configured(t)
	require.NoError(t, m.inside.state.line.Acquire(t.Context(), int64(processors())))
	for _, name := range []string{"creds read", "check", "verify"} {
		require.ErrorIs(t, m.callFor(20*time.Millisecond, operations(t)[name]), context.DeadlineExceeded, name)
	}
	m.mustWrite("creds/support", map[string]any{fieldBatchInput: manyItems(3)})
	m.stageSecond()
	m.mustWrite("roles/support", map[string]any{fieldTTL: "1m"})
	m.mustWrite("keys/generate", nil)
	configured(t).creds()
}

// One can stop waiting for a lock, which a write may hold as long as storage takes.
func TestWaitingForALockEnds(t *testing.T) {
	m := configured(t)
	m.creds()
	m.wire.InvalidateKey(t.Context(), configStoragePath)
	require.NoError(t, m.inside.state.keysLock.take(t.Context()))
	require.NoError(t, m.inside.state.roleLock("support").take(t.Context()))
	waits := func(name string) {
		require.ErrorIs(t, m.callFor(10*time.Millisecond, operations(t)[name]), context.DeadlineExceeded, name)
	}
	waits("config read")
	waits("config update")
	waits("role update")
	waits("creds read") // for the snapshot
	m.inside.process.roles.drop(m.inside.roleKey("support"))
	waits("creds read") // for the role
	m.inside.state.keysLock.release()
	m.inside.state.roleLock("support").release()
	m.creds()
}

var aBatch = operation{logical.UpdateOperation, "creds/support", map[string]any{fieldBatchInput: manyItems(1)}}

// Batches of a mount wait for each other, up to a number and a time.
func TestBatchesWait(t *testing.T) {
	m := configured(t)
	one, state := parsed(manyItems(1)), m.inside.state
	require.NoError(t, state.batching.take(t.Context()))
	m.creds() // a single read does not wait
	require.ErrorIs(t, m.inside.waitForBatches(t.Context(), 10*time.Millisecond, one), errBatchesWait)
	require.ErrorIs(t, m.callFor(time.Second, aBatch), errBatchSlow)

	// The texts of those that wait take too much memory, or too many wait already.
	large := []batchItem{{reference: strings.Repeat("r", 1<<20)}}
	require.NoError(t, state.waiting.Acquire(t.Context(), maxWaiting-1<<20+1))
	require.ErrorIs(t, m.inside.waitForBatches(t.Context(), time.Hour, large), errBatchesWait)
	require.NoError(t, state.waiting.Acquire(t.Context(), 1<<20-1))
	require.ErrorIs(t, m.inside.waitForBatches(t.Context(), time.Hour, one), errBatchesWait)
	state.waiting.Release(maxWaiting)
	waits := func() bool {
		if !state.waiting.TryAcquire(maxWaiting) {
			return true
		}
		state.waiting.Release(maxWaiting)
		return false
	}
	require.False(t, waits(), "none is counted any more")

	// The caller gives up.
	gone, giveUp := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- m.inside.waitForBatches(gone, time.Minute, one) }()
	require.Eventually(t, waits, 10*time.Second, time.Millisecond)
	giveUp()
	require.ErrorIs(t, <-ended, context.Canceled)

	// The other batch ends.
	go func() { ended <- m.callFor(time.Minute, aBatch) }()
	require.Eventually(t, waits, 10*time.Second, time.Millisecond)
	state.batching.release()
	require.NoError(t, <-ended)
}

// A batch that can't end in time is given up, and its answer and the log say so.
func TestSlowBatch(t *testing.T) {
	m := configured(t)
	require.NoError(t, m.inside.process.slots.Acquire(t.Context(), int64(processors())))
	require.ErrorIs(t, m.callFor(time.Second, aBatch), errBatchSlow)
	require.Contains(t, m.log.String(), "a batch was given up")
	require.NotContains(t, m.log.String(), "[ERROR]", "it is no fault")

	// An eighth of the time is over, and less than an eighth of the tokens is signed.
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	_, err := m.issuanceOf("support").signAll(ctx, parsed(manyItems(16)), make([]*grant, 16))
	require.ErrorIs(t, err, errBatchSlow)
	require.NoError(t, ctx.Err(), "long before the end")
}

// A slot is given back after a while, so that the batches of other mounts go on.
func TestBatchesShareTheSlots(t *testing.T) {
	m := configured(t)
	var others atomic.Int64
	err := m.inside.inSlots(t.Context(), 1, 3, func(n int) error {
		m.advance(slotTime)
		if n == 0 { // another mount begins to wait for all slots
			go func() {
				_ = m.inside.process.slots.Acquire(context.Background(), int64(processors()))
				others.Add(1)
				m.inside.process.slots.Release(int64(processors()))
			}()
			time.Sleep(20 * time.Millisecond)
			return nil
		}
		assert.EqualValues(t, 1, others.Load(), "the other mount had its turn")
		return nil
	})
	require.NoError(t, err)
}

// One key is generated at a time. If the caller has given up, the key is thrown away.
func TestGenerating(t *testing.T) {
	m := configured(t)
	generate := operation{logical.UpdateOperation, "keys/generate", nil}
	require.NoError(t, m.inside.state.generating.take(t.Context()))
	given := make(chan *logical.Response)
	go func() { given <- m.mustWrite("keys/generate", nil) }()
	require.ErrorIs(t, m.callFor(20*time.Millisecond, generate), context.DeadlineExceeded)
	m.creds() // waits for nothing
	require.Equal(t, "1 of [1]", m.keyState())
	m.inside.state.generating.release()
	require.EqualValues(t, 2, (<-given).Data[fieldVersion])

	k, err := m.inside.parseKey(readTestdata(t, "rsa2048.openssh.pem"))
	require.NoError(t, err)
	ended, giveUp := context.WithCancel(t.Context())
	giveUp()
	_, err = m.inside.stage(ended, &logical.Request{Storage: m.storage}, k, eventKeyGenerate)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, "1 of [1 2]", m.keyState())
}

// For a request that has ended, nothing is signed and no lock is taken.
func TestEndedRequests(t *testing.T) {
	m := configured(t)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := m.issuanceOf("support").sign(ended, nil)
	require.ErrorIs(t, err, context.Canceled)
	for range 20 { // select takes any case that is ready
		require.ErrorIs(t, m.inside.state.keysLock.take(ended), context.Canceled)
	}
}

// If Vault does not answer, the SDK says that the maximum TTL is 0. That fails one request, not
// those of a second.
func TestVaultThatDoesNotAnswer(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/leased", map[string]any{fieldAllowedRooms: "*", fieldGenerateLease: true})
	maximum := m.system.MaxLeaseTTLVal
	m.system.MaxLeaseTTLVal = 0
	for _, role := range []string{"support", "leased"} {
		_, err := m.call(logical.ReadOperation, "creds/"+role, map[string]any{fieldRoom: "support-1"})
		require.ErrorContains(t, err, "asked Vault for the maximum TTL of this mount and got no answer")
	}
	require.Equal(t, 2, strings.Count(m.log.String(), "got no answer"))
	require.Contains(t, m.mustWrite("roles/support", map[string]any{fieldTTL: "1m"}).Warnings[0], "Vault did not say")
	m.system.MaxLeaseTTLVal = maximum
	m.creds() // no answer is not cached
}

// A request is decided after its wait: its token has its whole life, and a change meanwhile
// does not make it wait again.
func TestRequestsAreDecidedAfterTheirWait(t *testing.T) {
	m := configured(t)
	m.creds()
	require.NoError(t, m.inside.state.line.Acquire(t.Context(), int64(processors())))
	answered := make(chan map[string]any)
	go func() { answered <- m.creds() }()
	time.Sleep(20 * time.Millisecond) // it waits now, or soon
	m.advance(time.Hour)
	for i := range 2 * attempts {
		m.mustWrite("config", map[string]any{fieldIssuer: strings.Repeat("x", i+1)})
	}
	m.inside.state.line.Release(int64(processors()))
	require.EqualValues(t, m.clock().Unix()+900, (<-answered)[fieldExpiration])
}

// A batch may take long: what an answer says of a token's life is true when it is signed.
func TestTTLCountsFromTheSignature(t *testing.T) {
	m := configured(t)
	i := m.issuanceOf("support")
	g, err := i.decide(tokenRequest{room: "support-1", ttl: time.Minute})
	require.NoError(t, err)
	m.advance(20 * time.Second)
	data, err := i.sign(t.Context(), g)
	require.NoError(t, err)
	require.EqualValues(t, 40, data[fieldTTL])
	m.advance(40 * time.Second)
	_, err = i.sign(t.Context(), g)
	require.ErrorIs(t, err, errTooLate)
}

// Whatever changes meanwhile, all values of a token come from one configuration and one
// state of the role: the old or the new, never a mixture. Here they are those of a tenant.
func TestTokensNeverMixConfigurations(t *testing.T) {
	m := newTestMount(t)
	var reads, changes atomic.Int64
	done := func(op logical.Operation, path string, data map[string]any) {
		resp, err := m.call(op, path, data)
		_ = assert.NoError(t, err) && assert.NoError(t, resp.Error())
		changes.Add(1)
	}
	tenants := []string{"north", "south"}
	pems := []string{readTestdata(t, "rsa2048.pkcs1.pem"), readTestdata(t, "rsa2048.openssh.pem")}
	keys := []*rsa.PrivateKey{testKey(t), secondKey(t)}
	writeConfig := func(n int) {
		done(logical.UpdateOperation, "config", map[string]any{fieldConsumerID: tenants[n], fieldIssuer: tenants[n], fieldPrivateKey: pems[n]})
	}
	writeRole := func(n int) {
		done(logical.UpdateOperation, "roles/support", map[string]any{
			fieldAllowedRooms: tenants[n] + "-*", fieldDefaultRoom: tenants[n] + "-hall", fieldTTL: 60 * (n + 1),
		})
	}
	read := func(int) {
		resp, err := m.call(logical.ReadOperation, "creds/support", nil)
		switch {
		case err != nil:
			assert.True(t, isUnavailable(err), "overtaken again and again, or a fault: %v", err)
			return
		case resp.IsError():
			assert.Regexp(t, "is not configured|not found", resp.Error())
			return
		}
		of := slices.Index(tenants, resp.Data[fieldConsumerID].(string))
		claims := verified(t, resp.Data[fieldToken].(string), keys[of])
		assert.Subset(t, claims, map[string]any{"sub": tenants[of], "iss": tenants[of], "room": resp.Data[fieldRoom]})
		from := slices.Index([]any{60.0, 120.0}, resp.Data[fieldTTL])
		assert.Equal(t, tenants[from]+"-hall", resp.Data[fieldRoom], "room and ttl are of one state of the role")
		reads.Add(1)
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop.Store(true)
	repeat := func(pause time.Duration, f func(n int)) {
		wg.Go(func() {
			for turn := 0; !stop.Load() && !t.Failed(); turn++ {
				f(turn % 2)
				time.Sleep(pause)
			}
		})
	}
	repeat(time.Millisecond, writeConfig)
	repeat(time.Millisecond, writeRole)
	repeat(20*time.Millisecond, func(n int) { done(logical.DeleteOperation, []string{"config", "roles/support"}[n], nil) })
	repeat(time.Millisecond, func(n int) { m.wire.InvalidateKey(t.Context(), []string{"config", "roles/support"}[n]) })
	for range 4 {
		repeat(0, read)
	}
	enough := func() bool { return reads.Load() >= 200 && changes.Load() >= 200 || t.Failed() }
	require.Eventually(t, enough, time.Minute, 10*time.Millisecond)
}
