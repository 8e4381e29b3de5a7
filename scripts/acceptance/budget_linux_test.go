// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
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

// budget is a separate Vault. Its plugin is built as for a release, because the race
// detector takes several times the memory.
type budget struct {
	client

	// bystander is a path on another mount. It is read during every attack.
	bystander string
}

func newBudget(t *testing.T) *budget {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "plugins", devvault.PluginName)
	out, err := exec.Command("../../scripts/build.sh", file).CombinedOutput()
	require.NoError(t, err, string(out))
	config := filepath.Join(dir, "config.hcl")
	require.NoError(t, os.WriteFile(config, []byte("raw_storage_endpoint = true\n"), 0o600))
	server, err := devvault.Start(t.Context(), devvault.Options{
		VaultBin: os.Getenv("VAULT_BIN"), PluginDir: filepath.Dir(file), LogLevel: "trace", Config: config,
	})
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

// TestBudgets attacks a Vault and measures what the plugin uses.
func TestBudgets(t *testing.T) {
	b := newBudget(t)
	for name, attack := range map[string]func(*budget){
		"LongTexts": attackWithLongTexts, "LargeRoles": attackWithLargeRoles, "SlowRules": attackWithSlowRules, "LargeBodies": attackWithLargeBodies, "Keys": attackWithKeys,
		"Cancelled": attackWithCancelledRequests, "ChangesDuringBatches": changesDuringBatches, "CorruptStorage": corruptStorage,
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
