// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
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
	"golang.org/x/sync/errgroup"

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

// budget is a separate Vault. Its plugin is built as for a release, because the race
// detector takes several times the memory.
type budget struct {
	client

	// bystander is a path on another mount. It is read during every attack.
	bystander string
}

func newBudget(t *testing.T) *budget {
	t.Helper()
	file := filepath.Join(t.TempDir(), "plugins", devvault.PluginName)
	buildRelease(t, file)
	server, err := devvault.Start(t.Context(), devvault.Options{VaultBin: os.Getenv("VAULT_BIN"), PluginDir: filepath.Dir(file), LogLevel: "trace"})
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	b := &budget{client: client{t, server, server.RootToken}}
	other := b.mount()
	b.bystander = devvault.Query(other+"/creds/support", "room", "support-1")
	return b
}

// mount is the path of a new mount, with a key and a role.
func (b *budget) mount() string {
	b.t.Helper()
	mount := unique(b.t)
	b.write("sys/mounts/"+mount, map[string]any{"type": devvault.PluginName})
	_, private := newKey(b.t)
	b.write(mount+"/config", map[string]any{"consumer_id": "acme", "private_key": private})
	b.write(mount+"/roles/support", map[string]any{"allowed_rooms": "support-*"})
	return mount
}

// of is the same Vault for a subtest.
func (b *budget) of(t *testing.T) *budget {
	below := *b
	below.t = t
	return &below
}

// plugins returns the process IDs of the plugin.
func (b *budget) plugins() []int {
	b.t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(b.t, err)
	var pids []int
	for _, stat := range stats {
		fields := statFields(stat)
		if len(fields) < 2 || fields[1] != strconv.Itoa(b.vault.PID()) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
		require.NoError(b.t, err)
		pids = append(pids, pid)
	}
	require.NotEmpty(b.t, pids, "the plugin's process")
	return pids
}

// statFields returns the fields after the process's name, which may have blanks.
func statFields(stat string) []string {
	raw, err := os.ReadFile(stat)
	if err != nil {
		return nil // it has ended
	}
	return strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
}

// work is the processor time that the plugin has used.
func (b *budget) work() time.Duration {
	b.t.Helper()
	var used time.Duration
	for _, pid := range b.plugins() {
		fields := statFields(fmt.Sprintf("/proc/%d/stat", pid))
		require.Greater(b.t, len(fields), 13)
		for _, ticks := range fields[11:13] { // of user and system, hundredths of a second
			n, err := strconv.Atoi(ticks)
			require.NoError(b.t, err)
			used += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return used
}

// forgetPeak resets the peak of the memory.
func (b *budget) forgetPeak() {
	b.t.Helper()
	for _, pid := range b.plugins() {
		require.NoError(b.t, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0))
	}
}

// requireMemory checks that the plugin has stayed within its budget since forgetPeak.
func (b *budget) requireMemory(what string) {
	b.t.Helper()
	for _, pid := range b.plugins() {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		require.NoError(b.t, err)
		_, after, found := strings.Cut(string(raw), "VmHWM:")
		require.True(b.t, found)
		peak, err := strconv.Atoi(strings.Fields(after)[0])
		require.NoError(b.t, err)
		b.t.Logf("%s: %d MB at the most", what, peak>>10)
		require.Less(b.t, peak<<10, maxMemory, what)
	}
}

// requireIdle checks that the plugin does little work after the callers have given up.
func (b *budget) requireIdle(what string) {
	b.t.Helper()
	time.Sleep(time.Second)
	const pause, idle = 500 * time.Millisecond, 20 * time.Millisecond
	begin := b.work()
	for last := begin; ; {
		time.Sleep(pause)
		now := b.work()
		require.Less(b.t, now-begin, maxWorkAfter, "%s: the plugin works on", what)
		if now-last <= idle {
			b.t.Logf("%s: %s of work a second after all had given up", what, now-begin)
			return
		}
		last = now
	}
}

// during reads tokens on the other mount while an attack is running. None of the reads may
// fail, and some must be answered.
func (b *budget) during(what string, attack func()) {
	b.t.Helper()
	var served atomic.Int64
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			status, answer, err := b.vault.Call(context.Background(), b.token, http.MethodGet, b.bystander, nil)
			if !assert.NoError(b.t, err, what) || !assert.Equal(b.t, http.StatusOK, status, "%s: %s", what, answer.Errors()) {
				return
			}
			select {
			case <-done:
				return
			default:
				served.Add(1)
			}
		}
	})
	end := sync.OnceFunc(func() {
		close(done)
		wg.Wait()
	})
	defer end() // even if the attack ends the test
	attack()
	end()
	b.t.Logf("%s: %d reads of another mount meanwhile", what, served.Load())
	require.GreaterOrEqual(b.t, served.Load(), int64(3), what)
}

// abandon sends requests at the same time, and cancels each after a while. It returns how
// many had no answer by then.
func (b *budget) abandon(after time.Duration, count int, request func(i int) (method, path string, body any)) int64 {
	b.t.Helper()
	var givenUp atomic.Int64
	var wg sync.WaitGroup
	for i := range count {
		method, path, body := request(i)
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

// slowRules are about the slowest rules that a role may have, for a room of many a's: each
// is compared with the whole name, and almost matches.
func slowRules() []string {
	const each = 65
	rules := make([]string, 0, 2000)
	for i := range 1990 {
		rules = append(rules, strings.Repeat("*a", each/2-2)+fmt.Sprintf("*b%d", i%10))
	}
	return rules
}

// slowItems are items of a batch, with rooms of 255 characters for slowRules.
func slowItems(count int) []any {
	items := make([]any, count)
	for i := range items {
		items[i] = map[string]any{"room": strings.Repeat("a", 251) + fmt.Sprintf("%04d", i)}
	}
	return items
}

// repeat is a JSON list of the same value.
func repeat(value string, count int) string {
	return "[" + strings.TrimSuffix(strings.Repeat(value+",", count), ",") + "]"
}

// Many roles of the maximum size are more than the cache can hold.
func attackWithLargeRoles(b *budget) {
	mount := b.mount()
	directives := strings.Repeat("{{identity.entity.id}}", 46)
	for i := range 40 {
		rooms := slowRules()
		if i%2 == 1 {
			rooms = rooms[:0]
			for range 129 {
				rooms = append(rooms, directives)
			}
			rooms = append(rooms, "a*")
		}
		b.write(fmt.Sprintf("%s/roles/r%d", mount, i), map[string]any{"allowed_rooms_template": true, "allowed_rooms": rooms})
	}
	b.during("large roles", func() {
		var group errgroup.Group
		group.SetLimit(4)
		for i := range 80 {
			group.Go(func() error {
				path := fmt.Sprintf("%s/creds/r%d", mount, i%40)
				status, answer, err := b.vault.Call(b.t.Context(), b.token, http.MethodGet, path+"?room=abc", nil)
				if err == nil && (status == http.StatusOK) != (i%2 == 1) {
					err = fmt.Errorf("%s: %d %s", path, status, answer.Errors())
				}
				return err
			})
		}
		require.NoError(b.t, group.Wait())
	})
}

// Slow batches end when their callers give up.
func attackWithSlowRules(b *budget) {
	mount := b.mount()
	b.write(mount+"/roles/slow", map[string]any{"allowed_rooms": append(slowRules(), "a*")})
	batch, err := json.Marshal(map[string]any{"batch_input": slowItems(1000)})
	require.NoError(b.t, err)
	body := string(batch)
	b.during("slow rules", func() {
		b.abandon(time.Second, 20, func(int) (string, string, any) { return http.MethodPost, mount + "/creds/slow", body })
	})
	b.requireIdle("slow rules")
}

// A request that is too large is refused before it is decoded: over 2 MiB by the plugin,
// over 4 MiB by gRPC. Vault answers the latter with 500.
func attackWithLargeBodies(b *budget) {
	mount := b.mount()
	const mib = 1 << 20
	paths := []string{"/creds/support", "/config", "/keys/import"}
	b.during("large bodies", func() {
		for body, want := range map[string]string{
			`{"batch_input":` + repeat(repeat("1", 9000), 20) + `}`:                            "batch_input[0]: must be an object",
			`{"batch_input":` + repeat(`"`+strings.Repeat("x", 1000)+`"`, 3*1024) + `}`:        "the request is too large: the maximum is 2 MiB",
			`{"batch_input":` + repeat(repeat(`"`+strings.Repeat("x", 60)+`"`, 9000), 5) + `}`: "the request is too large: the maximum is 2 MiB",
			`{"allowed_rooms":` + repeat(`"`+strings.Repeat("x", 250)+`"`, 9000) + `}`:         "the request is too large: the maximum is 2 MiB",
			`{"batch_input":` + repeat(`{"room":"`+strings.Repeat("x", 8000)+`"}`, 1000) + `}`: "internal error",
			`{"batch_input":` + repeat(`"`+strings.Repeat("x", mib-10)+`"`, 8) + `}`:           "internal error",
		} {
			status := http.StatusBadRequest
			to := paths
			if b.vault.Kind == devvault.OpenBao && strings.Count(body, `"`)/2 > 20_000 {
				want = "exceeded maximum number of strings" // the limit of devvault's listener
			}
			switch {
			case len(body) > 4*mib:
				status = http.StatusInternalServerError
			case len(body) < 2*mib:
				to = paths[:1] // others don't know the field, and ignore it
			}
			var group errgroup.Group
			for _, path := range to {
				group.Go(func() error {
					got, answer, err := b.vault.Call(b.t.Context(), b.token, http.MethodPost, mount+path, body)
					// gRPC's message for a request that is too large depends on the call.
					if err == nil && (got != status || status == http.StatusBadRequest && !strings.Contains(answer.Errors(), want)) {
						err = fmt.Errorf("%s, %d bytes: %d %.300s", path, len(body), got, fmt.Sprint(answer))
					}
					return err
				})
			}
			require.NoError(b.t, group.Wait())
		}
	})
}

// A key generation ends when its caller gives up, or soon after.
func attackWithGenerations(b *budget) {
	empty := b.mount()
	b.during("making keys", func() {
		b.abandon(time.Second, 8, func(int) (string, string, any) {
			return http.MethodPost, empty + "/keys/generate", map[string]any{"key_bits": 4096}
		})
	})
	b.requireIdle("making keys")
}

// Requests that are cancelled at any moment are not faults of the engine.
func attackWithCancelledRequests(b *budget) {
	mount := b.mount()
	_, private := newKey(b.t)
	_, answer := b.get(mount+"/creds/support", "room", "support-1")
	begin := len(b.vault.Log())
	requests := []struct {
		method, path string
		body         any
	}{
		{http.MethodPost, "/verify", map[string]any{"token": answer.Data()["token"]}},
		{http.MethodGet, "/creds/support?room=support-1", nil},
		{http.MethodGet, "/check/support?room=support-1", nil},
		{http.MethodPost, "/creds/support", map[string]any{"batch_input": []any{map[string]any{"room": "support-1"}, map[string]any{"room": "support-2"}}}},
		{http.MethodPost, "/roles/support", map[string]any{"allowed_rooms": "support-*"}},
		{http.MethodGet, "/roles/support", nil},
		{"LIST", "/roles", nil},
		{"LIST", "/keys", nil},
		{http.MethodGet, "/keys/1", nil},
		{http.MethodGet, "/config", nil},
		{http.MethodPost, "/config", map[string]any{"issuer": "production"}},
		{http.MethodPost, "/config", map[string]any{"private_key": private}},
		{http.MethodPost, "/keys/generate", map[string]any{"key_bits": 2048}},
		{http.MethodPost, "/keys/import", map[string]any{"private_key": private}},
		{http.MethodDelete, "/keys/7", nil},
		{http.MethodDelete, "/roles/none", nil},
	}
	var givenUp atomic.Int64
	b.during("cancelled requests", func() {
		var wg sync.WaitGroup
		for client := range 8 {
			wg.Go(func() {
				for i := range 5 * len(requests) {
					r := requests[(client*5+i)%len(requests)]
					after := time.Duration(mathrand.IntN(20_000)) * time.Microsecond //nolint:gosec // G404: moments, not secrets
					givenUp.Add(b.abandon(after, 1, func(int) (string, string, any) { return r.method, mount + r.path, r.body }))
				}
			})
		}
		wg.Wait()
	})
	log := b.vault.Log()[begin:]
	for _, text := range []string{"request failed", "existence check failed", "panicked"} {
		require.NotContains(b.t, log, text)
	}
	require.NotZero(b.t, givenUp.Load())
	b.t.Logf("%d requests were given up", givenUp.Load())
	require.Equal(b.t, http.StatusOK, b.send(http.MethodGet, mount+"/creds/support?room=support-1", "", "").status)
}

// TestBudgets attacks a Vault and measures what the plugin uses.
func TestBudgets(t *testing.T) {
	t.Parallel()
	b := newBudget(t)
	for name, attack := range map[string]func(*budget){
		"LargeRoles": attackWithLargeRoles, "SlowRules": attackWithSlowRules, "LargeBodies": attackWithLargeBodies,
		"Generations": attackWithGenerations, "Cancelled": attackWithCancelledRequests,
	} {
		t.Run(name, func(t *testing.T) {
			below := b.of(t)
			below.forgetPeak()
			attack(below)
			below.requireMemory(name)
			require.Equal(t, http.StatusOK, below.send(http.MethodGet, below.bystander, "", "").status, "afterwards")
		})
	}
	require.NotContains(t, b.vault.Log(), "panic")
}
