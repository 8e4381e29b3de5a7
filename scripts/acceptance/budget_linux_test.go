// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// What hostile requests may cost. The limits are bytes, processor time and counts, never
// elapsed time: a busy machine must not make these tests fail.
const (
	maxMemory = 300 << 20 // of the plugin

	// maxWorkAfter is the processor time that the plugin may still use, counted from one
	// second after the callers gave up.
	maxWorkAfter = time.Second
)

// budget is a Vault of its own. Its plugin is built as for a release, because the race
// detector takes several times the memory.
type budget struct {
	client

	plugin int // its process ID
}

// TestBudgets attacks a Vault and measures what the plugin uses.
func TestBudgets(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "plugins", devvault.PluginName)
	buildRelease(t, file)
	server, err := devvault.Start(t.Context(), devvault.Options{VaultBin: os.Getenv("VAULT_BIN"), PluginDir: filepath.Dir(file), LogLevel: "trace"})
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	b := budget{client: client{t, server, server.RootToken}}
	b.mount() // starts the plugin
	plugins := children(t, server.PID())
	require.Len(t, plugins, 1)
	b.plugin = plugins[0]
	for name, attack := range map[string]func(budget){
		"SlowRules": attackWithSlowRules, "LargeBodies": attackWithLargeBodies, "Cancelled": attackWithCancelledRequests,
	} {
		t.Run(name, func(t *testing.T) {
			below := b
			below.t = t
			require.NoError(t, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", b.plugin), []byte("5"), 0), "begin a new peak")
			attack(below)
			below.requireIdle()
			below.requireMemory()
		})
	}
	require.NotContains(t, server.Log(), "panic")
}

// mount is the path of a new mount, with a key and a role.
func (b budget) mount() string {
	b.t.Helper()
	mount := b.enable(unique(b.t))
	b.configure(mount)
	return mount
}

// requireMemory checks that the plugin has stayed within its budget.
func (b budget) requireMemory() {
	b.t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.plugin))
	require.NoError(b.t, err)
	_, after, found := strings.Cut(string(raw), "VmHWM:")
	require.True(b.t, found)
	peak, err := strconv.Atoi(strings.Fields(after)[0])
	require.NoError(b.t, err)
	b.t.Logf("%d MB at the most", peak>>10)
	require.Less(b.t, peak<<10, maxMemory)
}

// work is the processor time that the plugin has used.
func (b budget) work() time.Duration {
	b.t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.plugin))
	require.NoError(b.t, err)
	_, after, found := strings.Cut(string(raw), ") ") // after the name, which may have blanks
	require.True(b.t, found)
	var used time.Duration
	for _, ticks := range strings.Fields(after)[11:13] { // of user and system, hundredths of a second
		n, err := strconv.Atoi(ticks)
		require.NoError(b.t, err)
		used += time.Duration(n) * 10 * time.Millisecond
	}
	return used
}

// requireIdle checks that the plugin does little work after the callers have given up.
func (b budget) requireIdle() {
	b.t.Helper()
	time.Sleep(time.Second)
	const pause, idle = 500 * time.Millisecond, 20 * time.Millisecond
	begin := b.work()
	for last := begin; ; {
		time.Sleep(pause)
		now := b.work()
		require.Less(b.t, now-begin, maxWorkAfter, "the plugin works on")
		if now-last <= idle {
			return
		}
		last = now
	}
}

// abandon sends requests at the same time, and cancels each after a while. It returns how
// many had no answer by then.
func (b budget) abandon(after time.Duration, count int, method, path string, body any) int64 {
	b.t.Helper()
	var givenUp atomic.Int64
	var wg sync.WaitGroup
	for range count {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), after)
			defer cancel()
			if _, _, err := b.vault.Call(ctx, b.token, method, path, body); err != nil {
				givenUp.Add(1)
			}
		})
	}
	wg.Wait()
	return givenUp.Load()
}

// Slow batches end when their callers give up. The rules are about the slowest that a role
// may have: each is compared with the whole name of the room, and almost matches.
func attackWithSlowRules(b budget) {
	mount := b.mount()
	rules := []string{"a*"}
	for i := range 1990 {
		rules = append(rules, strings.Repeat("*a", 30)+fmt.Sprintf("*b%d", i%10))
	}
	b.write(mount+"/roles/slow", map[string]any{"allowed_rooms": rules})
	items := make([]any, 1000)
	for i := range items {
		items[i] = map[string]any{"room": strings.Repeat("a", 251) + fmt.Sprintf("%04d", i)}
	}
	require.NotZero(b.t, b.abandon(time.Second, 20, http.MethodPost, mount+"/creds/slow", map[string]any{"batch_input": items}))
}

// repeat is a JSON list of the same value.
func repeat(value string, count int) string {
	return "[" + strings.TrimSuffix(strings.Repeat(value+",", count), ",") + "]"
}

// A request that is too large is refused before it is decoded: over 2 MiB by the plugin,
// over 4 MiB by gRPC. Vault answers the latter with 500.
func attackWithLargeBodies(b budget) {
	mount := b.mount()
	const tooLarge = "the request is too large: the maximum is 2 MiB"
	for value, want := range map[string]string{
		repeat(repeat("1", 9000), 20):                            "batch_input[0]: must be an object",
		repeat(`"`+strings.Repeat("x", 1000)+`"`, 3*1024):        tooLarge,
		repeat(repeat(`"`+strings.Repeat("x", 60)+`"`, 9000), 5): tooLarge,
		repeat(`{"room":"`+strings.Repeat("x", 8000)+`"}`, 1000): "internal error",
	} {
		body := `{"batch_input":` + value + `}`
		status := http.StatusBadRequest
		if b.vault.Kind == devvault.OpenBao && strings.Count(body, `"`)/2 > 20_000 {
			want = "exceeded maximum number of strings" // the limit of devvault's listener
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				got, answer, err := b.vault.Call(context.Background(), b.token, http.MethodPost, mount+"/creds/support", body)
				assert.NoError(b.t, err)
				if len(body) > 4<<20 { // gRPC's message depends on the call
					assert.Equal(b.t, http.StatusInternalServerError, got)
					return
				}
				assert.Equal(b.t, status, got, "%d bytes: %.300s", len(body), answer)
				assert.Contains(b.t, answer.Errors(), want)
			})
		}
		wg.Wait()
	}
}

// Requests that are cancelled at any moment are not faults of the engine.
func attackWithCancelledRequests(b budget) {
	mount := b.mount()
	_, private := newKey(b.t)
	token := b.read(mount+"/creds/support", "room", "support-1")["token"]
	begin := len(b.vault.Log())
	var givenUp int64
	var wg sync.WaitGroup
	for _, r := range []struct {
		method, path string
		body         any
	}{
		{http.MethodPost, "/verify", map[string]any{"token": token}},
		{http.MethodGet, "/creds/support?room=support-1", nil},
		{http.MethodPost, "/creds/support", map[string]any{"batch_input": []any{map[string]any{"room": "support-1"}}}},
		{http.MethodPost, "/roles/support", map[string]any{"allowed_rooms": "support-*"}},
		{"LIST", "/keys", nil},
		{http.MethodPost, "/config", map[string]any{"private_key": private}},
		{http.MethodPost, "/keys/import", map[string]any{"private_key": private}},
		{http.MethodDelete, "/keys/7", nil},
	} {
		wg.Go(func() {
			for range 45 {
				after := time.Duration(mathrand.IntN(20_000)) * time.Microsecond //nolint:gosec // G404: moments, not secrets
				atomic.AddInt64(&givenUp, b.abandon(after, 1, r.method, mount+r.path, r.body))
			}
		})
	}
	wg.Wait()
	log := b.vault.Log()[begin:]
	for _, text := range []string{"request failed", "existence check failed", "panicked"} {
		require.NotContains(b.t, log, text)
	}
	require.NotZero(b.t, givenUp)
	b.read(mount+"/creds/support", "room", "support-1")
}
