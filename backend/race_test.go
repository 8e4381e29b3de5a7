// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"crypto/rsa"
	"fmt"
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

// A tenant is a configuration, and a state of the role, in which everything hangs
// together: what is of one must never be seen beside what is of another.
type tenant struct {
	name string
	key  *rsa.PrivateKey
	pem  string
	ttl  int64
}

// refusals are how creds may be refused while configuration and role come and go.
var refusals = []string{"is not configured", "has no active key", "not found"}

// Whatever changes meanwhile, a token is wholly of one configuration and one state of
// the role: a reader that overtakes a writer gets the old or the new, never a mixture.
func TestTokensAreOfOneConfiguration(t *testing.T) {
	m := newTestMount(t)
	tenants := []tenant{
		{name: "north", pem: readTestdata(t, "rsa2048.pkcs1.pem"), ttl: 60},
		{name: "south", pem: readTestdata(t, "rsa2048.openssh.pem"), ttl: 120},
	}
	for i := range tenants {
		var err error
		tenants[i].key, err = parsePrivateKey(tenants[i].pem)
		require.NoError(t, err)
		tenants[i].writeConfig(m)
		tenants[i].writeRole(m)
	}
	var stop atomic.Bool
	var reads, changes atomic.Int64
	var versions sync.Map // the tenant of a key version
	var wg sync.WaitGroup
	repeat := func(f func()) {
		wg.Go(func() {
			for !stop.Load() && !t.Failed() {
				f()
			}
		})
	}
	for range 4 {
		repeat(func() { reads.Add(m.readWhole(tenants, &versions)) })
	}
	change := func(pause time.Duration, f func(turn int)) {
		turn := 0
		repeat(func() {
			f(turn)
			turn++
			changes.Add(1)
			time.Sleep(pause)
		})
	}
	change(time.Millisecond, func(turn int) { tenants[turn%2].writeConfig(m) })
	change(time.Millisecond, func(turn int) { tenants[turn%2].writeRole(m) })
	change(20*time.Millisecond, func(int) {
		version := m.activeKey()
		m.must(m.call(logical.UpdateOperation, "keys/generate", nil))
		_, _ = m.call(logical.DeleteOperation, fmt.Sprintf("keys/%d", version), nil) // may be active again
	})
	change(20*time.Millisecond, func(turn int) { m.mustDelete([]string{"config", "roles/support"}[turn%2]) })
	change(time.Millisecond, func(turn int) {
		m.wire.InvalidateKey(t.Context(), []string{"config", "keys/1", "roles/support"}[turn%3])
	})
	require.Eventually(t, func() bool { return reads.Load() >= 300 && changes.Load() >= 300 || t.Failed() }, time.Minute, 10*time.Millisecond)
	stop.Store(true)
	wg.Wait()
}

func (n tenant) writeConfig(m *testMount) {
	m.must(m.call(logical.UpdateOperation, "config", map[string]any{fieldConsumerID: n.name, fieldIssuer: n.name, fieldPrivateKey: n.pem}))
}

func (n tenant) writeRole(m *testMount) {
	m.must(m.call(logical.UpdateOperation, "roles/support", map[string]any{
		fieldAllowedRooms: n.name + "-*", fieldDefaultRoom: n.name + "-hall", fieldTTL: n.ttl,
	}))
}

// activeKey is the version of the active key; 0 without.
func (m *testMount) activeKey() int {
	resp, err := m.call(logical.ReadOperation, "config", nil)
	if err != nil || resp == nil {
		return 0
	}
	version, _ := resp.Data[fieldActiveKey].(float64)
	return int(version)
}

// readWhole reads a token and returns 1 if there was one to look at.
func (m *testMount) readWhole(tenants []tenant, versions *sync.Map) int64 {
	resp, err := m.call(logical.ReadOperation, "creds/support", nil)
	if !assert.NoError(m.t, err) {
		return 0
	}
	if resp.IsError() {
		assert.True(m.t, slices.ContainsFunc(refusals, func(known string) bool { return strings.Contains(resp.Error().Error(), known) }), resp.Error())
		return 0
	}
	of := slices.IndexFunc(tenants, func(n tenant) bool { return n.name == resp.Data[fieldConsumerID] })
	claims := verified(m.t, resp.Data[fieldToken].(string), tenants[of].key)
	assert.Equal(m.t, tenants[of].name, claims["sub"])
	assert.Equal(m.t, tenants[of].name, claims["iss"])
	owner, _ := versions.LoadOrStore(resp.Data[fieldKeyVersion], of)
	assert.Equal(m.t, owner, of, "a key version is one key")

	room := tenants[slices.IndexFunc(tenants, func(n tenant) bool { return n.name+"-hall" == claims["room"] })]
	assert.EqualValues(m.t, room.ttl, resp.Data[fieldTTL], "room and ttl are of one state of the role")
	return 1
}
