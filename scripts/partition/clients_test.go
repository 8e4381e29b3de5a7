// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package partition

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	mount = "clanmeeting"

	// readPause is the pause between two reads through one node, even if the first has no
	// answer yet: a node that hangs collects requests, as in production.
	readPause  = 100 * time.Millisecond
	maxWaiting = 400 // requests at one node

	// busyClients read through the node that is cut off or suspended as fast as it answers,
	// with a short pause, so that it always has some requests in work.
	busyClients = 8
	busyPause   = 20 * time.Millisecond

	writePause = 500 * time.Millisecond
	keyPause   = time.Second

	// readTimeout is longer than any suspension, to see how waiting requests are answered.
	readTimeout  = 90 * time.Second
	writeTimeout = 10 * time.Second

	tokenTTL = 300 // seconds
)

// clients read through every node, write on both sides of a cut, and record everything.
type clients struct {
	addrs     []string // the nodes
	rootToken string
	appToken  string
	keys      *publicKeys
	values    [3]atomic.Int64 // the last number that was tried, by register

	http *http.Client
	stop context.CancelFunc
	wg   sync.WaitGroup // the writers, the readers, and their requests

	mu      sync.Mutex
	history history
	faults  []string // wrong signatures, and answers that make no sense
}

// publicKeys are the mount's public keys by version.
type publicKeys struct {
	mu        sync.Mutex
	byVersion map[int64]*rsa.PublicKey
}

func (k *publicKeys) add(version int64, text string) error {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return errors.New("the public key is not a PEM")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return err
	}
	public, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return errors.New("the public key is not RSA")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.byVersion[version] = public
	return nil
}

// verify checks a token with the standard library only.
func (k *publicKeys) verify(token string, version int64) error {
	k.mu.Lock()
	public := k.byVersion[version]
	k.mu.Unlock()
	if public == nil {
		return fmt.Errorf("key version %d was never made", version)
	}
	dot := strings.LastIndex(token, ".")
	signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
	if err != nil || dot < 0 {
		return errors.Join(errors.New("no token"), err)
	}
	sum := sha256.Sum256([]byte(token[:dot]))
	return rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], signature)
}

// An answer is the result of one request over HTTP.
type answer struct {
	request
	status int
	data   map[string]any
}

// ask sends one request. It follows no redirect: a client on one side can't reach the
// other.
func (c *clients) ask(token, method string, node int, path string, body any, timeout time.Duration) answer {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	a := answer{request: request{node: node, call: time.Now()}}
	status, header, decoded, err := c.roundTrip(ctx, token, method, c.addrs[node]+"/v1/"+mount+"/"+path, body)
	a.ret, a.status, a.by = time.Now(), status, header.Get("X-Vault-Raft-Node-ID")
	a.data, _ = decoded["data"].(map[string]any)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		a.result, a.text = unknown, "no answer"
	case err != nil:
		a.result, a.text = unknown, "no connection"
		if op := new(net.OpError); errors.As(err, &op) && op.Op == "dial" {
			a.result = refused
		}
	case status >= http.StatusBadRequest && status < http.StatusInternalServerError:
		a.result, a.text = refused, fmt.Sprintf("%d %v", status, decoded["errors"])
	case status >= http.StatusMultipleChoices:
		a.result, a.text = unknown, fmt.Sprintf("%d %v", status, decoded["errors"])
		if status < http.StatusBadRequest {
			a.text = "redirected to another node"
		}
	}
	return a
}

func (c *clients) roundTrip(ctx context.Context, token, method, url string, body any) (int, http.Header, map[string]any, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return 0, nil, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(raw))
	if err != nil {
		return 0, nil, nil, err
	}
	if body == nil {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	req.Header.Set("X-Vault-Token", token)
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	decoded := map[string]any{}
	decoder := json.NewDecoder(resp.Body)
	decoder.UseNumber()
	if err := decoder.Decode(&decoded); err != nil && !errors.Is(err, io.EOF) && resp.StatusCode < http.StatusMultipleChoices {
		return 0, resp.Header, nil, err
	}
	return resp.StatusCode, resp.Header, decoded, nil
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

// readToken asks a node for a token and checks it.
func (c *clients) readToken(node int) read {
	a := c.ask(c.appToken, http.MethodGet, node, "creds/seq", nil, readTimeout)
	r := read{request: a.request}
	if r.result != done {
		return r
	}
	token, _ := a.data["token"].(string)
	r.values[key] = number(a.data["key_version"])
	claims, err := claimsOf(token)
	if err == nil {
		err = c.keys.verify(token, r.values[key])
	}
	if err != nil {
		c.fault("a token by %s, key version %d: %v", r.by, r.values[key], err)
		return r
	}
	r.values[role], r.values[issuer] = number(claims["room"]), number(claims["iss"])
	r.signed = time.Unix(number(claims["exp"])-tokenTTL, 0)
	return r
}

func claimsOf(token string) (map[string]any, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("no token")
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, err
	}
	claims := map[string]any{}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	return claims, decoder.Decode(&claims)
}

func (c *clients) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

// start begins reading through every node, and writing on both sides.
func (c *clients) start(isolated int) {
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	var majority []int
	for node := range c.addrs {
		c.wg.Go(func() { c.reader(ctx, node) })
		if node != isolated {
			majority = append(majority, node)
		}
	}
	for range busyClients {
		c.wg.Go(func() {
			for sleep(ctx, busyPause) {
				c.recordRead(c.readToken(isolated))
			}
		})
	}
	for _, side := range [][]int{majority, {isolated}} {
		for _, r := range []register{role, issuer} {
			c.wg.Go(func() { c.writer(ctx, r, side) })
		}
	}
	c.wg.Go(func() { c.rotate(ctx, majority) })
}

// end stops the clients and waits for their requests.
func (c *clients) end() *history {
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

func (c *clients) reader(ctx context.Context, node int) {
	waiting := make(chan struct{}, maxWaiting)
	for sleep(ctx, readPause) {
		select {
		case waiting <- struct{}{}:
		default:
			continue
		}
		c.wg.Go(func() {
			c.recordRead(c.readToken(node))
			<-waiting
		})
	}
}

func (c *clients) recordRead(r read) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.history.reads = append(c.history.reads, r)
}

// set writes a register through a node.
func (c *clients) set(r register, value int64, node int) result {
	path, body := "config", map[string]any{}
	switch r {
	case role:
		room := fmt.Sprintf("room-%d", value)
		path, body = "roles/seq", map[string]any{"allowed_rooms": room, "default_room": room}
	case issuer:
		body["issuer"] = fmt.Sprintf("seq-%d", value)
	case key:
		body["active_key"] = value
	}
	return c.record(write{register: r, value: value}, c.ask(c.rootToken, http.MethodPost, node, path, body, writeTimeout))
}

func (c *clients) record(w write, a answer) result {
	w.request = a.request
	c.mu.Lock()
	defer c.mu.Unlock()
	c.history.writes = append(c.history.writes, w)
	return w.result
}

// writer writes a register through the nodes of one side in turn.
func (c *clients) writer(ctx context.Context, r register, side []int) {
	for turn := 0; sleep(ctx, writePause); turn++ {
		c.set(r, c.values[r].Add(1), side[turn%len(side)])
	}
}

// rotate makes a new key, switches to it and deletes the old ones, again and again. After a
// switch that was not acknowledged, either key may be active: the next round deletes both.
func (c *clients) rotate(ctx context.Context, side []int) {
	old := []int64{c.history.initial[key]}
	for turn := 0; sleep(ctx, keyPause); turn++ {
		node := side[turn%len(side)]
		made := c.ask(c.rootToken, http.MethodPost, node, "keys/generate", map[string]any{}, writeTimeout)
		if made.result != done {
			continue
		}
		version := number(made.data["version"])
		if err := c.keys.add(version, fmt.Sprint(made.data["public_key"])); err != nil {
			c.fault("keys/generate: %v", err)
			continue
		}
		if c.set(key, version, node) != done {
			old = append(old, version)
			continue
		}
		var left []int64
		for _, v := range old {
			w := write{register: key, value: v, deletion: true}
			if c.record(w, c.ask(c.rootToken, http.MethodDelete, node, fmt.Sprintf("keys/%d", v), nil, writeTimeout)) != done {
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
	for _, w := range c.history.writes {
		if w.deletion && w.result == done && w.by != node && w.ret.After(since) {
			return true
		}
	}
	return false
}

// answeredSince reports whether every node has given a token to a request sent since.
func (c *clients) answeredSince(since time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	gave := map[int]bool{}
	for _, r := range c.history.reads {
		if r.result == done && r.call.After(since) {
			gave[r.node] = true
		}
	}
	return len(gave) == len(c.addrs)
}
