// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
	"golang.org/x/sync/errgroup"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// soak makes all kinds of requests, good and bad, for a while. It fails if an answer is
// wrong, or if the plugin's memory, threads or open files grow.
func (b *bench) soak(ctx context.Context, length time.Duration) error {
	b.token = b.vault.RootToken
	e, err := b.mountEngine(ctx, "soak", devvault.PluginName, "soak")
	if err != nil {
		return err
	}
	if err := b.writeAll(ctx, []writing{{"soak/roles/leased", object{"allowed_rooms": "room-*", "ttl": "10s", "generate_lease": true}}}); err != nil {
		return err
	}
	if err := b.findProcesses(); err != nil {
		return err
	}
	_, answer, err := b.vault.Call(ctx, b.token, http.MethodGet, "soak/creds/bench?room=room-1", nil)
	if err != nil {
		return err
	}
	role := b.post("soak/roles/soak", `{"allowed_rooms":"room-*"}`)
	remove := role
	remove.Method = http.MethodDelete
	good := &target{name: "good requests", requests: []vegeta.Target{
		e.single.requests[0], e.batch.requests[0], role, remove,
		b.post("soak/config", `{"issuer":"another"}`),
		b.get("soak/check/bench?room=room-1"),
		b.post("soak/verify", fmt.Sprintf(`{"token":%q}`, answer.Data()["token"])),
		b.get("soak/roles?list=true"),
		b.get("soak/keys/1"),
		b.get("soak/creds/leased?room=room-1"),
	}}
	bad := &target{name: "bad requests", status: http.StatusBadRequest, requests: []vegeta.Target{
		b.get("soak/creds/bench?room=billing"),
		b.post("soak/config", `{"private_key":"no key"}`),
	}}
	var requests atomic.Int64
	count := func(*vegeta.Result) { requests.Add(1) }
	var held []holding
	for _, part := range []time.Duration{length / 10, length * 9 / 10} { // the first one warms up
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return b.attack(ctx, good, 7, part, count) })
		group.Go(func() error { return b.attack(ctx, bad, 1, part, count) })
		if err := group.Wait(); err != nil {
			return err
		}
		h, err := b.held(devvault.PluginName)
		if err != nil {
			return err
		}
		held = append(held, h)
		fmt.Printf("%d requests; the plugin holds %d kB, %d threads, %d files\n", requests.Load(), h.memory, h.threads, h.files)
	}
	// Memory differs by a tenth from moment to moment; a leak would be far over half.
	if held[1].memory > held[0].memory*3/2 || held[1].files > held[0].files+8 || held[1].threads > held[0].threads+8 {
		return errors.New("the plugin grows")
	}
	return ctx.Err()
}

// A holding is what a process holds at one time.
type holding struct{ memory, threads, files int }

func (b *bench) held(name string) (holding, error) {
	stat, err := b.processes[name].Stat()
	files, err2 := b.processes[name].FileDescriptorsLen()
	if err := errors.Join(err, err2); err != nil {
		return holding{}, fmt.Errorf("what %s holds: %w", name, err)
	}
	return holding{stat.ResidentMemory() / 1000, stat.NumThreads, files}, nil
}
