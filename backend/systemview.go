// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// systemLife is how long an answer of Vault is cached. Each answer is a call of its own
// from the plugin to Vault.
const systemLife = time.Second

// A systemView caches the two answers of Vault that every request needs. The SystemView in it
// does not cache. It is for what must not rely on an answer that is a second old.
type systemView struct {
	logical.SystemView

	replication cachedAnswer[consts.ReplicationState]
	maxTTL      cachedAnswer[time.Duration]
}

func newSystemView(vault logical.SystemView, now func() time.Time) *systemView {
	v := &systemView{SystemView: vault}
	v.replication.ask, v.replication.now = vault.ReplicationState, now
	v.maxTTL.ask, v.maxTTL.now = vault.MaxLeaseTTL, now
	return v
}

// ReplicationState is at most systemLife old. The framework asks for it on every request,
// to forward a write early. If it is out of date, storage refuses the write, and Vault
// forwards it then.
func (v *systemView) ReplicationState() consts.ReplicationState { return v.replication.get() }

// MaxLeaseTTL is at most systemLife old. After a tune, a token may have the former maximum
// for that long.
func (v *systemView) MaxLeaseTTL() time.Duration { return v.maxTTL.get() }

// A cachedAnswer is an answer of Vault that is used for systemLife. A zero value is not
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

// errNoMaxTTL is a failed call to Vault, for which the SDK returns 0. Usually somebody has
// removed the socket that leads from the plugin to Vault.
var errNoMaxTTL = errors.New("the plugin asked Vault for the maximum TTL of this mount and got no answer; if this goes on, reload the plugin, and keep the sockets in Vault's TMPDIR from being cleaned up")

// maxTTLFor returns the maximum TTL of the mount, for tokens of a role. With a lease it must
// not be old: Vault would cut the lease to a maximum that was lowered, and the token would
// outlive it.
func (v *systemView) maxTTLFor(r *role) (time.Duration, error) {
	ask := v.MaxLeaseTTL
	if r.GenerateLease {
		ask = v.SystemView.MaxLeaseTTL
	}
	if ttl := ask(); ttl > 0 {
		return ttl, nil
	}
	return 0, errNoMaxTTL
}

// onPerformanceStandby reports whether this node answers only reads and forwards writes.
func (v *systemView) onPerformanceStandby() bool {
	return v.SystemView.ReplicationState().HasState(consts.ReplicationPerformanceStandby)
}
