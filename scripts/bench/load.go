// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/procfs"
	vegeta "github.com/tsenart/vegeta/v12/lib"
	"golang.org/x/sync/errgroup"
)

const (
	// sampled: one of so many answers is checked, and the first of every slice.
	sampled = 50
	// anyRoom ends the URL of a request that asks for another room each time.
	anyRoom = "?room=room-"
)

// A target is a request that is repeated, or several in turn.
type target struct {
	name      string
	processes []string // those that work for it
	requests  []vegeta.Target
	tokens    uint64 // in one answer
	check     bool   // whether the engine's key signed them
	status    uint16 // of the answers; 0 is 200 or 204
}

// A sample is the result of one or more slices.
type sample struct {
	latencies vegeta.LatencyMetrics
	tokens    uint64
	elapsed   time.Duration
	cpu       map[string]time.Duration // by process
}

func (s *sample) rate() float64 { return float64(s.tokens) / s.elapsed.Seconds() }

// per is a duration for each token, in microseconds.
func (s *sample) per(d time.Duration) float64 { return d.Seconds() * 1e6 / float64(s.tokens) }

// percentile is in milliseconds.
func (s *sample) percentile(p float64) float64 { return s.latencies.Quantile(p).Seconds() * 1e3 }

// cpuPer is the CPU time of all processes for each token, in microseconds.
func (s *sample) cpuPer() float64 {
	var total time.Duration
	for _, used := range s.cpu {
		total += used
	}
	return s.per(total)
}

// load repeats a target's request on n persistent connections for the length of a slice, each
// as soon as the one before is answered, and adds what it measured to s.
func (b *bench) load(ctx context.Context, t *target, n uint64, slice time.Duration, s *sample) error {
	before, err := b.cpu(t)
	if err != nil {
		return err
	}
	var m vegeta.Metrics
	err = b.attack(ctx, t, n, slice, func(r *vegeta.Result) {
		m.Add(r)
		s.latencies.Add(r.Latency)
	})
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	after, err := b.cpu(t)
	if err != nil {
		return err
	}
	m.Close()
	s.tokens += m.Requests * t.tokens
	s.elapsed += m.Duration + m.Wait
	if s.cpu == nil {
		s.cpu = map[string]time.Duration{}
	}
	for name := range after {
		s.cpu[name] += after[name] - before[name]
	}
	return nil
}

// attack repeats a request until the time is up or the context is done; no time is forever.
// It waits for the answers to all that it sent, so that none disturbs the next measurement.
func (b *bench) attack(ctx context.Context, t *target, n uint64, length time.Duration, each func(*vegeta.Result)) error {
	attacker := vegeta.NewAttacker(vegeta.Client(b.client), vegeta.Workers(n), vegeta.MaxWorkers(n))
	release := context.AfterFunc(ctx, func() { attacker.Stop() })
	defer release()
	var sent atomic.Uint64
	next := func(request *vegeta.Target) error {
		n := sent.Add(1)
		*request = t.requests[n%uint64(len(t.requests))]
		if strings.HasSuffix(request.URL, anyRoom) {
			request.URL += strconv.FormatUint(n, 10)
		}
		return nil
	}
	var failed error
	for r := range attacker.Attack(next, vegeta.Rate{}, length, "") {
		each(r)
		err := b.judge(t, r)
		if err != nil && failed == nil {
			failed = fmt.Errorf("%s: %w", t.name, err)
			attacker.Stop()
		}
	}
	return failed
}

// judge returns what is wrong with an answer.
func (b *bench) judge(t *target, r *vegeta.Result) error {
	switch {
	case t.status != 0 && r.Code == t.status:
	case t.status != 0 || r.Code != http.StatusOK && r.Code != http.StatusNoContent:
		return fmt.Errorf("%s %s: status %d: %s %s", r.Method, r.URL, r.Code, r.Error, r.Body)
	case t.check && r.Seq%sampled == 0:
		return b.checkTokens(t, r)
	}
	return nil
}

// readsDuringBatches measures single reads on one connection while another one asks for
// batches of 1,000, one after the other.
func (b *bench) readsDuringBatches(ctx context.Context, e *engine, slice time.Duration, s *sample) error {
	batches, stop := context.WithCancel(ctx)
	defer stop()
	var group errgroup.Group
	group.Go(func() error { return b.attack(batches, e.thousand, 1, 0, func(*vegeta.Result) {}) })
	err := b.load(ctx, e.single, 1, slice, s)
	stop()
	return errors.Join(err, group.Wait())
}

// checkTokens verifies the tokens in an answer, and that each is for the room that was asked
// for.
func (b *bench) checkTokens(t *target, r *vegeta.Result) error {
	type item struct{ Token string }
	var answer struct {
		Data struct {
			item
			Results []item `json:"batch_results"`
		}
	}
	if err := json.Unmarshal(r.Body, &answer); err != nil {
		return fmt.Errorf("decoding the answer: %w", err)
	}
	if t.tokens == 1 {
		request, err := url.Parse(r.URL)
		if err != nil {
			return fmt.Errorf("the URL: %w", err)
		}
		return b.checkToken(answer.Data.Token, request.Query().Get("room"))
	}
	if uint64(len(answer.Data.Results)) != t.tokens {
		return fmt.Errorf("%d tokens in a batch of %d", len(answer.Data.Results), t.tokens)
	}
	for i, result := range answer.Data.Results {
		if err := b.checkToken(result.Token, roomOf(i)); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) checkToken(token, room string) error {
	claims := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return &b.key.PublicKey, nil },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired())
	if err != nil {
		return fmt.Errorf("the token for room %q: %w", room, err)
	}
	if claims["room"] != room {
		return fmt.Errorf("a token for room %q, asked for %q", claims["room"], room)
	}
	return nil
}

// findProcesses finds the plugins of the Vault by their parent.
func (b *bench) findProcesses() error {
	all, err := procfs.AllProcs()
	if err != nil {
		return fmt.Errorf("CPU time is read from /proc, which Linux has: %w", err)
	}
	b.processes = map[string]procfs.Proc{}
	for _, process := range all {
		if process.PID == b.vault.PID() {
			b.processes["vault"] = process
		}
		if process.PID == b.vendorPID {
			b.processes["node"] = process
		}
		// A process that has ended by now is none of ours.
		stat, err := process.Stat()
		if err != nil || stat.PPID != b.vault.PID() {
			continue
		}
		if bin, err := process.Executable(); err == nil {
			b.processes[filepath.Base(bin)] = process
		}
	}
	return nil
}

// cpu is the CPU time that the processes of a target have used so far.
func (b *bench) cpu(t *target) (map[string]time.Duration, error) {
	used := map[string]time.Duration{}
	for _, name := range t.processes {
		stat, err := b.processes[name].Stat()
		if err != nil {
			return nil, fmt.Errorf("the CPU time of %s: %w", name, err)
		}
		used[name] = time.Duration(stat.CPUTime() * float64(time.Second))
	}
	return used, nil
}
