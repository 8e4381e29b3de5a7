// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/hosttoken"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

// Requests that try to overload the engine, or to get a key into a message. The
// acceptance tests send such requests to a real Vault.

// largestAnswer is far above the size of any refusal.
const largestAnswer = 16 << 10

func longTemplate(n int) string {
	return "{{identity.entity.metadata." + strings.Repeat("k", n-29) + "}}"
}

func TestLimitsOfARole(t *testing.T) {
	m := configured(t)
	long := longTemplate(room.MaxRuleLength)
	require.Len(t, long, room.MaxRuleLength)
	m.mustWrite("roles/most", map[string]any{fieldAllowedRooms: []any{long}, fieldAllowedRoomsTemplate: true, fieldDefaultRoom: long})
	tooMany := make([]any, room.MaxRules+1)
	tooLong := make([]any, 129)
	for i := range tooMany {
		tooMany[i] = "a"
	}
	for i := range tooLong {
		tooLong[i] = long
	}
	for want, data := range map[string]map[string]any{
		"entry 2 of allowed_rooms is longer than 1024 characters: {{identity.entity.metadata.kkk": {fieldAllowedRooms: []any{"a", longTemplate(900_000)}},
		"default_room is longer than 1024 characters: {{identity.entity.metadata.kkk":             {fieldDefaultRoom: longTemplate(1025)},
		"allowed_rooms has 2001 entries; 2000 are allowed":                                        {fieldAllowedRooms: tooMany},
		"allowed_rooms has 140000 entries":                                                        {fieldAllowedRooms: strings.Repeat("*x*,", 139_999) + "a"},
		"allowed_rooms has 132096 bytes in all; 131072 are allowed":                               {fieldAllowedRooms: tooLong},
		"entry 1 of allowed_rooms is longer than 1024 characters":                                 {fieldAllowedRooms: strings.Repeat("x", 1025)},
	} {
		data[fieldAllowedRoomsTemplate] = true
		if data[fieldAllowedRooms] == nil {
			data[fieldAllowedRooms] = "a"
		}
		message := m.refused(logical.UpdateOperation, "roles/over", data)
		require.Contains(t, message, want)
		require.Less(t, len(message), 300, want)
	}
	// A text that is too long for a rule and not a template may be a private key.
	require.Equal(t, "entry 1 of allowed_rooms is longer than 1024 characters",
		m.refused(logical.UpdateOperation, "roles/over", map[string]any{fieldAllowedRooms: strings.Repeat("deadbeef", 200)}))
}

// The length of a refusal does not depend on the size of the role or the request.
func TestRefusalsAreShort(t *testing.T) {
	m := configured(t)
	long := longTemplate(room.MaxRuleLength)
	m.mustWrite("roles/long", map[string]any{fieldAllowedRooms: []any{long}, fieldAllowedRoomsTemplate: true, fieldDefaultRoom: long})
	items := make([]any, maxBatch)
	for i := range items {
		items[i] = map[string]any{fieldRoom: strings.Repeat("r", 255)}
		if i%3 == 0 {
			items[i] = map[string]any{} // the default room
		}
		if i%7 == 0 {
			items[i] = map[string]any{strings.Repeat("n", 32): true}
		}
	}
	for _, entity := range []*logical.Entity{nil, {ID: "e1"}} {
		m.entityID = ""
		if entity != nil {
			m.asEntity(entity)
		}
		message := m.refused(logical.UpdateOperation, "creds/long", map[string]any{fieldBatchInput: items})
		require.Less(t, len(message), largestAnswer)
		require.Equal(t, maxRefusals, strings.Count(message, "batch_input["))
		require.Contains(t, message, "; and 980 other items are refused")
		for _, data := range []map[string]any{{}, {fieldRoom: strings.Repeat("r", 255)}} {
			require.Less(t, len(m.refused(logical.ReadOperation, "creds/long", data)), 500)
		}
	}
	require.Less(t, len(m.refused(logical.ReadOperation, "creds/"+strings.Repeat("r", 100_000), nil)), 200)
	require.Less(t, len(m.refused(logical.ReadOperation, "check/"+strings.Repeat("r", 100_000), map[string]any{fieldTTL: true})), 200)
	// Up to twenty refused items are all named.
	message := m.refused(logical.UpdateOperation, "creds/long", map[string]any{fieldBatchInput: items[:maxRefusals]})
	require.Equal(t, maxRefusals, strings.Count(message, "batch_input["))
	require.NotContains(t, message, "other items")
	message = m.refused(logical.UpdateOperation, "creds/long", map[string]any{fieldBatchInput: items[:maxRefusals+1]})
	require.Contains(t, message, "; and 1 other items are refused")
}

// A private key in any place of a request is never repeated.
func TestKeysSentInWrongPlaces(t *testing.T) {
	m := configured(t)
	pkcs1 := readTestdata(t, "rsa2048.pkcs1.pem")
	form, err := url.ParseQuery(pkcs1) // what curl --data-binary @cm-api-key.pem sends
	require.NoError(t, err)
	asForm := map[string]any{}
	for name, values := range form {
		asForm[name] = values[0]
	}
	base64Lines := strings.Split(pkcs1, "\n")
	for name, data := range map[string]map[string]any{
		"a form":         asForm,
		"the whole name": {pkcs1: ""},
		"in one line":    {strings.ReplaceAll(pkcs1, "\n", ""): "x"},
		"without BEGIN":  {strings.Join(base64Lines[1:26], ""): ""},
		"one line of it": {base64Lines[3]: base64Lines[4]},
		"in lower case":  {strings.ToLower(base64Lines[3]): ""},
		"half a line":    {base64Lines[5][:33]: 1},
		"with a field":   {pkcs1: "", fieldConsumerID: "acme", fieldRoom: "support-1", fieldToken: "x"},
	} {
		for _, path := range []string{"config", "keys/import", "keys/generate", "keys/1", "keys", "roles/support", "roles", "creds/support", "check/support", "verify"} {
			for _, op := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation, logical.ListOperation} {
				if m.inside.Route(path).Operations[op] == nil {
					continue
				}
				message := m.refused(op, path, maps.Clone(data))
				requireNoEcho(t, message, pkcs1)
				requireNoEcho(t, message, strings.ToLower(strings.Join(base64Lines[1:26], "")))
				require.Contains(t, message, "field", name)
			}
		}
		item := maps.Clone(data)
		message := m.refused(logical.UpdateOperation, "creds/support", map[string]any{fieldBatchInput: []any{item}})
		requireNoEcho(t, message, pkcs1)
	}
	require.Contains(t, m.refused(logical.UpdateOperation, "config", asForm), "treat this key as exposed and replace it")
	requireNoEcho(t, m.log.String(), pkcs1)
	require.Empty(t, m.events.take()[4:], "nothing but what configured did")
}

// For unknown names that could be field names, the SDK's warning names them.
func TestUnknownNames(t *testing.T) {
	m := configured(t)
	for _, name := range []string{"isuer", "allowed_room", "x", "max-ttl", "room2"} {
		require.Contains(t, m.mustWrite("config", map[string]any{name: "x"}).Warnings[0], name)
	}
	for _, name := range []string{"allowedRooms", "Room", "a b", "", "é", "-a", strings.Repeat("a", 33)} {
		message := m.refused(logical.UpdateOperation, "config", map[string]any{name: "x"})
		require.Equal(t, "the request has an impossible field name: names have lower-case letters, digits and underscores, 32 at most; send JSON; "+
			"the fields of this path are active_key, audience, consumer_id, domain, issuer, private_key", message)
	}
}

// Vault's own requests carry data that no client sent.
func TestRequestsOfVaultAreNotChecked(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/leased", map[string]any{fieldAllowedRooms: "*", fieldGenerateLease: true})
	resp := m.must(m.call(logical.ReadOperation, "creds/leased", map[string]any{fieldRoom: "x"}))
	resp.Data["Not a name"] = true
	resp.Data[fieldTTL] = "x"
	_, err := m.wire.HandleRequest(t.Context(), &logical.Request{Operation: logical.RevokeOperation, Path: "creds/leased", Secret: resp.Secret, Data: resp.Data, Storage: m.storage})
	require.NoError(t, err)
}

// A response with a lease still has its warnings.
func TestLeaseKeepsTheWarnings(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/leased", map[string]any{fieldAllowedRooms: "*", fieldGenerateLease: true, fieldMaxTTL: "10m"})
	resp := m.must(m.call(logical.ReadOperation, "creds/leased", map[string]any{fieldRoom: "x", fieldTTL: "1h"}))
	require.NotNil(t, resp.Secret)
	require.Len(t, resp.Warnings, 1)
	require.Contains(t, resp.Warnings[0], "capped")
}

// A key is stored once, however often it is written, and by either path.
func TestKeyIsStoredOnce(t *testing.T) {
	m := configured(t)
	first, second := readTestdata(t, "rsa2048.pkcs1.pem"), readTestdata(t, "rsa2048.openssh.pem")
	require.EqualValues(t, 2, m.mustWrite("keys/import", map[string]any{fieldPrivateKey: second}).Data[fieldVersion])
	m.events.take()
	writes := m.storage.written()
	for range 5 {
		resp := m.mustWrite("keys/import", map[string]any{fieldPrivateKey: second})
		require.EqualValues(t, 2, resp.Data[fieldVersion])
		require.Equal(t, []string{"this private key was stored already, as version 2; no new version was stored"}, resp.Warnings)
		resp = m.mustWrite("keys/import", map[string]any{fieldPrivateKey: readKey(t, "accepted/pkcs8-named-pkcs1.pem")})
		require.EqualValues(t, 1, resp.Data[fieldVersion])
		require.Equal(t, []string{activeKeyWarning(1)}, resp.Warnings)
	}
	require.Equal(t, writes, m.storage.written())
	require.Empty(t, m.events.take())

	// A playbook writes the old key again after it was replaced.
	m.mustWrite("config", map[string]any{fieldActiveKey: 2})
	resp := m.mustWrite("config", map[string]any{fieldPrivateKey: first})
	require.Equal(t, []string{"this private key was stored already, as version 1, which is the active one now; version 2 was active before; no new version was stored"}, resp.Warnings)
	require.EqualValues(t, 1, m.mustRead("config", nil)[fieldActiveKey])
	require.Equal(t, []any{"1", "2"}, m.must(m.call(logical.ListOperation, "keys/", nil)).Data["keys"])
	require.Contains(t, m.events.take(), "clanmeeting/key-activate modified=true operation=key-activate path=config version=1")

	fresh := newTestMount(t)
	fresh.mustWrite("keys/import", map[string]any{fieldPrivateKey: first})
	resp = fresh.mustWrite("config", map[string]any{fieldConsumerID: testConsumer, fieldPrivateKey: first})
	require.Equal(t, []string{"this private key was stored already, as version 1, which is the active one now; no version was active before; no new version was stored"}, resp.Warnings)
}

func TestKeyVersionsAreLimited(t *testing.T) {
	m := configured(t)
	second := storedOf(t, readTestdata(t, "rsa2048.openssh.pem"))
	for version := 2; version <= maxKeys; version++ {
		require.NoError(t, store(t.Context(), m.storage, keyPath(version), second))
	}
	cfg, err := loadConfig(t.Context(), m.storage)
	require.NoError(t, err)
	cfg.LastKey = 50 // as after a restore of an older configuration
	require.NoError(t, store(t.Context(), m.storage, configStoragePath, *cfg))
	m.wire.InvalidateKey(t.Context(), keyPath(2))
	other := readKey(t, "accepted/exponent-3.pem")
	full := "100 key versions are stored, and no more are possible; delete one that is not used any more, such as keys/2"
	require.Equal(t, full, m.refused(logical.UpdateOperation, "keys/import", map[string]any{fieldPrivateKey: other}))
	require.Equal(t, full, m.refused(logical.UpdateOperation, "config", map[string]any{fieldPrivateKey: other}))
	require.Equal(t, full, m.refused(logical.UpdateOperation, "keys/generate", nil))
	m.mustWrite("config", map[string]any{fieldActiveKey: 7})
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/generate", nil), "such as keys/1")

	// A key that is stored already may be written again. After a deletion there is room
	// for a new one, whose number is above all others.
	m.mustWrite("keys/import", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.pkcs1.pem")})
	m.mustDelete("keys/3")
	require.EqualValues(t, 101, m.mustWrite("keys/import", map[string]any{fieldPrivateKey: other}).Data[fieldVersion])
}

// The largest allowed key is accepted; larger ones are refused.
func TestLargestKey(t *testing.T) {
	m := configured(t)
	m.mustWrite("config", map[string]any{fieldPrivateKey: readKey(t, "accepted/rsa8192.pem")})
	require.EqualValues(t, 8192, m.mustRead("config", nil)[fieldKeyBits])
	m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})
	require.Contains(t, m.refused(logical.UpdateOperation, "config", map[string]any{fieldPrivateKey: readKey(t, "refused/bits-8200.pem")}), "has 8200 bits")
	require.Contains(t, m.refused(logical.UpdateOperation, "config", map[string]any{fieldPrivateKey: readKey(t, "refused/composite-factor.pem")}), "private_key is damaged")
}

// gate stops the first caller until it is released.
type gate struct {
	taken            atomic.Bool
	reached, proceed chan struct{}
}

func newGate() *gate { return &gate{reached: make(chan struct{}), proceed: make(chan struct{})} }

func (g *gate) pass() {
	if g.taken.CompareAndSwap(false, true) {
		close(g.reached)
		<-g.proceed
	}
}

// manyItems are n items for the role support.
func manyItems(n int) []any {
	items := make([]any, n)
	for i := range items {
		items[i] = map[string]any{fieldRoom: fmt.Sprintf("support-%d", i)}
	}
	return items
}

// While a batch is running, its key is deleted or replaced, or its role is changed. After
// the change is acknowledged, no token is signed with the old state: the batch is decided
// again.
func TestChangesDuringABatch(t *testing.T) {
	for name, test := range map[string]struct {
		change func(m *testMount)
		want   string // the refusal; none if it is answered
	}{
		"config deleted": {func(m *testMount) { m.mustDelete("config") }, "not configured"},
		"key replaced": {func(m *testMount) {
			m.mustWrite("config", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.openssh.pem")})
			m.mustDelete("keys/1")
		}, ""},
		"issuer changed": {func(m *testMount) { m.mustWrite("config", map[string]any{fieldIssuer: "staging"}) }, ""},
		"by another node": {func(m *testMount) {
			cfg, err := loadConfig(t.Context(), m.storage)
			require.NoError(t, err)
			cfg.Issuer = "staging"
			require.NoError(t, store(t.Context(), m.storage, configStoragePath, *cfg))
			m.wire.InvalidateKey(t.Context(), configStoragePath)
		}, ""},
		"role narrowed": {func(m *testMount) { m.mustWrite("roles/support", map[string]any{fieldAllowedRooms: "support-1*"}) }, "is not allowed by this role"},
		"role deleted":  {func(m *testMount) { m.mustDelete("roles/support") }, `role "support" not found`},
	} {
		m := configured(t)
		r, err := m.inside.roles.get(t.Context(), m.storage, "support")
		require.NoError(t, err)
		req := &logical.Request{Operation: logical.UpdateOperation, Path: "creds/support", Storage: m.storage, MountPoint: "clanmeeting/", Data: map[string]any{fieldBatchInput: manyItems(40)}}
		i, err := m.inside.newIssuance(t.Context(), req, r)
		require.NoError(t, err)
		b := &batch{issuance: i, unchanged: m.inside.unchanged(req, fieldDataOf(m, req), r), schema: batchItemFields()}
		items, _, err := b.decideAll(t.Context(), req.Data[fieldBatchInput].([]any))
		require.NoError(t, err)
		test.change(m)
		_, err = b.signAll(t.Context(), items)
		require.ErrorIs(t, err, errChanged, name)

		resp, err := m.call(logical.UpdateOperation, "creds/support", req.Data)
		require.NoError(t, err)
		if test.want != "" {
			require.ErrorContains(t, resp.Error(), test.want, name)
			continue
		}
		require.Len(t, m.must(resp, nil).Data[fieldBatchResults], 40, name)
	}
}

// A role that was dropped from the cache and loaded again counts as unchanged.
func TestRoleLoadedAgainIsUnchanged(t *testing.T) {
	m := configured(t)
	r, err := m.inside.roles.get(t.Context(), m.storage, "support")
	require.NoError(t, err)
	req := &logical.Request{Path: "creds/support", Storage: m.storage}
	unchanged := m.inside.unchanged(req, fieldDataOf(m, req), r)
	m.inside.roles.drop("support")
	require.NoError(t, unchanged(t.Context()))
	m.mustWrite("roles/support", map[string]any{fieldTTL: "1m"})
	require.ErrorIs(t, unchanged(t.Context()), errChanged)
	m.mustDelete("roles/support")
	require.ErrorIs(t, unchanged(t.Context()), errChanged)
}

// The same through the handler: the batch is stopped between its decision and its
// signatures.
func TestBatchIsDecidedAgain(t *testing.T) {
	for _, op := range []string{"single", "batch"} {
		m := configured(t)
		m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})
		g := newGate()
		now := m.inside.now
		m.inside.now = func() time.Time { g.pass(); return now() } // read after the signer
		answered := make(chan *logical.Response, 1)
		go func() {
			data := map[string]any{fieldRoom: "support-1"}
			if op == "batch" {
				data = map[string]any{fieldBatchInput: manyItems(3)}
			}
			resp, err := m.call(logical.UpdateOperation, "creds/support", data)
			assert.NoError(t, err)
			answered <- resp
		}()
		<-g.reached
		m.mustWrite("config", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.openssh.pem"), fieldIssuer: "staging"})
		m.mustDelete("keys/1")
		close(g.proceed)
		resp := <-answered
		results := []any{resp.Data}
		if op == "batch" {
			results = resp.Data[fieldBatchResults].([]any)
			require.Len(t, results, 3)
		}
		for _, result := range results {
			claims := verified(t, result.(map[string]any)[fieldToken].(string), secondKey(t))
			require.Equal(t, "staging", claims["iss"])
		}
	}
}

// A change waits for the signatures under way, so that none is made after the change was
// acknowledged.
func TestFence(t *testing.T) {
	var f fence
	began, end := make(chan struct{}), make(chan struct{})
	var ended atomic.Bool
	go func() {
		_ = f.pass(func() error { close(began); <-end; ended.Store(true); return nil })
	}()
	<-began
	raised := make(chan bool)
	go func() { f.raise(); raised <- ended.Load() }()
	select {
	case <-raised:
		require.Fail(t, "raised while work was under way")
	case <-time.After(50 * time.Millisecond):
	}
	close(end)
	require.True(t, <-raised)
	require.ErrorIs(t, f.pass(func() error { return errors.New("never run") }), errChanged)
}

// A change that tokens don't depend on does not make a batch start again.
func TestUnchangedSignerStaysInUse(t *testing.T) {
	m := configured(t)
	m.mustWrite("keys/import", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.openssh.pem")})
	m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})
	before := m.inside.cached.Load()
	m.refused(logical.UpdateOperation, "config", map[string]any{fieldIssuer: " "})
	m.refused(logical.UpdateOperation, "config", map[string]any{fieldActiveKey: 9})
	m.mustWrite("keys/import", map[string]any{fieldPrivateKey: readKey(t, "accepted/exponent-3.pem")})
	m.mustDelete("keys/2")
	require.Same(t, before, m.inside.cached.Load())
}

// Requests that wait to sign don't hold up a change, and end with their callers.
func TestWaitingSignatures(t *testing.T) {
	m := configured(t)
	i := m.batchFor("support")
	g, err := i.grant(t.Context(), tokenRequest{room: "support-1"})
	require.NoError(t, err)
	all := int64(runtime.GOMAXPROCS(0))
	require.NoError(t, signing().Acquire(t.Context(), all))
	ctx, giveUp := context.WithCancel(t.Context())
	ended := make(chan error)
	const waiting = 8
	for range waiting {
		go func() {
			_, err := i.mint(ctx, g)
			ended <- err
		}()
	}
	time.Sleep(50 * time.Millisecond) // they wait now, or soon
	written := make(chan struct{})
	go func() {
		defer close(written)
		m.mustWrite("config", map[string]any{fieldIssuer: "changed"})
	}()
	select {
	case <-written:
	case <-time.After(time.Minute):
		require.Fail(t, "a change waits for requests that wait")
	}
	giveUp()
	for range waiting {
		require.ErrorIs(t, <-ended, context.Canceled)
	}
	signing().Release(all)
}

// There is one signer at a time: a second one would escape the fence.
func TestOneSignerAtATime(t *testing.T) {
	m := configured(t)
	for range 20 {
		m.wire.InvalidateKey(t.Context(), configStoragePath)
		signers := make([]*signer, 8)
		var wg sync.WaitGroup
		for i := range signers {
			wg.Go(func() { signers[i], _ = m.inside.signer(t.Context(), m.storage, "") })
		}
		wg.Wait()
		for _, s := range signers {
			require.Same(t, signers[0], s)
		}
	}
}

// fieldDataOf returns a request as its handler sees it.
func fieldDataOf(m *testMount, req *logical.Request) *framework.FieldData {
	return &framework.FieldData{Raw: map[string]any{fieldName: strings.TrimPrefix(req.Path, "creds/")}, Schema: m.inside.Route(req.Path).Fields}
}

// A caller that gives up leaves no error in the log. The call to Vault that is under way
// then ends with a gRPC status.
func TestCancelledRequestIsNoFault(t *testing.T) {
	for _, given := range []error{
		context.Canceled,
		fmt.Errorf("reading: %w", context.Canceled),
		status.Error(codes.Canceled, "context canceled"),
		errors.New(`reading "keys/1" from storage: context canceled`),
		fmt.Errorf("reading %q from storage: %w", "keys/1", status.Error(codes.Canceled, "context canceled")),
	} {
		require.False(t, isFault(given), "%v", given)
	}
	for _, fault := range []error{context.DeadlineExceeded, status.Error(codes.Unavailable, "x"), errors.New("canceled")} {
		require.True(t, isFault(fault), "%v", fault)
	}
	for name, o := range operations(t) {
		m := configured(t)
		ctx, cancel := context.WithCancel(t.Context())
		m.storage.failWith(func(string, string) error {
			cancel()
			return context.Canceled
		})
		_, err := m.wire.HandleRequest(ctx, &logical.Request{Operation: o.op, Path: o.path, Data: o.data, Storage: m.storage})
		require.Error(t, err, name)
		m.storage.failWith(nil)
		m.token("support", map[string]any{fieldRoom: "support-1"}) // the backend is still there
		require.NotContains(t, m.log.String(), "[ERROR]", name)
	}
}

// panickingStorage stands for any bug below the handlers.
type panickingStorage struct{ logical.Storage }

func (panickingStorage) Get(context.Context, string) (*logical.StorageEntry, error) {
	panic("secret of a request")
}

// A panic is a fault of one request. The log has the stack, and nothing of the request.
func TestPanicIsAFault(t *testing.T) {
	m := configured(t)
	now := m.inside.now
	m.inside.now = func() time.Time { panic("secret of a request") }
	for _, o := range []operation{
		{logical.ReadOperation, "creds/support", map[string]any{fieldRoom: "support-1"}},
		{logical.UpdateOperation, "creds/support", map[string]any{fieldBatchInput: manyItems(3)}},
		{logical.UpdateOperation, "keys/import", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.openssh.pem")}},
	} {
		resp, err := m.call(o.op, o.path, o.data)
		require.ErrorContains(t, err, "panic: string")
		require.Nil(t, resp)
	}
	require.Contains(t, m.log.String(), "a request panicked")
	require.Contains(t, m.log.String(), "issuance.go")
	require.NotContains(t, m.log.String(), "secret of a request")
	m.inside.now = now
	m.token("support", map[string]any{fieldRoom: "support-1"})
	m.mustWrite("config", map[string]any{fieldIssuer: "staging"}) // no lock is held

	// Vault asks first whether an entry exists.
	_, _, err := m.inside.HandleExistenceCheck(t.Context(), &logical.Request{Operation: logical.UpdateOperation, Path: "config", Storage: panickingStorage{}})
	require.ErrorContains(t, err, "panic: string")

	// Batches are signed in goroutines of their own, which must recover themselves.
	b := m.batchFor("support")
	items, _, err := b.decideAll(t.Context(), manyItems(3))
	require.NoError(t, err)
	b.unchanged = func(context.Context) error { var none *role; return errors.New(none.DefaultRoom) }
	_, err = b.signAll(t.Context(), items)
	require.ErrorContains(t, err, "panic: runtime error: invalid memory address")
	require.True(t, turns().TryAcquire(int64(turnCount())), "every turn is given back")
	turns().Release(int64(turnCount()))
}

// Long work waits for a turn, and stops waiting when its request ends. A read of one
// token never waits.
func TestTurns(t *testing.T) {
	m := configured(t)
	require.NoError(t, turns().Acquire(t.Context(), int64(turnCount())))
	defer turns().Release(int64(turnCount()))
	token := m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})[fieldToken]
	m.mustRead("check/support", map[string]any{fieldRoom: "support-1"})
	for name, o := range map[string]operation{
		"a batch":           {logical.UpdateOperation, "creds/support", map[string]any{fieldBatchInput: manyItems(1)}},
		"an import":         {logical.UpdateOperation, "keys/import", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.openssh.pem")}},
		"a private key":     {logical.UpdateOperation, "config", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.openssh.pem")}},
		"a generated key":   {logical.UpdateOperation, "keys/generate", nil},
		"a verified token":  {logical.UpdateOperation, "verify", map[string]any{fieldToken: token}},
		"a second waiting":  {logical.UpdateOperation, "keys/generate", nil},
		"a refused batch":   {logical.UpdateOperation, "creds/support", map[string]any{fieldBatchInput: []any{map[string]any{fieldRoom: "x"}}}},
		"a malformed token": {logical.UpdateOperation, "verify", map[string]any{fieldToken: "x"}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := m.wire.HandleRequest(ctx, &logical.Request{Operation: o.op, Path: o.path, Data: o.data, Storage: m.storage})
		cancel()
		require.Error(t, err, name)
	}
	// The engine learns a moment later than the caller that the request has ended.
	require.NoError(t, generating.Acquire(t.Context(), 1), "the next key can be generated")
	generating.Release(1)
	m.mustWrite("config", map[string]any{fieldIssuer: "staging"}) // no lock is held
}

// Generating a key takes a turn, and no other key is generated meanwhile.
func TestGeneratingTakesATurn(t *testing.T) {
	ended := make(chan error)
	go func() {
		_, err := generateKey(t.Context(), 4096)
		ended <- err
	}()
	free := func() (one, all bool) {
		if one = generating.TryAcquire(1); one {
			generating.Release(1)
		}
		if all = turns().TryAcquire(int64(turnCount())); all {
			turns().Release(int64(turnCount()))
		}
		return one, all
	}
	assert.Eventually(t, func() bool { one, all := free(); return !one && !all }, 10*time.Second, time.Millisecond)
	require.NoError(t, <-ended)
	one, all := free()
	require.True(t, one && all, "given back")
}

// Each signature of a batch waits for its own turn.
func TestBatchSignsInTurns(t *testing.T) {
	m := configured(t)
	b := m.batchFor("support")
	items, _, err := b.decideAll(t.Context(), manyItems(2))
	require.NoError(t, err)
	require.NoError(t, turns().Acquire(t.Context(), int64(turnCount())))
	defer turns().Release(int64(turnCount()))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = b.signAll(ctx, items)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// For a request that has ended, nothing is signed and no key is tried.
func TestEndedRequests(t *testing.T) {
	m := configured(t)
	b := m.batchFor("support")
	g, err := b.grant(t.Context(), tokenRequest{room: "support-1"})
	require.NoError(t, err)
	data, err := b.mint(t.Context(), g)
	require.NoError(t, err)
	presented, err := hosttoken.Decode(data[fieldToken].(string))
	require.NoError(t, err)
	_, ring, err := m.inside.keys(t.Context(), m.storage)
	require.NoError(t, err)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = b.mint(ended, g)
	require.ErrorIs(t, err, context.Canceled)
	_, err = ring.signerOf(ended, presented)
	require.ErrorIs(t, err, context.Canceled)
}

// Deciding does not change the request, because a batch may be decided again.
func TestDecidingChangesNoInput(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/open", map[string]any{fieldAllowedRooms: "*"})
	b := m.batchFor("open")
	item := func() map[string]any {
		return map[string]any{fieldRoom: "support-1", fieldTTL: "5m", fieldNotBefore: "", fieldReference: nil}
	}
	given := item()
	_, _, err := b.decideAll(t.Context(), []any{given})
	require.NoError(t, err)
	require.Equal(t, item(), given)
}

// countingView counts how often Vault is asked for the caller's identity.
type countingView struct {
	*logical.StaticSystemView
	entities, groups atomic.Int64
}

func (v *countingView) EntityInfo(id string) (*logical.Entity, error) {
	v.entities.Add(1)
	return v.StaticSystemView.EntityInfo(id)
}

func (v *countingView) GroupsForEntity(id string) ([]*logical.Group, error) {
	v.groups.Add(1)
	return v.StaticSystemView.GroupsForEntity(id)
}

// Vault is asked for the caller's identity only if there are templates, and once per
// batch.
func TestIdentityIsAskedForOnce(t *testing.T) {
	view := &countingView{StaticSystemView: &logical.StaticSystemView{
		EntityVal: &logical.Entity{ID: "e1", Name: "ann"}, GroupsVal: []*logical.Group{{ID: "g1", Name: "g"}},
	}}
	for _, test := range []struct {
		rules            []string
		name             string
		entities, groups int64
	}{
		{[]string{"support-*"}, "support-1", 0, 0},
		{[]string{"support-1", "{{identity.entity.name}}"}, "support-1", 0, 0},
		{[]string{"{{identity.entity.name}}", "{{identity.entity.id}}"}, "e1", 1, 0},
		{[]string{"{{identity.groups.names.g.id}}", "{{identity.entity.id}}"}, "e1", 1, 1},
		{[]string{"{{identity.groups.names.g.id}}", "{{identity.groups.names.g.name}}", "{{identity.entity.id}}"}, "e1", 1, 1},
	} {
		view.entities.Store(0)
		view.groups.Store(0)
		stored := newRole()
		stored.AllowedRooms, stored.AllowedRoomsTemplate = test.rules, true
		r, err := stored.compile()
		require.NoError(t, err)
		c := &caller{system: view, entityID: "e1", maxTTL: time.Hour}
		b := &batch{issuance: &issuance{role: r, caller: c, matcher: r.rules.Matcher(c.value), now: testNow}, schema: batchItemFields()}
		items := make([]any, 100)
		for i := range items {
			items[i] = map[string]any{fieldRoom: test.name}
		}
		_, _, err = b.decideAll(t.Context(), items)
		require.NoError(t, err)
		require.Equal(t, []int64{test.entities, test.groups}, []int64{view.entities.Load(), view.groups.Load()}, "%v", test.rules)
	}
}

// In OpenBao, the ID of an entity in a namespace ends with the namespace's ID.
func TestIDsWithANamespace(t *testing.T) {
	m := configured(t)
	m.mustWrite("roles/me", map[string]any{
		fieldAllowedRoomsTemplate: true, fieldDefaultRoom: "{{identity.entity.id}}",
		fieldAllowedRooms: "{{identity.entity.id}},g-{{identity.groups.names.g.id}},n-{{identity.groups.ids.0a1b.ns1.name}},m-{{identity.groups.ids.0a1b.metadata.x}}",
	})
	m.asEntity(&logical.Entity{ID: "4f5e-6d.ns1"}, &logical.Group{ID: "0a1b.ns1", Name: "g", Metadata: map[string]string{"x": "y"}})
	for name, want := range map[string]string{"": "4f5e-6d", "4f5e-6d": "4f5e-6d", "g-0a1b": "g-0a1b", "n-g": "n-g", "m-y": "m-y"} {
		answer := m.mustRead("creds/me", map[string]any{fieldRoom: name})
		require.Equal(t, want, answer[fieldRoom])
		require.Equal(t, true, m.mustRead("check/me", map[string]any{fieldRoom: name})[fieldAllowed])
	}
	require.Contains(t, m.refused(logical.ReadOperation, "creds/me", map[string]any{fieldRoom: "ns1"}), "not allowed")
}

// One can recover from a corrupt entry without losing anything else.
func TestRecoveryFromCorruptStorage(t *testing.T) {
	corrupt := func(m *testMount, path string) {
		require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: path, Value: []byte(`{"format":1,"entry":{`)}))
		m.wire.InvalidateKey(t.Context(), path)
	}
	second := readTestdata(t, "rsa2048.openssh.pem")

	// The active key is replaced by a new one, by a staged one, or by itself.
	for name, replace := range map[string]func(m *testMount){
		"written": func(m *testMount) { m.mustWrite("config", map[string]any{fieldPrivateKey: second}) },
		"itself": func(m *testMount) {
			m.mustWrite("config", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.pkcs1.pem")})
		},
		"staged": func(m *testMount) {
			m.mustWrite("config", map[string]any{fieldActiveKey: m.mustWrite("keys/import", map[string]any{fieldPrivateKey: second}).Data[fieldVersion]})
		},
		"generated": func(m *testMount) {
			m.mustWrite("config", map[string]any{fieldActiveKey: m.mustWrite("keys/generate", nil).Data[fieldVersion]})
		},
	} {
		m := configured(t)
		token := m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})[fieldToken].(string)
		corrupt(m, "keys/1")
		require.Contains(t, m.refused(logical.DeleteOperation, "keys/1", nil), "is the active one", name)
		require.Contains(t, m.verify(token, "").Data[fieldReason], "signed by another key", name)
		require.Equal(t, []string{"key version 1 can't be read from storage and was not tried"}, m.verify(token, "").Warnings, name)
		replace(m)
		require.EqualValues(t, 2, m.mustRead("config", nil)[fieldActiveKey], name)
		m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})
		_, err := m.call(logical.ReadOperation, "keys/1", nil)
		require.ErrorContains(t, err, `corrupt entry in storage: "keys/1"`, name)
		m.mustDelete("keys/1")
		require.Empty(t, m.verify(token, "").Warnings)
	}

	// The configuration, and everything below keys/.
	m := configured(t)
	m.mustWrite("keys/import", map[string]any{fieldPrivateKey: second})
	corrupt(m, "config")
	corrupt(m, "keys/2")
	corrupt(m, "keys/9x")
	corrupt(m, "keys/a/b")
	m.mustDelete("config")
	keys, err := logical.CollectKeys(t.Context(), logical.NewStorageView(m.storage, keyPrefix))
	require.NoError(t, err)
	require.Empty(t, keys)
	resp, err := m.call(logical.ReadOperation, "config", nil)
	require.NoError(t, err)
	require.Nil(t, resp)
	m.mustWrite("config", map[string]any{fieldConsumerID: testConsumer, fieldPrivateKey: second})
	require.EqualValues(t, 3, m.mustRead("config", nil)[fieldActiveKey], "no number is used again")

	// A role is deleted without being read.
	corrupt(m, "roles/support")
	m.mustDelete("roles/support")
	m.mustWrite("roles/support", map[string]any{fieldAllowedRooms: "a"})

	// A corrupt inactive version stops nothing.
	m.mustWrite("keys/generate", nil)
	corrupt(m, "keys/4")
	require.Equal(t, true, m.verify(m.mustRead("creds/support", map[string]any{fieldRoom: "a"})[fieldToken].(string), "").Data[fieldValid])
	require.EqualValues(t, 5, m.mustWrite("keys/generate", nil).Data[fieldVersion])
}

// Vault has no operation for OPTIONS: its name is empty.
func TestOperationWithoutAName(t *testing.T) {
	m := configured(t)
	resp, err := m.call("", "config", nil)
	require.ErrorIs(t, err, logical.ErrUnsupportedOperation)
	require.EqualError(t, resp.Error(), "this path has no such operation; it has delete, read, write")
}

// A version can't be deleted while it becomes the active one.
func TestKeyDeletionWaitsForASwitch(t *testing.T) {
	m := configured(t)
	m.mustWrite("keys/import", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.openssh.pem")})
	reached, proceed := make(chan struct{}), make(chan struct{})
	m.storage.Storage = &slowStorage{Storage: m.storage.Storage, key: "keys/2", reached: reached, proceed: proceed}
	switched, deleted := make(chan error), make(chan *logical.Response)
	go func() {
		_, err := m.call(logical.UpdateOperation, "config", map[string]any{fieldActiveKey: 2})
		switched <- err
	}()
	<-reached // version 2 was seen, and is not the active one yet
	go func() {
		resp, err := m.call(logical.DeleteOperation, "keys/2", nil)
		assert.NoError(t, err)
		deleted <- resp
	}()
	time.Sleep(50 * time.Millisecond)
	close(proceed)
	require.NoError(t, <-switched)
	require.ErrorContains(t, (<-deleted).Error(), "is the active one")
	m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})
}

// verify reads a consistent state: a deletion waits until it has read everything.
func TestVerifyReadsConsistently(t *testing.T) {
	m := configured(t)
	token := m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})[fieldToken]
	m.wire.InvalidateKey(t.Context(), "config")
	reached, proceed := make(chan struct{}), make(chan struct{})
	m.storage.Storage = &slowStorage{Storage: m.storage.Storage, key: "config", reached: reached, proceed: proceed}
	verifiedNow, deleted := make(chan *logical.Response), make(chan error)
	go func() {
		resp, err := m.call(logical.UpdateOperation, "verify", map[string]any{fieldToken: token})
		assert.NoError(t, err)
		verifiedNow <- resp
	}()
	<-reached // the configuration was read, and no key yet
	go func() {
		_, err := m.call(logical.DeleteOperation, "config", nil)
		deleted <- err
	}()
	select {
	case err := <-deleted:
		require.Fail(t, "deleted while it was read", "%v", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(proceed)
	require.Equal(t, true, (<-verifiedNow).Data[fieldValid])
	require.NoError(t, <-deleted)
}

// What the signing library says of a fault is for the log: callers get a text that tells
// nothing about the key.
func TestDetailOfAFault(t *testing.T) {
	err := fmt.Errorf("signing with key version 1: %w", &rsakey.SignError{Detail: "error:0200007A"})
	require.True(t, isFault(err))
	require.NotContains(t, err.Error(), "0200007A")
	require.Equal(t, []any{"detail", "error:0200007A"}, detail(err))
	require.Empty(t, detail(errors.New("another fault")))
}

// For any role that can be stored, and any batch: the answer, the memory and the work per
// item stay within their limits.
func FuzzLimits(f *testing.F) {
	f.Add("support-*", 1, "", "support-1", "x", 3)
	f.Add("{{identity.entity.metadata.k}}", 700, "{{identity.entity.metadata.k}}", "", "", 1000)
	f.Add("*a*a*a*a*a*a*b", 2000, "", strings.Repeat("a", 255), strings.Repeat("r", 500), 900)
	f.Add(strings.Repeat("x", 255), 513, strings.Repeat("x", 255), "", "", 40)
	f.Add("{{identity.entity.name}}{{identity.groups.names.g.id}}*", 2000, "a", "b", "", 100)
	m := configured(f)
	m.asEntity(&logical.Entity{ID: "e1", Name: strings.Repeat("n", 255), Metadata: map[string]string{"k": strings.Repeat("v", 255)}}, &logical.Group{ID: "g1", Name: "g"})
	f.Fuzz(func(t *testing.T, rule string, rules int, defaultRoom, name, reference string, items int) {
		m.t = t
		if rules < 0 || rules > 3000 || items < 0 || items > 1100 {
			return
		}
		texts := make([]any, rules)
		for i := range texts {
			texts[i] = rule
		}
		written, err := m.call(logical.UpdateOperation, "roles/fuzz", map[string]any{fieldAllowedRooms: texts, fieldAllowedRoomsTemplate: true, fieldDefaultRoom: defaultRoom})
		require.NoError(t, err)
		if written.IsError() {
			require.Less(t, len(written.Error().Error()), 1000)
			return
		}
		defer m.mustDelete("roles/fuzz")
		r, err := m.inside.roles.get(t.Context(), m.storage, "fuzz")
		require.NoError(t, err)
		require.Less(t, r.size(), 1<<20)
		list := make([]any, items)
		for i := range list {
			list[i] = map[string]any{fieldRoom: name, fieldReference: reference}
		}
		// Decided only, because signatures would take most of the time.
		i, err := m.inside.newIssuance(t.Context(), &logical.Request{Storage: m.storage, EntityID: m.entityID}, r)
		require.NoError(t, err)
		b := &batch{issuance: i, schema: batchItemFields()}
		granted, _, err := b.decideAll(t.Context(), list)
		if err != nil {
			require.True(t, isInvalid(err), "%v", err)
			require.Less(t, len(err.Error()), largestAnswer)
		} else {
			require.Len(t, granted, items)
		}
		resp, err := m.call(logical.ReadOperation, "check/fuzz", map[string]any{fieldRoom: name})
		require.NoError(t, err)
		answer, err := json.Marshal(resp.Data)
		require.NoError(t, err)
		require.Less(t, len(answer), largestAnswer)
	})
}
