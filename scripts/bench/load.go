// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// sampled: one of so many answers is checked.
const sampled = 50

// counter numbers all requests of the run, so that each asks for another room.
var counter atomic.Int64

func roomOf(n int64) string { return "room-" + strconv.FormatInt(n, 10) }

func repeat(item string, n int) string { return strings.TrimSuffix(strings.Repeat(item+",", n), ",") }

func batchBody(n int64) string {
	items := make([]string, batchSize)
	for i := range items {
		items[i] = fmt.Sprintf(`{"room":"%s-%d"}`, roomOf(n), i)
	}
	return `{"batch_input":[` + strings.Join(items, ",") + `]}`
}

// A sample is the result of one or more slices.
type sample struct {
	tokens    int64
	elapsed   time.Duration
	latencies []time.Duration
	cpu       map[string]time.Duration // by process
}

func (s *sample) join(other *sample) {
	s.tokens += other.tokens
	s.elapsed += other.elapsed
	s.latencies = append(s.latencies, other.latencies...)
	if s.cpu == nil {
		s.cpu = map[string]time.Duration{}
	}
	for name, used := range other.cpu {
		s.cpu[name] += used
	}
}

// load repeats a target's request on n persistent connections, for the length of a slice.
func (b *bench) load(ctx context.Context, t *target, n int, slice time.Duration) (*sample, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: n, MaxConnsPerHost: n}}
	defer client.CloseIdleConnections()
	if _, err := b.request(ctx, client, t); err != nil { // a warm-up
		return nil, err
	}
	before := b.cpu(t)
	start := time.Now()
	parts := make([]sample, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for time.Since(start) < slice && errs[i] == nil {
				var took time.Duration
				took, errs[i] = b.request(ctx, client, t)
				parts[i].latencies = append(parts[i].latencies, took)
				parts[i].tokens += int64(max(t.batch, 1))
			}
		})
	}
	wg.Wait()
	s := &sample{cpu: map[string]time.Duration{}}
	for i := range parts {
		s.join(&parts[i])
	}
	s.elapsed = time.Since(start)
	for name, after := range b.cpu(t) {
		s.cpu[name] = after - before[name]
	}
	return s, errors.Join(errs...)
}

// request makes one request, checks the answer if it is sampled, and returns how long it
// took.
func (b *bench) request(ctx context.Context, client *http.Client, t *target) (time.Duration, error) {
	n := counter.Add(1)
	var body io.Reader
	if t.body != nil {
		body = strings.NewReader(t.body(n))
	}
	req, err := http.NewRequestWithContext(ctx, t.method, t.url(n), body)
	if err != nil {
		return 0, fmt.Errorf("making the request: %w", err)
	}
	req.Header.Set("X-Vault-Token", cmp.Or(t.token, b.token))
	start := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("the request: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	took := time.Since(start)
	if err != nil {
		return 0, fmt.Errorf("reading the answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("status %d: %s", resp.StatusCode, answer)
	}
	if t.check != nil && n%sampled == 0 {
		err = t.check(n, answer)
	}
	return took, err
}

type credsAnswer struct {
	Token   string        `json:"token"`
	Results []credsAnswer `json:"batch_results"`
}

// checkToken checks that an answer has a token for its own request: every request has
// another room.
func (b *bench) checkToken(n int64, answer []byte) error {
	var a struct {
		Data credsAnswer `json:"data"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return fmt.Errorf("decoding the answer: %w", err)
	}
	return b.checkJWT(a.Data.Token, roomOf(n))
}

func (b *bench) checkBatch(n int64, answer []byte) error {
	var a struct {
		Data credsAnswer `json:"data"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return fmt.Errorf("decoding the answer: %w", err)
	}
	if len(a.Data.Results) != batchSize {
		return fmt.Errorf("%d tokens in a batch of %d", len(a.Data.Results), batchSize)
	}
	for i, result := range a.Data.Results {
		if err := b.checkJWT(result.Token, fmt.Sprintf("%s-%d", roomOf(n), i)); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) checkJWT(token, room string) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return fmt.Errorf("no token: %q", token)
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return fmt.Errorf("the signature: %w", err)
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(&b.key.PublicKey, crypto.SHA256, sum[:], signature); err != nil {
		return fmt.Errorf("the signature: %w", err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return fmt.Errorf("the claims: %w", err)
	}
	var claims struct {
		Room string `json:"room"`
		Exp  int64  `json:"exp"`
	}
	if err := json.Unmarshal(raw, &claims); err != nil {
		return fmt.Errorf("the claims: %w", err)
	}
	if left := time.Until(time.Unix(claims.Exp, 0)); claims.Room != room || left < 295*time.Second || left > 305*time.Second {
		return fmt.Errorf("a token for room %q with %s left; the request was for room %q and five minutes", claims.Room, left, room)
	}
	return nil
}

// readsDuringBatches measures single reads on one connection while another connection
// asks for batches of 1,000, one after the other.
func (b *bench) readsDuringBatches(ctx context.Context, mount string, t *target, slice time.Duration) (*sample, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	done := make(chan struct{})
	items := repeat(`{"room":"room-x"}`, 1000)
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			status, answer, err := b.vault.Call(ctx, b.token, http.MethodPost, mount+"/creds/bench", `{"batch_input":[`+items+`]}`)
			switch {
			case ctx.Err() != nil:
			case err != nil:
				failed = err
			case status != http.StatusOK:
				failed = fmt.Errorf("a batch during reads: status %d: %s", status, answer.Errors())
			}
		}
	}()
	s, err := b.load(ctx, t, 1, slice)
	cancel()
	<-done
	return s, errors.Join(err, failed)
}

// signature is the CPU time of one bare signature by Go: the mean of many, on so many cores
// at once. It is higher on all cores than on one while the others are idle.
func (b *bench) signature(_ context.Context, cores int) (time.Duration, error) {
	const each = 300
	sum := sha256.Sum256([]byte("header.claims"))
	before := ownCPU()
	var wg sync.WaitGroup
	for range cores {
		wg.Go(func() {
			for range each {
				if _, err := rsa.SignPKCS1v15(rand.Reader, b.key, crypto.SHA256, sum[:]); err != nil {
					panic(err) // impossible with a key that was just made
				}
			}
		})
	}
	wg.Wait()
	return (ownCPU() - before) / time.Duration(each*cores), nil
}

// speedLine is what openssl speed -mr prints at its end: signatures and verifications in a
// second of CPU time.
var speedLine = regexp.MustCompile(`(?m)^\+F2:\d+:2048:([0-9.]+):`)

// opensslSpeed is the same for OpenSSL, by its own benchmark. With the option -multi that
// would count real time, so it is started once for each core.
func opensslSpeed(ctx context.Context, cores int) (time.Duration, error) {
	var total atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range cores {
		group.Go(func() error {
			out, err := exec.CommandContext(ctx, "openssl", "speed", "-mr", "-seconds", "1", "rsa2048").Output()
			if err != nil {
				return fmt.Errorf("openssl speed: %w", err)
			}
			found := speedLine.FindSubmatch(out)
			if found == nil {
				return fmt.Errorf("openssl speed printed no result: %s", out)
			}
			each, err := strconv.ParseFloat(string(found[1]), 64)
			if err != nil || each == 0 {
				return fmt.Errorf("openssl speed printed no number: %s", out)
			}
			total.Add(int64(float64(time.Second) / each))
			return nil
		})
	}
	err := group.Wait()
	return time.Duration(total.Load() / int64(cores)), err
}

// ownCPU is user and system time of this process, to the microsecond.
func ownCPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
