// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// What hostile requests may cost: bytes and processor time, never elapsed time, because a
// busy machine must not make the test fail.
const (
	maxMemory    = 300 << 20 // of the plugin
	maxWorkAfter = 0.5       // seconds of processor time, when all callers have given up
)

// TestBudgets attacks a Vault of its own, and measures what the plugin uses. It is built as
// for a release, because the race detector takes several times the memory.
func TestBudgets(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "plugins", devvault.PluginName)
	buildRelease(t, file)
	server, err := devvault.Start(t.Context(), devvault.Options{VaultBin: os.Getenv("VAULT_BIN"), PluginDir: filepath.Dir(file)})
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	root := client{t, server, server.RootToken}
	root.configure(root.enable("clanmeeting"))
	plugins := children(t, server.PID())
	require.Len(t, plugins, 1)
	plugin, err := procfs.NewProc(plugins[0])
	require.NoError(t, err)
	work := func() float64 {
		stat, err := plugin.Stat()
		require.NoError(t, err)
		return stat.CPUTime()
	}

	abandonSlowBatches(root)
	time.Sleep(time.Second)
	begin := work()
	time.Sleep(4 * time.Second)
	require.Less(t, work()-begin, maxWorkAfter, "the plugin works on")

	sendLargeBodies(root)
	status, err := plugin.NewStatus()
	require.NoError(t, err)
	t.Logf("%d MB at the most", status.VmHWM>>20)
	require.Less(t, status.VmHWM, uint64(maxMemory))
	require.NotContains(t, server.Log(), "panic")
}

// Slow batches end when their callers give up. The rules are about the slowest that a role
// may have: each is compared with the whole name of the room, and almost matches.
func abandonSlowBatches(root client) {
	rules := []string{"a*"}
	for i := range 1990 {
		rules = append(rules, strings.Repeat("*a", 30)+fmt.Sprintf("*b%d", i%10))
	}
	root.write("clanmeeting/roles/slow", map[string]any{"allowed_rooms": rules})
	var items []any
	for i := range 1000 {
		items = append(items, map[string]any{"room": strings.Repeat("a", 251) + fmt.Sprintf("%04d", i)})
	}
	batch := map[string]any{"batch_input": items}
	var givenUp atomic.Int64
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if _, _, err := root.vault.Call(ctx, root.token, http.MethodPost, "clanmeeting/creds/slow", batch); err != nil {
				givenUp.Add(1)
			}
		})
	}
	wg.Wait()
	require.NotZero(root.t, givenUp.Load())
}

// A request that is too large is refused before it is decoded: over 2 MiB by the plugin,
// over 4 MiB by gRPC. Vault answers the latter with 500, and a message that depends on the
// call.
func sendLargeBodies(root client) {
	list := func(value string, count int) string { return "[" + value + strings.Repeat(","+value, count-1) + "]" }
	for _, test := range []struct {
		items, want string
		status      int
	}{
		{list(list("1", 9000), 20), "batch_input[0]: must be an object", http.StatusBadRequest},
		{list(`"`+strings.Repeat("x", 1000)+`"`, 3*1024), "the request is too large: the maximum is 2 MiB", http.StatusBadRequest},
		{list(`{"room":"`+strings.Repeat("x", 8000)+`"}`, 1000), "", http.StatusInternalServerError},
	} {
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				body := `{"batch_input":` + test.items + `}`
				status, answer, err := root.vault.Call(context.Background(), root.token, http.MethodPost, "clanmeeting/creds/support", body)
				assert.NoError(root.t, err)
				assert.Equal(root.t, test.status, status, "%d bytes: %.300s", len(body), answer)
				assert.Contains(root.t, answer.Errors(), test.want)
			})
		}
		wg.Wait()
	}
}
