// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

const (
	readPause  = 20 * time.Millisecond
	writePause = 100 * time.Millisecond
	keyPause   = time.Second
)

// clusterLoad reads creds through every node of a cluster at a steady rate and looks at
// every answer. Settings change all the while, each to a number that only ever rises, so
// that an answer made with an old one is seen.
type clusterLoad struct {
	c      *testCluster
	cancel context.CancelFunc
	wg     sync.WaitGroup

	issuer, room, key sequence

	mu       sync.Mutex
	outcomes []outcome
}

// A sequence is a setting that is written again and again with the next number.
type sequence struct{ tried, acked atomic.Int64 }

// vaultsOwn are the faults that are Vault's, where a node or the plugin is not there: a
// fault of the engine comes through the plugin protocol with another code.
var vaultsOwn = []string{"local node not active", "Vault is sealed", "plugin is shut down", "rpc error: code = Unavailable"}

// An outcome is what came of one read.
type outcome struct {
	node  *devvault.Node
	at    time.Time // when the answer was there
	error string    // empty for a token
	fair  bool      // whether a cluster that has lost a node may answer so
}

func (c *testCluster) startLoad() *clusterLoad {
	ctx, cancel := context.WithCancel(context.Background())
	l := &clusterLoad{c: c, cancel: cancel}
	c.t.Cleanup(l.stop)
	for _, s := range []*sequence{&l.issuer, &l.room, &l.key} {
		s.tried.Store(l.now(s))
		s.acked.Store(l.now(s))
	}
	for _, n := range c.Nodes {
		l.wg.Go(func() { l.read(ctx, n) })
	}
	for _, w := range []struct {
		s     *sequence
		pause time.Duration
		path  string
		body  func(int64) map[string]any
	}{
		{&l.issuer, writePause, "/config", func(i int64) map[string]any { return map[string]any{"issuer": fmt.Sprintf("seq-%d", i)} }},
		{&l.room, writePause, "/roles/seq", func(i int64) map[string]any { return map[string]any{"default_room": fmt.Sprintf("room-%d", i)} }},
		{&l.key, keyPause, "/config", func(i int64) map[string]any { return map[string]any{"active_key": min(i, stagedKeys)} }},
	} {
		l.wg.Go(func() { l.write(ctx, w.s, w.pause, w.path, w.body) })
	}
	return l
}

// now is where a sequence stands before the load begins.
func (l *clusterLoad) now(s *sequence) int64 {
	l.c.t.Helper()
	config, role := l.c.root().read(clusterMount+"/config"), l.c.root().read(clusterMount+"/roles/seq")
	switch s {
	case &l.issuer:
		return number(config["issuer"])
	case &l.room:
		return number(role["default_room"])
	}
	return number(config["active_key"])
}

// number is the last part of a text like seq-12.
func number(v any) int64 {
	text := fmt.Sprint(v)
	n, err := strconv.ParseInt(text[strings.LastIndex(text, "-")+1:], 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// write writes through one node after the other, and goes on where one fails. What
// failed may have been done all the same.
func (l *clusterLoad) write(ctx context.Context, s *sequence, pause time.Duration, path string, body func(int64) map[string]any) {
	for turn := 0; sleep(ctx, pause); turn++ {
		n := s.tried.Add(1)
		node := l.c.Nodes[turn%len(l.c.Nodes)]
		status, _, err := node.Call(context.Background(), l.c.RootToken, http.MethodPost, clusterMount+path, body(n))
		if err == nil && status < http.StatusBadRequest {
			s.acked.Store(n)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (l *clusterLoad) read(ctx context.Context, n *devvault.Node) {
	for sleep(ctx, readPause) {
		o := outcome{node: n}
		issuer, room, key := l.issuer.acked.Load(), l.room.acked.Load(), l.key.acked.Load()
		status, answer, err := n.Call(context.Background(), l.c.app, http.MethodGet, clusterMount+"/creds/seq", nil)
		o.at = time.Now()
		lost := new(url.Error)
		switch {
		case errors.As(err, &lost) && !strings.Contains(lost.URL, n.Addr):
			o.error, o.fair = "redirected to a node that is not there", true
		case errors.As(err, &lost), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, new(*net.OpError)):
			o.error, o.fair = "no connection", true
		case err != nil:
			o.error = err.Error()
		case status != http.StatusOK:
			o.error, o.fair = fmt.Sprintf("%d %s", status, strings.Join(strings.Fields(answer.Errors()), " ")), status >= http.StatusInternalServerError && slices.ContainsFunc(vaultsOwn, func(text string) bool {
				return strings.Contains(answer.Errors(), text)
			})
		default:
			o.error = l.problem(answer.Data(), issuer, room, key)
		}
		l.mu.Lock()
		l.outcomes = append(l.outcomes, o)
		l.mu.Unlock()
	}
}

// problem looks for what is wrong with an answer: it must be signed by the key that it
// names, and nothing in it may be older than what was acknowledged before the request.
func (l *clusterLoad) problem(data map[string]any, issuer, room, key int64) string {
	version := fmt.Sprint(data["key_version"])
	token := fmt.Sprint(data["token"])
	public := l.c.keys[version]
	if public == nil || verifySignature(token, public) != nil {
		return "not signed by key version " + version
	}
	claims, err := claimsOf(token)
	if err != nil {
		return err.Error()
	}
	for _, c := range []struct {
		name     string
		got      int64
		min, max int64
	}{
		{"issuer", number(claims["iss"]), issuer, l.issuer.tried.Load()},
		{"room", number(claims["room"]), room, l.room.tried.Load()},
		{"key version", number(version), min(key, stagedKeys), l.key.tried.Load()},
	} {
		if c.got < c.min || c.got > c.max {
			return fmt.Sprintf("%s %d, where %d was acknowledged and %d tried", c.name, c.got, c.min, c.max)
		}
	}
	return ""
}

func (l *clusterLoad) all() []outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.outcomes)
}

// waitForTokens waits until every node but one has given a token since a moment.
func (l *clusterLoad) waitForTokens(since time.Time, but *devvault.Node) {
	l.c.t.Helper()
	defer func() {
		if l.c.t.Failed() {
			l.report("waiting for tokens", since)
		}
	}()
	require.Eventually(l.c.t, func() bool {
		gave := map[*devvault.Node]bool{but: true}
		for _, o := range l.all() {
			if o.at.After(since) && o.error == "" {
				gave[o.node] = true
			}
		}
		return !slices.ContainsFunc(l.c.Nodes, func(n *devvault.Node) bool { return !gave[n] })
	}, time.Minute, 20*time.Millisecond, "tokens from every node")
}

func (l *clusterLoad) stop() {
	l.cancel()
	l.wg.Wait()
}

// report tells what came of the load since a moment, and fails if an answer was wrong.
func (l *clusterLoad) report(what string, since time.Time) {
	l.c.t.Helper()
	failures := map[string]int{}
	var gap time.Duration
	last, reads := since, 0
	for _, o := range l.all() {
		if o.at.Before(since) {
			continue
		}
		reads++
		if o.error == "" {
			gap, last = max(gap, o.at.Sub(last)), o.at
			continue
		}
		failures[fmt.Sprintf("node %d: %s", slices.Index(l.c.Nodes, o.node), o.error)]++
		require.True(l.c.t, o.fair, o.error)
	}
	gap = max(gap, time.Since(last))
	l.c.t.Logf("%s: %d reads since, none of a token for %s at the longest", what, reads, gap.Round(10*time.Millisecond))
	for _, kind := range slices.Sorted(maps.Keys(failures)) {
		l.c.t.Logf("  failed %d times: %s", failures[kind], kind)
	}
}

func (l *clusterLoad) requireNoFailure(from, to time.Time) {
	l.c.t.Helper()
	for _, o := range l.all() {
		if o.at.After(from) && o.at.Before(to) {
			require.Empty(l.c.t, o.error)
		}
	}
}
