// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// systemLife is how long an answer of Vault's system view is cached. Each of them is a
// call of its own from the plugin to Vault.
const systemLife = time.Second

// A systemView caches what every request needs to know from Vault. Code that must not
// rely on an old answer asks backend.vault.
type systemView struct {
	logical.SystemView

	state  cachedAnswer[consts.ReplicationState]
	maxTTL cachedAnswer[time.Duration]
}

func newSystemView(vault logical.SystemView, now func() time.Time) *systemView {
	v := &systemView{SystemView: vault}
	v.state.ask, v.state.now = vault.ReplicationState, now
	v.maxTTL.ask, v.maxTTL.now = vault.MaxLeaseTTL, now
	return v
}

// ReplicationState is at most systemLife old. The framework asks for it on every request,
// to forward a write early. If it is out of date, storage refuses the write, and Vault
// forwards it then.
func (v *systemView) ReplicationState() consts.ReplicationState { return v.state.get() }

// MaxLeaseTTL is at most systemLife old. After a tune, a token may have the former maximum
// for that long.
func (v *systemView) MaxLeaseTTL() time.Duration { return v.maxTTL.get() }

// A cachedAnswer is an answer of Vault's that is used for systemLife. A zero value is not
// cached: the SDK returns it if the call failed.
type cachedAnswer[T comparable] struct {
	ask func() T
	now func() time.Time

	mu    sync.Mutex
	value T
	until time.Time
}

func (c *cachedAnswer[T]) get() T {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if now.Before(c.until) {
		return c.value
	}
	answer := c.ask()
	if failed := *new(T); answer != failed {
		c.value, c.until = answer, now.Add(systemLife)
	}
	return answer
}

// onPerformanceStandby reports whether this node answers only reads and forwards
// writes. It asks Vault each time.
func (b *backend) onPerformanceStandby() bool {
	return b.vault.ReplicationState().HasState(consts.ReplicationPerformanceStandby)
}

// maxTTL returns the mount's maximum TTL for the tokens of a role. For tokens with a lease
// it asks Vault each time, because Vault would cut the lease to a maximum that was lowered,
// and the token would outlive it.
func (b *backend) maxTTL(r *role) time.Duration {
	if r.GenerateLease {
		return b.vault.MaxLeaseTTL()
	}
	return b.System().MaxLeaseTTL()
}
