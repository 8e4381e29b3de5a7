// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

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
	batch := func(n int) string {
		return m.refused(logical.UpdateOperation, "creds/long", map[string]any{fieldBatchInput: items[:n]})
	}
	for _, entity := range []*logical.Entity{nil, {ID: "e1"}} {
		if entity != nil {
			m.asEntity(entity)
		}
		for n, more := range map[int]string{maxBatch: "980 more", maxRefusals + 1: "1 more", maxRefusals: ""} {
			message := batch(n)
			require.Less(t, len(message), largestAnswer)
			require.Equal(t, maxRefusals, strings.Count(message, "batch_input["))
			_, rest, _ := strings.Cut(message, "; and ")
			require.Equal(t, more, rest)
		}
		for _, data := range []map[string]any{{}, {fieldRoom: strings.Repeat("r", 255)}} {
			require.Less(t, len(m.refused(logical.ReadOperation, "creds/long", data)), 500)
		}
	}
	for _, path := range []string{"creds/", "check/"} {
		require.Less(t, len(m.refused(logical.ReadOperation, path+strings.Repeat("r", 100_000), map[string]any{fieldTTL: true})), 200)
	}
}

// largestAnswer is far above the size of any refusal.
const largestAnswer = 16 << 10

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

// A caller that gives up leaves no error in the log. The call to Vault that is under way
// then ends with a gRPC status.
func TestCancelledRequestIsNoFault(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, given := range []error{
		context.Canceled,
		fmt.Errorf("reading: %w", context.Canceled),
		status.Error(codes.Canceled, "context canceled"),
		errors.New(`reading "keys/1" from storage: context canceled`),
		fmt.Errorf("reading %q from storage: %w", "keys/1", status.Error(codes.Canceled, "context canceled")),
	} {
		require.True(t, isGivenUp(gone, given), "%v", given)
		require.False(t, isGivenUp(t.Context(), given), "Vault itself ended it: %v", given)
	}
	for _, fault := range []error{context.DeadlineExceeded, status.Error(codes.Unavailable, "x"), errors.New("canceled")} {
		require.False(t, isGivenUp(gone, fault), "%v", fault)
	}
	for name, o := range operations(t) {
		m := configured(t)
		ctx, cancel := context.WithCancel(t.Context())
		m.storage.failWith(func(string, string) error {
			cancel()
			time.Sleep(20 * time.Millisecond) // the engine learns of it a moment later
			return context.Canceled
		})
		_, err := m.callIn(ctx, o)
		require.Error(t, err, name)
		m.storage.failWith(nil)
		m.creds() // the backend is still there
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
		resp, err := m.do(o)
		require.ErrorContains(t, err, "panic: string")
		require.Nil(t, resp)
	}
	require.Contains(t, m.log.String(), "a request panicked")
	require.Contains(t, m.log.String(), "issuance.go")
	require.NotContains(t, m.log.String(), "secret of a request")
	m.inside.now = now
	m.creds()
	m.mustWrite("config", map[string]any{fieldIssuer: "staging"}) // no lock is held

	// Vault asks first whether an entry exists.
	_, _, err := m.inside.HandleExistenceCheck(t.Context(), &logical.Request{Operation: logical.UpdateOperation, Path: "config", Storage: panickingStorage{}})
	require.ErrorContains(t, err, "panic: string")

	// Batches are signed in goroutines of their own, which must recover themselves.
	i := m.issuanceOf("support")
	_, err = i.signAll(t.Context(), parsed(manyItems(3)), make([]*grant, 3))
	require.ErrorContains(t, err, "panic: runtime error: invalid memory address")
	require.True(t, m.inside.process.slots.TryAcquire(int64(processors())), "every slot is given back")
}

// What the signing library says of a fault is for the log: callers get a text that tells
// nothing about the key.
func TestDetailOfAFault(t *testing.T) {
	err := fmt.Errorf("signing with key version 1: %w", &rsakey.SignError{Detail: "error:0200007A"})
	require.NotContains(t, err.Error(), "0200007A")
	m := newTestMount(t)
	m.inside.logFault(t.Context(), "request failed", err)
	require.Contains(t, m.log.String(), "detail=error:0200007A")
	m.inside.logFault(t.Context(), "request failed", errors.New("another fault"))
	require.Equal(t, 1, strings.Count(m.log.String(), "detail="))
}

// For unknown names that could be field names, the SDK's warning names them. Others are refused,
// and what is safe to repeat is shown.
func TestUnknownNames(t *testing.T) {
	m := configured(t)
	for _, name := range []string{"isuer", "allowed_room", "x", "max-ttl", "room2"} {
		require.Contains(t, m.mustWrite("config", map[string]any{name: "x"}).Warnings[0], name)
	}
	for name, shown := range map[string]string{
		"allowedRooms": ` "allowedRooms"`, "Room": ` "Room"`, "a b": "", "": "", "é": "", "-a": "", strings.Repeat("a", 33): "", "MIIEvQIBADANBgkq": "",
	} {
		message := m.refused(logical.UpdateOperation, "config", map[string]any{name: "x"})
		require.Equal(t, "the request has a field with an invalid name"+shown+": names have at most 32 lower-case letters, digits, underscores and hyphens; "+
			"the fields of this path are active_key, audience, consumer_id, delete_ended_roles_after, domain, issuer, private_key", message)
	}
}
