// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/acceptance/history"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

const (
	// readPause is the pause between two reads through one node, even if the first has no
	// answer yet: a node that hangs collects requests, as in production.
	readPause  = 100 * time.Millisecond
	maxWaiting = 400 // requests at one node

	// busyClients read through the node that is harmed as fast as it answers, with a short
	// pause, so that it always has some requests in work.
	busyClients = 4
	busyPause   = 20 * time.Millisecond

	configPause = 500 * time.Millisecond
	writePause  = 500 * time.Millisecond
	keyPause    = time.Second

	// readTimeout is longer than any suspension, to see how waiting requests are answered.
	readTimeout  = 90 * time.Second
	writeTimeout = 10 * time.Second
)

// clients read through every node, write on both sides of a cut, and record everything.
type clients struct {
	nodes          []*devvault.Node
	rootToken, app string
	keys           *publicKeys
	values         [3]atomic.Int64 // the last number that was tried, by register

	http *http.Client
	stop context.CancelFunc
	wg   sync.WaitGroup // the writers, the readers, and their requests

	mu      sync.Mutex
	history history.History
	faults  []string // wrong signatures, and answers that make no sense
}

// publicKeys are a mount's public keys by version.
type publicKeys struct{ byVersion sync.Map }

func (k *publicKeys) add(version int64, text string) error {
	public, err := parsePublicKey(text)
	if err == nil {
		k.byVersion.Store(version, public)
	}
	return err
}

func (k *publicKeys) verify(token string, version int64) error {
	public, found := k.byVersion.Load(version)
	if !found {
		return fmt.Errorf("key version %d was never made", version)
	}
	return verifySignature(token, public.(*rsa.PublicKey))
}

// newClients returns clients that have not begun yet.
func (c *testCluster) newClients() *clients {
	return &clients{
		nodes: c.Nodes, rootToken: c.RootToken, app: c.app, keys: &c.keys,
		http: &http.Client{
			Transport:     &http.Transport{MaxIdleConnsPerHost: maxWaiting},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// An answer is the result of one request over HTTP.
type answer struct {
	history.Request

	data map[string]any
}

// ask sends one request. It follows no redirect: a client on one side can't reach the
// other.
func (c *clients) ask(token, method string, node int, path string, body any, timeout time.Duration) answer {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	a := answer{Request: history.Request{Node: node, Call: time.Now()}}
	resp, err := c.nodes[node].Do(ctx, c.http, devvault.Request{Method: method, Path: clusterMount + "/" + path, Token: token, Body: body})
	a.Ret = time.Now()
	if err != nil {
		a.Result, a.Text = history.Unknown, "no connection"
		if op := new(net.OpError); errors.As(err, &op) && op.Op == "dial" {
			a.Result = history.Refused
		}
		if errors.Is(err, context.DeadlineExceeded) {
			a.Result, a.Text = history.Unknown, "no answer"
		}
		return a
	}
	a.By, a.data = resp.Header.Get("X-Vault-Raft-Node-ID"), resp.Answer.Data()
	switch {
	case resp.Status >= http.StatusBadRequest:
		a.Result, a.Text = history.Unknown, fmt.Sprintf("%d %s", resp.Status, strings.Join(strings.Fields(resp.Answer.Errors()), " "))
		if resp.Status < http.StatusInternalServerError {
			a.Result = history.Refused
		}
	case resp.Status >= http.StatusMultipleChoices:
		a.Result, a.Text = history.Unknown, "redirected to another node"
	}
	return a
}

// number returns the last part of a text like seq-12.
func number(v any) int64 {
	text := fmt.Sprint(v)
	n, err := strconv.ParseInt(text[strings.LastIndex(text, "-")+1:], 10, 64)
	if err != nil {
		return history.None
	}
	return n
}

// readToken asks a node for a token and checks it.
func (c *clients) readToken(node int) history.Request {
	a := c.ask(c.app, http.MethodGet, node, "creds/"+seqRole, nil, readTimeout)
	r := a.Request
	if r.Result != history.Done {
		return r
	}
	token, _ := a.data["token"].(string)
	r.Values[history.Key] = number(a.data["key_version"])
	err := c.keys.verify(token, r.Values[history.Key])
	var claims map[string]any
	if err == nil {
		claims, err = claimsOf(token)
	}
	if err != nil {
		c.fault("a token by %s, key version %d: %v", r.By, r.Values[history.Key], err)
		return r
	}
	r.Values[history.Role], r.Values[history.Issuer] = number(claims["room"]), number(claims["iss"])
	return r
}

// readConfig reads the configuration from a node.
func (c *clients) readConfig(node int) history.Request {
	a := c.ask(c.rootToken, http.MethodGet, node, "config", nil, readTimeout)
	a.Values = history.Values{history.Role: history.None, history.Issuer: number(a.data["issuer"]), history.Key: number(a.data["active_key"])}
	return a.Request
}

func (c *clients) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

// start begins reading through every node, and writing on both sides of the harmed one.
// first is a token from before.
func (c *clients) start(first history.Request, harmed int) {
	c.history.Initial = first.Values
	for _, reg := range history.Registers {
		c.values[reg].Store(first.Values[reg])
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	var others []int
	for node := range c.nodes {
		c.wg.Go(func() { c.reader(ctx, readPause, func() history.Request { return c.readToken(node) }) })
		c.wg.Go(func() { c.reader(ctx, configPause, func() history.Request { return c.readConfig(node) }) })
		if node != harmed {
			others = append(others, node)
		}
	}
	for range busyClients {
		c.wg.Go(func() {
			for sleep(ctx, busyPause) {
				c.record(c.readToken(harmed))
			}
		})
	}
	for _, side := range [][]int{others, {harmed}} {
		for _, r := range []history.Register{history.Role, history.Issuer} {
			c.wg.Go(func() { c.writer(ctx, r, side) })
		}
	}
	c.wg.Go(func() { c.rotate(ctx, others) })
}

// end stops the clients and waits for their requests.
func (c *clients) end() *history.History {
	c.stop()
	c.wg.Wait()
	return &c.history
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (c *clients) reader(ctx context.Context, pause time.Duration, read func() history.Request) {
	waiting := make(chan struct{}, maxWaiting)
	for sleep(ctx, pause) {
		select {
		case waiting <- struct{}{}:
		default:
			continue
		}
		c.wg.Go(func() {
			c.record(read())
			<-waiting
		})
	}
}

func (c *clients) record(r history.Request) history.Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.history.Requests = append(c.history.Requests, r)
	return r.Result
}

// set writes a register through a node.
func (c *clients) set(r history.Register, value int64, node int) history.Result {
	path, body := "config", map[string]any{}
	switch r {
	case history.Role:
		room := fmt.Sprintf("room-%d", value)
		path, body = "roles/"+seqRole, map[string]any{"allowed_rooms": room, "default_room": room}
	case history.Issuer:
		body["issuer"] = fmt.Sprintf("seq-%d", value)
	case history.Key:
		body["active_key"] = value
	}
	a := c.ask(c.rootToken, http.MethodPost, node, path, body, writeTimeout)
	a.Kind, a.Values = history.Write, history.Only(r, value)
	return c.record(a.Request)
}

// writer writes a register through the nodes of one side in turn.
func (c *clients) writer(ctx context.Context, r history.Register, side []int) {
	for turn := 0; sleep(ctx, writePause); turn++ {
		c.set(r, c.values[r].Add(1), side[turn%len(side)])
	}
}

// rotate makes a new key, switches to it and deletes the old ones, again and again. After a
// switch that was not acknowledged, either key may be active: the next round deletes both.
func (c *clients) rotate(ctx context.Context, side []int) {
	old := []int64{c.history.Initial[history.Key]}
	for turn := 0; sleep(ctx, keyPause); turn++ {
		node := side[turn%len(side)]
		made := c.ask(c.rootToken, http.MethodPost, node, "keys/generate", map[string]any{}, writeTimeout)
		if made.Result != history.Done {
			continue
		}
		version := number(made.data["version"])
		if err := c.keys.add(version, fmt.Sprint(made.data["public_key"])); err != nil {
			c.fault("keys/generate: %v", err)
			continue
		}
		if c.set(history.Key, version, node) != history.Done {
			old = append(old, version)
			continue
		}
		var left []int64
		for _, v := range old {
			deletion := c.ask(c.rootToken, http.MethodDelete, node, fmt.Sprintf("keys/%d", v), nil, writeTimeout)
			deletion.Kind, deletion.Values = history.Deletion, history.Only(history.Key, v)
			if c.record(deletion.Request) != history.Done {
				left = append(left, v)
			}
		}
		old = append(left, version)
	}
}

// deletedElsewhere reports whether another node has acknowledged a deletion since.
func (c *clients) deletedElsewhere(node string, since time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.history.Requests, func(r history.Request) bool {
		return r.Deleted() && r.By != node && r.Ret.After(since)
	})
}

// answeredSince reports whether every node has given a token to a request sent since.
func (c *clients) answeredSince(since time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	gave := map[int]bool{}
	for _, r := range c.history.Requests {
		if r.Token() && r.Call.After(since) {
			gave[r.Node] = true
		}
	}
	return len(gave) == len(c.nodes)
}
