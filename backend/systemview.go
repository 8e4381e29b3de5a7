// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// stateLife is how long a replication state is cached.
const stateLife = time.Second

// A systemView caches the replication state for a moment. Otherwise the framework would
// ask Vault for it in a separate call on every request, to forward writes early. If the
// cached state is out of date, storage refuses the write, and Vault forwards it then.
type systemView struct {
	logical.SystemView
	now func() time.Time

	mu    sync.Mutex
	state consts.ReplicationState
	until time.Time
}

// ReplicationState is at most stateLife old.
func (v *systemView) ReplicationState() consts.ReplicationState {
	v.mu.Lock()
	defer v.mu.Unlock()
	if now := v.now(); !now.Before(v.until) {
		v.state, v.until = v.SystemView.ReplicationState(), now.Add(stateLife)
	}
	return v.state
}

// onPerformanceStandby reports whether this node answers only reads and forwards
// writes. It asks Vault each time.
func (b *backend) onPerformanceStandby() bool {
	return b.vault.ReplicationState().HasState(consts.ReplicationPerformanceStandby)
}
