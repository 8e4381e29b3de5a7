// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"context"
	"crypto/rsa"
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
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

const (
	readPause  = 20 * time.Millisecond
	writePause = 100 * time.Millisecond
	keyPause   = time.Second

	// allowedLag is how old a setting may be on a standby that serves reads itself. We have
	// seen 0.2 s for nearly all answers, and at most 1.0 s.
	allowedLag = 3 * time.Second
)

// clusterLoad reads creds through every node of a cluster at a steady rate and checks
// every answer. Meanwhile settings change, each to a number that only increases, so that an
// answer with an old setting is noticed.
//
// If standbys forward, no answer may be older than the last change that was acknowledged
// before the request. If they serve reads, an answer may be older by allowedLag, and by any
// time between loosen and settle. No node may ever go back to an older setting, unless it
// was restarted.
type clusterLoad struct {
	c      *testCluster
	cancel context.CancelFunc
	wg     sync.WaitGroup

	issuer, room, key sequence
	forget            [3]atomic.Bool // by node: it was restarted

	mu       sync.Mutex
	outcomes []outcome
	loose    bool      // standbys may lag without limit
	settled  time.Time // when the limit was in force again
}

// A sequence is a setting that is written repeatedly, each time with the next number.
type sequence struct {
	tried, acked atomic.Int64

	mu      sync.Mutex
	history []ack
}

type ack struct {
	number int64
	at     time.Time
}

func (s *sequence) acknowledge(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked.Store(n)
	s.history = append(s.history, ack{n, time.Now()})
}

// ackedAt returns the last number that was acknowledged at a time; 0 before the first.
func (s *sequence) ackedAt(at time.Time) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range slices.Backward(s.history) {
		if !a.at.After(at) {
			return a.number
		}
	}
	return 0
}

// A view is the settings of one answer, or the oldest that are allowed.
type view struct{ issuer, room, key int64 }

// oldest returns the oldest settings that the answer to a request sent now may have.
func (l *clusterLoad) oldest() view {
	if !l.c.standbyReads {
		return view{l.issuer.acked.Load(), l.room.acked.Load(), min(l.key.acked.Load(), stagedKeys)}
	}
	at := time.Now().Add(-allowedLag)
	l.mu.Lock()
	loose := l.loose || at.Before(l.settled)
	l.mu.Unlock()
	if loose {
		return view{}
	}
	return view{l.issuer.ackedAt(at), l.room.ackedAt(at), min(l.key.ackedAt(at), stagedKeys)}
}

// loosen is called before a node is stopped or started. Until settle, standbys that serve
// reads may miss changes.
func (l *clusterLoad) loosen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loose = true
}

func (l *clusterLoad) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loose, l.settled = false, time.Now()
}

// restarted is called after a node has ended. It does not know its earlier answers.
func (l *clusterLoad) restarted(n *devvault.Node) {
	l.forget[slices.Index(l.c.Nodes, n)].Store(true)
}

// vaultsOwn matches Vault's own errors, when a node or the plugin is gone. A fault of the
// engine has another code in the plugin protocol.
var vaultsOwn = []string{"local node not active", "Vault is sealed", "plugin is shut down", "rpc error: code = Unavailable"}

// An outcome is the result of one read.
type outcome struct {
	node  *devvault.Node
	at    time.Time // when the answer arrived
	error string    // empty for a token
	fair  bool      // a cluster that has lost a node may answer like this
}

func (c *testCluster) startLoad() *clusterLoad {
	ctx, cancel := context.WithCancel(context.Background())
	l := &clusterLoad{c: c, cancel: cancel}
	c.t.Cleanup(l.stop)
	for _, s := range []*sequence{&l.issuer, &l.room, &l.key} {
		s.tried.Store(l.now(s))
		s.acknowledge(l.now(s))
	}
	for i, n := range c.Nodes {
		l.wg.Go(func() { l.read(ctx, n, &l.forget[i]) })
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

// now returns the number of a sequence before the load begins.
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

// number returns the last part of a text like seq-12.
func number(v any) int64 {
	text := fmt.Sprint(v)
	n, err := strconv.ParseInt(text[strings.LastIndex(text, "-")+1:], 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// write writes through one node after the other, and continues if one fails. A failed write
// may still have been done.
func (l *clusterLoad) write(ctx context.Context, s *sequence, pause time.Duration, path string, body func(int64) map[string]any) {
	for turn := 0; sleep(ctx, pause); turn++ {
		n := s.tried.Add(1)
		node := l.c.Nodes[turn%len(l.c.Nodes)]
		status, _, err := node.Call(context.Background(), l.c.RootToken, http.MethodPost, clusterMount+path, body(n))
		if err == nil && status < http.StatusBadRequest {
			s.acknowledge(n)
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

func (l *clusterLoad) read(ctx context.Context, n *devvault.Node, forget *atomic.Bool) {
	var newest view // of this node's answers
	for sleep(ctx, readPause) {
		o := outcome{node: n}
		if forget.Swap(false) {
			newest = view{}
		}
		oldest := l.oldest()
		status, answer, err := n.Call(context.Background(), l.c.app, http.MethodGet, clusterMount+"/creds/seq", nil)
		o.at = time.Now()
		if err != nil || status != http.StatusOK {
			o.error, o.fair = failure(n, status, answer, err)
		} else {
			o.error = l.problem(answer.Data(), oldest, &newest)
		}
		l.mu.Lock()
		l.outcomes = append(l.outcomes, o)
		l.mu.Unlock()
	}
}

// failure says how a request failed, and whether a cluster that has lost a node may answer
// like this.
func failure(n *devvault.Node, status int, answer devvault.Answer, err error) (text string, fair bool) {
	lost := new(url.Error)
	switch {
	case errors.As(err, &lost) && !strings.Contains(lost.URL, n.Addr):
		return "redirected to a node that is not there", true
	case errors.As(err, &lost), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, new(*net.OpError)):
		return "no connection", true
	case err != nil:
		return err.Error(), false
	}
	return fmt.Sprintf("%d %s", status, strings.Join(strings.Fields(answer.Errors()), " ")),
		status >= http.StatusInternalServerError && slices.ContainsFunc(vaultsOwn, func(text string) bool {
			return strings.Contains(answer.Errors(), text)
		})
}

// problem says what is wrong with an answer. It must be signed by the key that it names, and
// no setting in it may be older than oldest, or than in an earlier answer of the node.
func (l *clusterLoad) problem(data map[string]any, oldest view, newest *view) string {
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
		newest   *int64
	}{
		{"issuer", number(claims["iss"]), oldest.issuer, l.issuer.tried.Load(), &newest.issuer},
		{"room", number(claims["room"]), oldest.room, l.room.tried.Load(), &newest.room},
		{"key version", number(version), oldest.key, l.key.tried.Load(), &newest.key},
	} {
		if c.got < c.min || c.got > c.max {
			return fmt.Sprintf("%s %d, where %d was acknowledged and %d tried", c.name, c.got, c.min, c.max)
		}
		if c.got < *c.newest {
			return fmt.Sprintf("%s %d, after the same node answered with %d", c.name, c.got, *c.newest)
		}
		*c.newest = c.got
	}
	return ""
}

func (l *clusterLoad) all() []outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.outcomes)
}

// waitForTokens waits until every node except one has given a token since a given time.
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

// report logs the results of the load since a given time, and fails if an answer was wrong.
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

// The load's rules for a standby that serves reads: at most allowedLag behind, and never
// back.
func TestLagRules(t *testing.T) {
	l := &clusterLoad{c: &testCluster{t: t, standbyReads: true, keys: map[string]*rsa.PublicKey{}}}
	key, _ := newKey(t)
	l.c.keys["1"] = &key.PublicKey
	l.key.tried.Store(1)
	l.issuer.history = []ack{{3, time.Now().Add(-allowedLag - time.Second)}, {4, time.Now().Add(-allowedLag / 2)}}
	for _, s := range []*sequence{&l.issuer, &l.room} {
		s.tried.Store(5)
		s.acked.Store(4)
	}
	require.Equal(t, view{issuer: 3}, l.oldest())
	l.loosen()
	require.Equal(t, view{}, l.oldest())
	l.settle()
	require.Equal(t, view{}, l.oldest(), "standbys have that time to catch up")
	l.settled = time.Now().Add(-2 * allowedLag)
	require.Equal(t, view{issuer: 3}, l.oldest())
	l.c.standbyReads = false
	require.Equal(t, view{issuer: 4, room: 4}, l.oldest(), "one that forwards must not lag at all")

	var newest view
	answer := func(issuer string) string {
		return l.problem(map[string]any{"token": signedToken(t, key, issuer), "key_version": 1}, view{issuer: 3}, &newest)
	}
	require.Empty(t, answer("seq-3"))
	require.Empty(t, answer("seq-5"))
	require.Equal(t, "issuer 4, after the same node answered with 5", answer("seq-4"))
	require.Equal(t, "issuer 2, where 3 was acknowledged and 5 tried", answer("seq-2"))
	require.Equal(t, "issuer 6, where 3 was acknowledged and 5 tried", answer("seq-6"))
}

// signedToken returns a token for room-4, signed by the key.
func signedToken(t *testing.T, key *rsa.PrivateKey, issuer string) string {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{"iss": issuer, "room": "room-4"}).SignedString(key)
	require.NoError(t, err)
	return token
}
