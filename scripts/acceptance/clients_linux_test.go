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
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/acceptance/history"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

const (
	// readPause is the pause between two reads through one node, even if the first has no
	// answer yet: a node that hangs collects requests, as in production.
	readPause   = 100 * time.Millisecond
	configPause = 500 * time.Millisecond
	maxWaiting  = 400 // requests at one node

	// Through the node that is harmed, more clients read as fast as it answers, so that it
	// always has some requests in work.
	busyPause   = 5 * time.Millisecond
	busyClients = 4

	writePause = 500 * time.Millisecond
	keyPause   = time.Second

	// readTimeout is longer than any suspension, to see how waiting requests are answered.
	readTimeout  = 90 * time.Second
	writeTimeout = 10 * time.Second
)

// direct follows no redirect: a client on one side of a cut can't reach the other.
var direct = &http.Client{
	Transport:     &http.Transport{MaxIdleConnsPerHost: maxWaiting},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// ask sends one request about the mount, and returns its result and the data of the answer.
func (c *testCluster) ask(method string, node int, path string, body any) (history.Request, map[string]any) {
	timeout := writeTimeout
	if method == http.MethodGet {
		timeout = readTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	request := devvault.Request{Method: method, Path: clusterMount + "/" + path, Token: c.RootToken, Body: body}
	r := history.Request{Node: node, Call: time.Now(), Result: history.Unknown}
	resp, err := c.Nodes[node].Do(ctx, direct, request)
	r.Ret = time.Now()
	if err != nil {
		r.Text = "no connection"
		if op := new(net.OpError); errors.As(err, &op) && op.Op == "dial" {
			r.Result = history.Refused
		}
		if errors.Is(err, context.DeadlineExceeded) {
			r.Result, r.Text = history.Unknown, "no answer"
		}
		return r, nil
	}
	r.By = resp.Header.Get("X-Vault-Raft-Node-ID")
	switch {
	case resp.Status < http.StatusMultipleChoices:
		r.Result = history.Done
	case resp.Status < http.StatusBadRequest:
		r.Text = "redirected to another node"
	default:
		r.Text = fmt.Sprintf("%d %s", resp.Status, strings.Join(strings.Fields(resp.Answer.Errors()), " "))
		if resp.Status < http.StatusInternalServerError {
			r.Result = history.Refused
		}
	}
	return r, resp.Answer.Data()
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

// readToken asks a node for a token and checks it. A wrong one is a failure.
func (c *testCluster) readToken(node int) history.Request {
	r, data := c.ask(http.MethodGet, node, "creds/"+seqRole, nil)
	if r.Result != history.Done {
		return r
	}
	version := number(data["key_version"])
	claims, err := c.verify(fmt.Sprint(data["token"]), version)
	if err != nil {
		r.Result, r.Text = history.Unknown, fmt.Sprintf("a wrong token by %s, key version %d: %v", r.By, version, err)
	}
	r.Values = history.Values{number(claims["room"]), number(claims["iss"]), version}
	return r
}

// verify checks a token with a key version, and returns its claims.
func (c *testCluster) verify(token string, version int64) (map[string]any, error) {
	public, found := c.keys.Load(version)
	if !found {
		return nil, errors.New("this key was never made")
	}
	if err := verifySignature(token, public.(*rsa.PublicKey)); err != nil {
		return nil, err
	}
	return claimsOf(token)
}

// readConfig reads the configuration from a node.
func (c *testCluster) readConfig(node int) history.Request {
	r, data := c.ask(http.MethodGet, node, "config", nil)
	r.Values = history.Values{history.None, number(data["issuer"]), number(data["active_key"])}
	return r
}

// generate stages a key, and returns its version. Without an answer that is history.None.
func (c *testCluster) generate(node int) int64 {
	_, data := c.ask(http.MethodPost, node, "keys/generate", map[string]any{})
	public, err := parsePublicKey(fmt.Sprint(data["public_key"]))
	if err != nil {
		return history.None
	}
	version := number(data["version"])
	c.keys.Store(version, public)
	return version
}

// load is clients that read through every node, write on both sides of a cut, and record
// everything.
type load struct {
	*testCluster
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	history history.History
}

// startLoad begins reading through every node, and writing on both sides of the harmed one.
func (c *testCluster) startLoad(initial history.Values, harmed int) *load {
	ctx, stop := context.WithCancel(context.Background())
	l := &load{testCluster: c, stop: stop}
	l.history.Initial = initial
	var others []int
	for node := range c.Nodes {
		repeat(ctx, &l.wg, readPause, maxWaiting, func(int) { l.record(c.readToken(node)) })
		repeat(ctx, &l.wg, configPause, maxWaiting, func(int) { l.record(c.readConfig(node)) })
		if node != harmed {
			others = append(others, node)
		}
	}
	repeat(ctx, &l.wg, busyPause, busyClients, func(int) { l.record(c.readToken(harmed)) })
	for _, side := range [][]int{others, {harmed}} {
		for _, reg := range []history.Register{history.Role, history.Issuer} {
			repeat(ctx, &l.wg, writePause, 1, func(turn int) { l.set(reg, c.tried.Add(1), side[turn%len(side)]) })
		}
	}
	old := []int64{initial[history.Key]}
	repeat(ctx, &l.wg, keyPause, 1, func(turn int) { old = l.rotate(others[turn%len(others)], old) })
	return l
}

// repeat does something again and again, after a pause even if it has not ended, up to so
// many times at once.
func repeat(ctx context.Context, wg *sync.WaitGroup, pause time.Duration, atOnce int, do func(turn int)) {
	wg.Go(func() {
		var g errgroup.Group
		g.SetLimit(atOnce)
		for turn := 0; ctx.Err() == nil; turn++ {
			g.TryGo(func() error {
				do(turn)
				return nil
			})
			time.Sleep(pause)
		}
		_ = g.Wait() // there are no errors
	})
}

// end stops the clients and waits for their requests.
func (l *load) end() *history.History {
	l.stop()
	l.wg.Wait()
	return &l.history
}

func (l *load) record(r history.Request) history.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history.Requests = append(l.history.Requests, r)
	return r.Result
}

// saw returns the nodes through which clients have had such an answer, in requests that they
// sent since.
func (l *load) saw(since time.Time, such func(history.Request) bool) map[int]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	through := map[int]bool{}
	for _, r := range l.history.Requests {
		if r.Call.After(since) && such(r) {
			through[r.Node] = true
		}
	}
	return through
}

// set writes a register through a node.
func (l *load) set(reg history.Register, value int64, node int) history.Result {
	path, body := "config", map[string]any{}
	switch reg {
	case history.Role:
		room := fmt.Sprintf("room-%d", value)
		path, body = "roles/"+seqRole, map[string]any{"allowed_rooms": room, "default_room": room}
	case history.Issuer:
		body["issuer"] = fmt.Sprintf("seq-%d", value)
	case history.Key:
		body["active_key"] = value
	}
	r, _ := l.ask(http.MethodPost, node, path, body)
	r.Kind, r.Values = history.Write, history.Only(reg, value)
	return l.record(r)
}

// rotate makes a new key, switches to it and deletes the old ones. It returns those to delete
// next. After a switch that was not acknowledged, either key may be active: the next round
// deletes both.
func (l *load) rotate(node int, old []int64) []int64 {
	version := l.generate(node)
	if version == history.None {
		return old
	}
	if l.set(history.Key, version, node) != history.Done {
		return append(old, version)
	}
	left := []int64{version}
	for _, v := range old {
		r, _ := l.ask(http.MethodDelete, node, fmt.Sprintf("keys/%d", v), nil)
		r.Kind, r.Values = history.Deletion, history.Only(history.Key, v)
		if l.record(r) != history.Done {
			left = append(left, v)
		}
	}
	return left
}
