// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

const (
	manyRoles     = 100_000
	distinctRoles = 10_000 // more than the engine's cache holds
	scaleWriters  = 8
)

// scale writes many roles and shows their cost: to write and list them, and for a read of
// one, for the plugin's memory, and for its start.
func (b *bench) scale(ctx context.Context, slice time.Duration) error {
	one := b.targets[0]
	few, err := b.load(ctx, one, scaleWriters, slice)
	if err != nil {
		return err
	}
	fmt.Printf("1 role: %s, plugin memory %s\n", describe(few), b.pluginMemory())

	start := time.Now()
	if err := b.writeRoles(ctx); err != nil {
		return err
	}
	fmt.Printf("writing %d roles, %d at a time: %.0f a second\n", manyRoles, scaleWriters, manyRoles/time.Since(start).Seconds())
	start = time.Now()
	status, answer, err := b.vault.Call(ctx, b.vault.RootToken, http.MethodGet, "clanmeeting/roles?list=true", nil)
	if err != nil {
		return err
	}
	names, _ := answer.Data()["keys"].([]any)
	if status != http.StatusOK || len(names) != manyRoles+1 {
		return fmt.Errorf("listing: status %d, %d roles", status, len(names))
	}
	fmt.Printf("listing them: %s\n", time.Since(start).Round(time.Millisecond))

	// No role has been used yet: a restarted plugin does no work for them.
	if _, err := b.write(ctx, "sys/plugins/reload/backend", map[string]any{"mounts": []string{"clanmeeting/"}}); err != nil {
		return err
	}
	b.findProcesses()
	start = time.Now()
	if _, err := b.request(ctx, http.DefaultClient, one); err != nil {
		return err
	}
	fmt.Printf("first token after a restart of the plugin with %d roles: %s, plugin memory %s\n", manyRoles, time.Since(start).Round(time.Millisecond), b.pluginMemory())
	return b.readRoles(ctx, one, slice)
}

// readRoles compares reads of one role, of many roles, and of a role with many rooms. They
// alternate.
func (b *bench) readRoles(ctx context.Context, one *target, slice time.Duration) error {
	rooms := make([]string, 1000)
	for i := range rooms {
		rooms[i] = fmt.Sprintf("hall-%d-*", i)
	}
	rooms[len(rooms)-1] = "room-*"
	if _, err := b.write(ctx, "clanmeeting/roles/rooms", map[string]any{"allowed_rooms": rooms, "ttl": "5m"}); err != nil {
		return err
	}
	var next atomic.Int64
	readings := []*struct {
		what  string
		role  func() string
		total sample
	}{
		{what: "the same role", role: func() string { return "bench" }},
		{what: fmt.Sprintf("%d roles in turn", distinctRoles), role: func() string { return fmt.Sprintf("role%d", next.Add(1)%distinctRoles) }},
		{what: "a role with 1000 globs", role: func() string { return "rooms" }},
	}
	for range 12 {
		for _, r := range readings {
			t := *one
			t.url = func(n int64) string {
				return fmt.Sprintf("%s/v1/clanmeeting/creds/%s?room=%s", b.vault.Addr, r.role(), roomOf(n))
			}
			s, err := b.load(ctx, &t, scaleWriters, slice/2)
			if err != nil {
				return err
			}
			r.total.join(s)
		}
	}
	for _, r := range readings {
		fmt.Printf("%d roles, %s: %s, plugin memory %s\n", manyRoles, r.what, describe(&r.total), b.pluginMemory())
	}
	return nil
}

func describe(s *sample) string {
	return fmt.Sprintf("%.0f tokens/s, p50 %s ms, p99 %s ms, CPU %s µs", s.rate(), milliseconds(s.percentile(0.5)), milliseconds(s.percentile(0.99)), s.split())
}

func (b *bench) writeRoles(ctx context.Context) error {
	var next atomic.Int64
	errs := make([]error, scaleWriters)
	var wg sync.WaitGroup
	for i := range scaleWriters {
		wg.Go(func() {
			for n := next.Add(1) - 1; n < manyRoles && errs[i] == nil; n = next.Add(1) - 1 {
				_, errs[i] = b.write(ctx, fmt.Sprintf("clanmeeting/roles/role%d", n), map[string]any{"allowed_rooms": "room-*", "ttl": "5m"})
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// pluginMemory is the resident memory of the plugin; 0 without /proc.
func (b *bench) pluginMemory() string {
	return fmt.Sprintf("%d kB", held(b.processes[devvault.PluginName]).memory)
}
