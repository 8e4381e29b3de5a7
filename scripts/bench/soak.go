// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

const (
	soakWorkers = 8
	soakSamples = 20

	// How much more than after the first sample the plugin may hold at the end. More
	// counts as growth.
	soakMemory = 1.25
	soakFiles  = 8
)

// An errand is one request of the mixed load, and the status that the answer must have.
type errand struct {
	method, path string
	body         any
	status       int
}

// soak makes all kinds of requests, good and bad, on all cores for a while. It fails if an
// answer is wrong, or if the plugin's memory, threads or open files grow.
func (b *bench) soak(ctx context.Context, length time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	if _, err := b.write(ctx, "clanmeeting/roles/leased", map[string]any{"allowed_rooms": "room-*", "ttl": "10s", "generate_lease": true}); err != nil {
		return err
	}
	_, answer, err := b.vault.Call(ctx, b.vault.RootToken, http.MethodGet, "clanmeeting/creds/bench?room=room-1", nil)
	if err != nil {
		return err
	}
	token, _ := answer.Data()["token"].(string)
	var done atomic.Int64
	errs := make([]error, soakWorkers)
	var wg sync.WaitGroup
	for i := range soakWorkers {
		wg.Go(func() {
			defer cancel() // if one fails, all end
			for n := i; ctx.Err() == nil && errs[i] == nil; n += soakWorkers {
				errs[i] = b.run(ctx, errandOf(n, token))
				done.Add(1)
			}
		})
	}
	samples := b.watch(ctx, length/soakSamples, &done)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return grown(samples)
}

// errandOf returns the nth request. Most are reads of a token.
func errandOf(n int, token string) errand {
	role := fmt.Sprintf("clanmeeting/roles/soak%d", n/20%1000)
	switch n % 20 {
	case 0:
		return errand{http.MethodPost, role, map[string]any{"allowed_rooms": "room-*"}, http.StatusNoContent}
	case 1:
		return errand{http.MethodDelete, role, nil, http.StatusNoContent}
	case 2:
		return errand{http.MethodPost, "clanmeeting/config", map[string]any{"issuer": fmt.Sprintf("issuer-%d", n)}, http.StatusNoContent}
	case 3:
		return errand{http.MethodPost, "clanmeeting/creds/bench", `{"batch_input":[` + repeat(`{"room":"room-x"}`, 20) + `]}`, http.StatusOK}
	case 4:
		return errand{http.MethodGet, "clanmeeting/check/bench?room=room-1", nil, http.StatusOK}
	case 5:
		return errand{http.MethodPost, "clanmeeting/verify", map[string]any{"token": token}, http.StatusOK}
	case 6:
		return errand{http.MethodGet, "clanmeeting/creds/bench?room=billing", nil, http.StatusBadRequest}
	case 7:
		return errand{http.MethodPost, "clanmeeting/config", map[string]any{"private_key": "no key"}, http.StatusBadRequest}
	case 8:
		return errand{http.MethodGet, "clanmeeting/roles?list=true", nil, http.StatusOK}
	case 9:
		return errand{http.MethodGet, "clanmeeting/keys/1", nil, http.StatusOK}
	case 10:
		return errand{http.MethodGet, "clanmeeting/creds/leased?room=room-1", nil, http.StatusOK}
	}
	return errand{http.MethodGet, "clanmeeting/creds/bench?room=room-1", nil, http.StatusOK}
}

func (b *bench) run(ctx context.Context, e errand) error {
	status, answer, err := b.vault.Call(ctx, b.vault.RootToken, e.method, e.path, e.body)
	switch {
	case ctx.Err() != nil:
		return nil // the time is up
	case err != nil:
		return err
	case status != e.status:
		return fmt.Errorf("%s %s: status %d, not %d: %s", e.method, e.path, status, e.status, answer.Errors())
	}
	return nil
}

// A holding is the memory, threads and open files of the plugin at one time.
type holding struct{ memory, threads, files int }

// watch prints the plugin's holding at every interval, until the time is up.
func (b *bench) watch(ctx context.Context, interval time.Duration, done *atomic.Int64) []holding {
	var samples []holding
	for {
		select {
		case <-ctx.Done():
			return samples
		case <-time.After(interval):
		}
		h := held(b.processes[devvault.PluginName])
		samples = append(samples, h)
		fmt.Printf("%d requests; the plugin holds %d kB, %d threads, %d files\n", done.Load(), h.memory, h.threads, h.files)
	}
}

// held reads /proc. Without /proc, it returns nothing.
func held(pid int) holding {
	var h holding
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return h
	}
	for line := range strings.Lines(string(raw)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d", &h.memory)
		_, _ = fmt.Sscanf(line, "Threads: %d", &h.threads)
	}
	if files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil {
		h.files = len(files)
	}
	return h
}

// grown compares the last samples with the first ones. The very first is a warm-up.
func grown(samples []holding) error {
	if len(samples) < 3 {
		return errors.New("too short to see whether anything grows")
	}
	first, last := samples[1], samples[len(samples)-1]
	if last.memory == 0 {
		return errors.New("the plugin's memory could not be read: the plugin has ended, or there is no /proc")
	}
	if float64(last.memory) > soakMemory*float64(first.memory) || last.files > first.files+soakFiles || last.threads > first.threads+soakFiles {
		return fmt.Errorf("the plugin grows: from %+v to %+v", first, last)
	}
	return nil
}
