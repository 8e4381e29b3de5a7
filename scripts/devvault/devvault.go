// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Package devvault runs real servers, Vault or OpenBao, on free loopback ports, for
// development: one in dev mode, with a folder of plugins registered in it, or a cluster.
// The demo, the benchmarks and the acceptance tests use it. [Kind] has the differences
// between the two servers.
package devvault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// PluginName is the name under which the engine is registered and enabled.
const PluginName = "vault-plugin-secrets-clanmeeting"

const (
	// startTimeout is how long a Vault may take until it answers and has registered
	// its plugins. It takes about a second.
	startTimeout = 60 * time.Second
	// stopTimeout is how long it may take to end before it is killed.
	stopTimeout = 10 * time.Second
	// portAttempts is how often to try another port, if another process takes the
	// port before Vault does.
	portAttempts = 5
)

// Options say which server to run and how.
type Options struct {
	VaultBin  string // the binary, of Vault or of OpenBao
	PluginDir string // a folder with plugins and nothing else
	LogLevel  string // as vault server -log-level; empty is its default
	Config    string // in dev mode, a file with more of the configuration; empty is none

	// The others are for clusters.

	// StandbyReads lets standbys serve reads themselves, where the server can: OpenBao.
	StandbyReads bool
	// DisableCache turns off the server's cache of its storage.
	DisableCache bool
	// Multiplier is Raft's performance_multiplier; 0 is the server's default.
	Multiplier int
	// Advertise returns the address at which other nodes reach the cluster address of
	// the node with that index, such as a proxy; nil is the cluster address itself.
	Advertise func(node int, clusterAddr string) (string, error)
}

// Server is a running Vault or OpenBao.
type Server struct {
	Addr      string // base URL
	RootToken string
	Kind      Kind

	bin  string
	cmd  *exec.Cmd
	log  lockedBuffer
	done chan struct{} // closed when the process has ended
}

// lockedBuffer can be read while the process writes to it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// Log returns everything that the server and its plugins have printed so far.
func (s *Server) Log() string {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.log.buf.String()
}

// Start runs a Vault and returns once it answers and its plugins are registered.
// The server ends with Stop, or with the context. If it does not start, the error
// contains its log.
func Start(ctx context.Context, o Options) (*Server, error) {
	// Vault refuses a plugin directory that is a symbolic link.
	dir, err := filepath.EvalSymlinks(o.PluginDir)
	if err != nil {
		return nil, fmt.Errorf("the plugin directory: %w", err)
	}
	o.PluginDir = dir
	kind, err := KindOf(ctx, o.VaultBin)
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		s, err := start(ctx, kind, o)
		if err == nil || attempt == portAttempts || ctx.Err() != nil || !errors.Is(err, errEnded) {
			return s, err
		}
	}
}

var errEnded = errors.New("the Vault ended before it answered")

func start(ctx context.Context, kind Kind, o Options) (*Server, error) {
	addrs, err := FreeAddrs(2)
	if err != nil {
		return nil, err
	}
	addr, listen := addrs[0], addrs[0]
	config := kind.devConfig(addr)
	args := []string{"server", "-dev", "-dev-no-store-token", "-dev-root-token-id=root", "-dev-plugin-dir=" + o.PluginDir}
	if config != "" {
		// All in one file: OpenBao loses some settings if it gets two.
		more, err := readOptional(o.Config)
		if err != nil {
			return nil, err
		}
		if o.Config, err = temporaryFile(config + more); err != nil {
			return nil, err
		}
		defer os.Remove(o.Config) // a server that answers has read it
		listen = addrs[1]
	}
	if o.Config != "" {
		args = append(args, "-config="+o.Config)
	}
	args = append(args, "-dev-listen-address="+listen)
	if o.LogLevel != "" {
		args = append(args, "-log-level="+o.LogLevel)
	}
	s := &Server{Addr: "http://" + addr, RootToken: "root", Kind: kind, bin: o.VaultBin}
	if err := s.run(ctx, args); err != nil {
		return nil, err
	}
	if err := s.waitUntilReady(ctx); err != nil {
		s.Stop()
		return nil, fmt.Errorf("%w\n%s", err, s.Log())
	}
	return s, nil
}

// readOptional returns the text of a file; empty without one.
func readOptional(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading the configuration: %w", err)
	}
	return string(text), nil
}

// temporaryFile writes the text to a new file, and returns its name.
func temporaryFile(text string) (string, error) {
	file, err := os.CreateTemp("", "devvault-*.hcl")
	if err != nil {
		return "", fmt.Errorf("making the configuration: %w", err)
	}
	_, err = file.WriteString(text)
	if err := errors.Join(err, file.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("writing the configuration: %w", err), os.Remove(file.Name()))
	}
	return file.Name(), nil
}

// run starts the process.
func (s *Server) run(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, s.bin, args...)
	cmd.Env = environ()
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	// A Vault that is asked to end also ends its plugins; a killed one does not.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting Vault: %w", err)
	}
	done := make(chan struct{})
	s.cmd, s.done = cmd, done
	go func() {
		_ = cmd.Wait() // its output says how it ended
		close(done)
	}()
	return nil
}

func (s *Server) waitUntilReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		status, answer, err := s.Call(ctx, s.RootToken, http.MethodGet, "sys/plugins/catalog", nil)
		if err == nil && status == http.StatusOK && strings.Contains(fmt.Sprint(answer.Data()["detailed"]), PluginName) {
			return nil
		}
		select {
		case <-s.done:
			return errEnded
		case <-ctx.Done():
			return fmt.Errorf("the Vault did not register %s: %w", PluginName, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Stop ends the server and waits until it has ended.
func (s *Server) Stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // fails if it has ended, which is fine
	select {
	case <-s.done:
	case <-time.After(stopTimeout):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

// Kill ends the server at once, with a signal that it can't handle, and waits until it has
// ended. Its plugins must notice that themselves.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // fails if it has ended, which is fine
	<-s.done
}

// PID is the server's process ID.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Done is closed when the server has ended.
func (s *Server) Done() <-chan struct{} { return s.done }

// environ is the environment without settings for other servers.
func environ() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "VAULT_") && !strings.HasPrefix(v, "BAO_") {
			env = append(env, v)
		}
	}
	return env
}

// Command is the server's own command, vault or bao, with the given arguments and token.
// Both read the VAULT_ variables. OpenBao's prefers its own, which therefore are not set: a
// script that sets VAULT_TOKEN for one command must get that token.
func (s *Server) Command(ctx context.Context, token string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.bin, args...)
	cmd.Env = append(environ(), "VAULT_ADDR="+s.Addr, "VAULT_TOKEN="+token)
	return cmd
}

// Answer is the JSON of a response from Vault's HTTP API; empty if there was none.
type Answer map[string]any

// Data is the answer's data; nil if it has none.
func (a Answer) Data() map[string]any {
	data, _ := a["data"].(map[string]any)
	return data
}

// Errors are the answer's errors in one text.
func (a Answer) Errors() string { return join(a["errors"]) }

// Warnings are the answer's warnings in one text.
func (a Answer) Warnings() string { return join(a["warnings"]) }

func join(list any) string {
	items, _ := list.([]any)
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = fmt.Sprint(item)
	}
	return strings.Join(texts, "\n")
}

// A Request is one to the HTTP API.
type Request struct {
	Method, Path string // the path is below /v1/, and has the query
	Token        string
	ContentType  string // empty is none
	Body         any    // a string is sent unchanged, anything else as JSON, and nil as no body
}

// A Response is what the HTTP API answered.
type Response struct {
	Status int
	Header http.Header
	Raw    []byte
	Answer Answer // empty if the body is not JSON
}

// Do makes one request.
func (s *Server) Do(ctx context.Context, client *http.Client, r Request) (*Response, error) {
	var body io.Reader
	switch b := r.Body.(type) {
	case nil:
	case string:
		body = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			return nil, fmt.Errorf("encoding the request: %w", err)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, s.Addr+"/v1/"+r.Path, body)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	req.Header.Set("X-Vault-Token", r.Token)
	if r.ContentType != "" {
		req.Header.Set("Content-Type", r.ContentType)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("calling Vault: %w", err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the answer to %s %s: %w", r.Method, r.Path, err)
	}
	answer := Answer{}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if decoder.Decode(&answer) != nil {
		answer = Answer{}
	}
	return &Response{resp.StatusCode, resp.Header, raw, answer}, nil
}

// Call makes one request, whose answer must be JSON or empty.
func (s *Server) Call(ctx context.Context, token, method, path string, body any) (int, Answer, error) {
	resp, err := s.Do(ctx, http.DefaultClient, Request{Method: method, Path: path, Token: token, Body: body})
	if err != nil {
		return 0, nil, err
	}
	if len(resp.Raw) > 0 && !json.Valid(resp.Raw) {
		return 0, nil, fmt.Errorf("the answer to %s %s is not JSON: %.100q", method, path, resp.Raw)
	}
	return resp.Status, resp.Answer, nil
}

// Query returns a path with the parameters of a read.
func Query(path string, pairs ...string) string {
	values := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		values.Add(pairs[i], pairs[i+1])
	}
	return path + "?" + values.Encode()
}
