// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
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

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/hosttoken"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

// A tenant is a configuration and a role that belong together. No token may mix values
// of two tenants.
type tenant struct {
	name string
	key  *rsakey.PrivateKey
	pem  string
	ttl  int64
}

// knownRefusals are the refusals to expect while configuration and role are written and
// deleted.
var knownRefusals = []string{"is not configured", "has no active key", "not found"}

// Whatever changes meanwhile, all values of a token come from one configuration and one
// state of the role: the old or the new, never a mixture.
func TestTokensNeverMixConfigurations(t *testing.T) {
	m := newTestMount(t)
	tenants := []tenant{
		{name: "north", pem: readTestdata(t, "rsa2048.pkcs1.pem"), ttl: 60},
		{name: "south", pem: readTestdata(t, "rsa2048.openssh.pem"), ttl: 120},
	}
	for i := range tenants {
		tenants[i].key, _ = rsakey.Parse(tenants[i].pem)
		tenants[i].writeConfig(m)
		tenants[i].writeRole(m)
	}
	var stop atomic.Bool
	var reads, changes atomic.Int64
	var versions sync.Map // the tenant of a key version
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop.Store(true)
	repeat := func(pause time.Duration, done *atomic.Int64, f func(turn int) bool) {
		wg.Go(func() {
			for turn := 0; !stop.Load() && !t.Failed(); turn++ {
				if f(turn) {
					done.Add(1)
				}
				time.Sleep(pause)
			}
		})
	}
	for range 4 {
		repeat(0, &reads, func(int) bool { return m.readWhole(tenants, &versions) })
	}
	repeat(time.Millisecond, &changes, func(turn int) bool { return tenants[turn%2].writeConfig(m) })
	repeat(time.Millisecond, &changes, func(turn int) bool { return tenants[turn%2].writeRole(m) })
	repeat(20*time.Millisecond, &changes, func(int) bool {
		version := m.activeKey()
		_, _ = m.call(logical.DeleteOperation, fmt.Sprintf("keys/%d", version), nil) // refused while it is active
		return m.done(logical.UpdateOperation, "keys/generate", nil)
	})
	repeat(20*time.Millisecond, &changes, func(turn int) bool {
		return m.done(logical.DeleteOperation, []string{"config", "roles/support"}[turn%2], nil)
	})
	repeat(time.Millisecond, &changes, func(turn int) bool {
		m.wire.InvalidateKey(t.Context(), []string{"config", "keys/1", "roles/support"}[turn%3])
		return true
	})
	require.Eventually(t, func() bool { return reads.Load() >= 300 && changes.Load() >= 300 || t.Failed() }, time.Minute, 10*time.Millisecond)
}

// done makes a request and reports whether it succeeded. Any goroutine may call it.
func (m *testMount) done(op logical.Operation, path string, data map[string]any) bool {
	resp, err := m.call(op, path, data)
	return assert.NoError(m.t, err) && assert.NoError(m.t, resp.Error())
}

func (n tenant) writeConfig(m *testMount) bool {
	return m.done(logical.UpdateOperation, "config", map[string]any{fieldConsumerID: n.name, fieldIssuer: n.name, fieldPrivateKey: n.pem})
}

func (n tenant) writeRole(m *testMount) bool {
	return m.done(logical.UpdateOperation, "roles/support", map[string]any{
		fieldAllowedRooms: n.name + "-*", fieldDefaultRoom: n.name + "-hall", fieldTTL: n.ttl,
	})
}

// activeKey is the version of the active key; 0 if there is none.
func (m *testMount) activeKey() int {
	resp, err := m.call(logical.ReadOperation, "config", nil)
	if err != nil || resp == nil {
		return 0
	}
	version, _ := resp.Data[fieldActiveKey].(float64)
	return int(version)
}

// readWhole reads a token, checks that it does not mix tenants, and reports whether there
// was one.
func (m *testMount) readWhole(tenants []tenant, versions *sync.Map) bool {
	resp, err := m.call(logical.ReadOperation, "creds/support", nil)
	if err != nil {
		assert.True(m.t, isUnavailable(err), "overtaken again and again, or a fault: %v", err)
		return false
	}
	if resp.IsError() {
		assert.True(m.t, slices.ContainsFunc(knownRefusals, func(known string) bool { return strings.Contains(resp.Error().Error(), known) }), resp.Error())
		return false
	}
	of := slices.IndexFunc(tenants, func(n tenant) bool { return n.name == resp.Data[fieldConsumerID] })
	from := slices.IndexFunc(tenants, func(n tenant) bool { return n.name+"-hall" == resp.Data[fieldRoom] })
	presented, err := hosttoken.Decode(resp.Data[fieldToken].(string))
	if !assert.NoError(m.t, err) || !assert.NotEqual(m.t, -1, of) || !assert.NotEqual(m.t, -1, from) {
		return false
	}
	owner, _ := versions.LoadOrStore(resp.Data[fieldKeyVersion], of)
	return assert.True(m.t, presented.SignedBy(tenants[of].key.Public())) &&
		assert.Equal(m.t, tenants[of].name, presented.Claims["sub"]) &&
		assert.Equal(m.t, tenants[of].name, presented.Claims["iss"]) &&
		assert.Equal(m.t, resp.Data[fieldRoom], presented.Claims["room"]) &&
		assert.Equal(m.t, owner, of, "a key version is one key") &&
		assert.EqualValues(m.t, tenants[from].ttl, resp.Data[fieldTTL], "room and ttl are of one state of the role")
}
