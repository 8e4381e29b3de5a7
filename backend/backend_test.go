// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

const testConsumer = "acme"

// go-plugin's test connection writes debug logs to the default output.
func init() { hclog.DefaultOutput = io.Discard }

// testNow is every test's time: in the middle of a second, as real times are.
var testNow = time.Date(2030, 1, 31, 9, 0, 0, 600_000_000, time.UTC)

// testMount is a backend behind the plugin protocol, so that it receives the types that
// Vault sends.
type testMount struct {
	t       testing.TB
	wire    logical.Backend
	inside  *backend
	storage *testStorage
	system  *testSystem
	log     *testLog
	events  *testEvents

	entityID string       // of the caller
	passed   atomic.Int64 // since testNow, in nanoseconds
}

func newTestMount(t testing.TB) *testMount {
	t.Helper()
	m := &testMount{
		t:       t,
		storage: &testStorage{Storage: &logical.InmemStorage{}},
		system:  &testSystem{StaticSystemView: &logical.StaticSystemView{DefaultLeaseTTLVal: 768 * time.Hour, MaxLeaseTTLVal: 768 * time.Hour}},
		log:     &testLog{},
		events:  &testEvents{},
	}
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: &m.log.buf, Mutex: m.log})
	build := factory("v1.2.3", m.clock)
	client, _ := goplugin.TestPluginGRPCConn(t, false, map[string]goplugin.Plugin{
		plugin.BackendPluginName: &plugin.GRPCBackendPlugin{
			Factory: func(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
				b, err := build(ctx, conf)
				m.inside, _ = b.(*backend)
				return b, err
			},
			Logger: logger,
		},
	})
	t.Cleanup(func() { _ = client.Close() }) // which also stops the server
	raw, err := client.Dispense(plugin.BackendPluginName)
	require.NoError(t, err)
	m.wire = raw.(logical.Backend)
	require.NoError(t, m.wire.Setup(context.Background(), &logical.BackendConfig{
		Logger:       logger,
		System:       m.system,
		StorageView:  m.storage,
		EventsSender: m.events,
	}))
	return m
}

// configured is a mount with the key and role of the README's first minute.
func configured(t testing.TB) *testMount {
	t.Helper()
	m := newTestMount(t)
	m.mustWrite("config", map[string]any{fieldConsumerID: testConsumer, fieldPrivateKey: readTestdata(t, "rsa2048.pkcs1.pem")})
	m.mustWrite("roles/support", map[string]any{fieldAllowedRooms: "support-*"})
	return m
}

func (m *testMount) clock() time.Time { return testNow.Add(time.Duration(m.passed.Load())) }

func (m *testMount) advance(d time.Duration) { m.passed.Add(int64(d)) }

// call makes one request as Vault does: the existence check decides first whether a write
// is a create or an update.
func (m *testMount) call(op logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	m.t.Helper()
	req := &logical.Request{Operation: op, Path: path, Data: data, Storage: m.storage, MountPoint: "clanmeeting/", EntityID: m.entityID}
	if op == logical.UpdateOperation {
		found, exists, err := m.wire.HandleExistenceCheck(context.Background(), req)
		if err != nil {
			return nil, err
		}
		if found && !exists {
			req.Operation = logical.CreateOperation
		}
	}
	return m.wire.HandleRequest(context.Background(), req)
}

// callIn makes one request without the existence check.
func (m *testMount) callIn(ctx context.Context, o operation) (*logical.Response, error) {
	return m.wire.HandleRequest(ctx, &logical.Request{Operation: o.op, Path: o.path, Data: o.data, Storage: m.storage})
}

func (m *testMount) do(o operation) (*logical.Response, error) {
	m.t.Helper()
	return m.call(o.op, o.path, o.data)
}

func (m *testMount) mustWrite(path string, data map[string]any) *logical.Response {
	m.t.Helper()
	return m.must(m.call(logical.UpdateOperation, path, data))
}

func (m *testMount) mustRead(path string, data map[string]any) map[string]any {
	m.t.Helper()
	resp := m.must(m.call(logical.ReadOperation, path, data))
	require.NotNil(m.t, resp)
	return resp.Data
}

func (m *testMount) mustDelete(path string) {
	m.t.Helper()
	m.must(m.call(logical.DeleteOperation, path, nil))
}

func (m *testMount) must(resp *logical.Response, err error) *logical.Response {
	m.t.Helper()
	require.NoError(m.t, err)
	require.NoError(m.t, resp.Error())
	return resp
}

// refused makes a request that must end in a 400, and returns the message.
func (m *testMount) refused(op logical.Operation, path string, data map[string]any) string {
	m.t.Helper()
	resp, err := m.call(op, path, data)
	require.NoError(m.t, err, "a fault where a refusal was due")
	require.NotNil(m.t, resp, "answered where a refusal was due")
	require.True(m.t, resp.IsError(), "answered where a refusal was due: %v", resp.Data)
	return resp.Error().Error()
}

// token reads creds, and returns its answer and the claims of the verified token.
func (m *testMount) token(role string, data map[string]any) (map[string]any, map[string]any) {
	m.t.Helper()
	answer := m.mustRead("creds/"+role, data)
	return answer, verified(m.t, answer[fieldToken].(string), testKey(m.t))
}

// creds reads a token of the role support.
func (m *testMount) creds() map[string]any {
	m.t.Helper()
	return m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})
}

// stageSecond imports the second key, and returns its version.
func (m *testMount) stageSecond() any {
	m.t.Helper()
	return m.mustWrite("keys/import", map[string]any{fieldPrivateKey: readTestdata(m.t, "rsa2048.openssh.pem")}).Data[fieldVersion]
}

// put stores an entry as another node does.
func (m *testMount) put(path, value string) {
	m.t.Helper()
	require.NoError(m.t, m.storage.Storage.Put(m.t.Context(), &logical.StorageEntry{Key: path, Value: []byte(value)}))
	m.wire.InvalidateKey(m.t.Context(), path)
}

// storeConfig changes the configuration in storage, but tells nobody.
func (m *testMount) storeConfig(change func(*config)) {
	m.t.Helper()
	cfg, err := loadConfig(m.t.Context(), m.storage.Storage)
	require.NoError(m.t, err)
	change(cfg)
	require.NoError(m.t, store(m.t.Context(), m.storage.Storage, configStoragePath, *cfg))
}

// storeKey stores a key version as another node does.
func (m *testMount) storeKey(version int, k storedKey) {
	m.t.Helper()
	require.NoError(m.t, store(m.t.Context(), m.storage.Storage, keyPath(version), k))
	m.wire.InvalidateKey(m.t.Context(), keyPath(version))
}

// hold stops the first read of a key after storage has answered it.
func (m *testMount) hold(key string) (reached, proceed chan struct{}) {
	m.storage.gate = newGate("get " + key)
	return m.storage.gate.reached, m.storage.gate.proceed
}

// verified checks a token with the standard library only, and returns its claims.
func verified(t testing.TB, token string, key *rsa.PrivateKey) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	require.NoError(t, err)
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	require.NoError(t, rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, sum[:], signature))
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(t, err)
	claims := map[string]any{}
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.UseNumber()
	require.NoError(t, decoder.Decode(&claims))
	return claims
}

func readTestdata(t testing.TB, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return string(raw)
}

// testKey is the key of every configured mount.
func testKey(t testing.TB) *rsa.PrivateKey { return rawKey(t, "rsa2048.pkcs1.pem") }

// secondKey is the key of stageSecond.
func secondKey(t testing.TB) *rsa.PrivateKey { return rawKey(t, "rsa2048.openssh.pem") }

// rawKey reads a key without this module.
func rawKey(t testing.TB, name string) *rsa.PrivateKey {
	k, err := ssh.ParseRawPrivateKey([]byte(readTestdata(t, name)))
	require.NoError(t, err)
	return k.(*rsa.PrivateKey)
}

// storedOf returns the entry of a key version.
func storedOf(t testing.TB, pem string) storedKey {
	t.Helper()
	private, err := rsakey.Parse(pem)
	require.NoError(t, err)
	k, err := newKey(private, sourceImported, testNow)
	require.NoError(t, err)
	return k.storedKey
}

// readKey reads a key from the tests of rsakey.
func readKey(t testing.TB, name string) string {
	t.Helper()
	return readTestdata(t, "../internal/rsakey/testdata/"+name)
}

// requireNoEcho fails if the text repeats any eight characters of the input that
// are not the message's own words.
func requireNoEcho(t testing.TB, text, input string) {
	t.Helper()
	for _, own := range []string{"-----BEGIN", "-----END", "PRIVATE KEY", "PUBLIC KEY", "cm-api-key.pem", "OPENSSH", "private_key", "-openssh"} {
		text, input = strings.ReplaceAll(text, own, ""), strings.ReplaceAll(input, own, "")
	}
	for i := 0; i+8 <= len(input); i++ {
		require.NotContains(t, text, input[i:i+8])
	}
}

// A gate stops the first call of one kind until it is released.
type gate struct {
	call             string
	taken            atomic.Bool
	reached, proceed chan struct{}
}

func newGate(call string) *gate {
	return &gate{call: call, reached: make(chan struct{}), proceed: make(chan struct{})}
}

func (g *gate) pass(call string) {
	if g != nil && call == g.call && g.taken.CompareAndSwap(false, true) {
		close(g.reached)
		<-g.proceed
	}
}

// testStorage counts writes and, on demand, fails or waits.
type testStorage struct {
	logical.Storage
	gate *gate // for a verb and a key
	lost error // of writes that are done all the same

	writes atomic.Int64

	mu   sync.Mutex
	fail func(verb, key string) error
}

func (s *testStorage) on(verb, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if verb == "put" || verb == "delete" {
		s.writes.Add(1)
	}
	if s.fail != nil {
		return s.fail(verb, key)
	}
	return nil
}

func (s *testStorage) failWith(fail func(verb, key string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

func (s *testStorage) written() int { return int(s.writes.Load()) }

func (s *testStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if err := s.on("get", key); err != nil {
		return nil, err
	}
	entry, err := s.Storage.Get(ctx, key)
	s.gate.pass("get " + key)
	return entry, err
}

func (s *testStorage) Put(ctx context.Context, e *logical.StorageEntry) error {
	if err := s.on("put", e.Key); err != nil {
		return err
	}
	s.gate.pass("put " + e.Key)
	// As Raft does, it commits also if the caller has given up meanwhile.
	return errors.Join(s.Storage.Put(context.WithoutCancel(ctx), e), s.lost)
}

func (s *testStorage) Delete(ctx context.Context, key string) error {
	if err := s.on("delete", key); err != nil {
		return err
	}
	return s.Storage.Delete(ctx, key)
}

func (s *testStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if err := s.on("list", prefix); err != nil {
		return nil, err
	}
	// Storage promises no order; this is the worst one.
	keys, err := s.Storage.List(ctx, prefix)
	slices.Reverse(keys)
	return keys, err
}

// testSystem notes what it is asked about the caller, and may not answer.
type testSystem struct {
	*logical.StaticSystemView
	asked  []string
	silent string
}

func (s *testSystem) ask(what string) error {
	s.asked = append(s.asked, what)
	if what == s.silent {
		return errors.New("no answer")
	}
	return nil
}

func (s *testSystem) EntityInfo(string) (*logical.Entity, error) { return s.EntityVal, s.ask("entity") }

func (s *testSystem) GroupsForEntity(string) ([]*logical.Group, error) {
	return s.GroupsVal, s.ask("groups")
}

// testEvents records the events that are sent.
type testEvents struct {
	mu   sync.Mutex
	sent []string
	fail error
}

func (e *testEvents) SendEvent(_ context.Context, kind logical.EventType, event *logical.EventData) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	metadata := event.Metadata.AsMap()
	text := string(kind)
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		text += fmt.Sprintf(" %s=%v", name, metadata[name])
	}
	e.sent = append(e.sent, text)
	return e.fail
}

func (e *testEvents) take() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	sent := e.sent
	e.sent = nil
	return sent
}

// testLog is the buffer of a logger, whose mutex it is.
type testLog struct {
	sync.Mutex
	buf bytes.Buffer
}

func (l *testLog) String() string {
	l.Lock()
	defer l.Unlock()
	return l.buf.String()
}

// Vault treats an entry of SealWrapStorage as a prefix if it ends in a slash. Otherwise
// it compares the whole path.
func TestKeysAreSealWrapped(t *testing.T) {
	m := configured(t)
	require.Equal(t, []string{"keys/"}, m.wire.SpecialPaths().SealWrapStorage)
	for path, value := range m.entries() {
		require.Equal(t, strings.HasPrefix(path, "keys/"), strings.Contains(value, "pkcs8"), "what holds a key: %s", path)
	}
}

// An operation that a path does not have gives a 405 that says which ones it has.
func TestUnsupportedOperations(t *testing.T) {
	m := configured(t)
	for want, o := range map[string]operation{
		"no delete; it has read, write":                 {logical.DeleteOperation, "creds/support", nil},
		"no write; it has list":                         {logical.UpdateOperation, "roles", nil},
		"no patch; it has delete, read, write":          {logical.PatchOperation, "roles/support", nil},
		"no such operation; it has delete, read, write": {"", "config", nil}, // Vault has none for OPTIONS
	} {
		resp, err := m.do(o)
		require.ErrorIs(t, err, logical.ErrUnsupportedOperation, want)
		require.EqualError(t, resp.Error(), "this path has "+want)
	}
	for _, path := range []string{"keys/0", "keys/01", "keys/-1", "keys/1a", "keys/1/private", "keys/1000000000"} {
		_, err := m.call(logical.ReadOperation, path, nil)
		require.ErrorIs(t, err, logical.ErrUnsupportedPath, path)
	}
	require.NotContains(t, m.log.String(), "[ERROR]", "no fault of the engine's")
}
