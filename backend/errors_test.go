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
		items[i] = []map[string]any{{}, {fieldRoom: strings.Repeat("r", 255)}, {strings.Repeat("n", 32): true}}[i%3]
	}
	for n, more := range map[int]string{maxBatch: "980 more", maxRefusals + 1: "1 more", maxRefusals: ""} {
		message := m.refused(logical.UpdateOperation, "creds/long", map[string]any{fieldBatchInput: items[:n]})
		require.Less(t, len(message), largestAnswer)
		require.Equal(t, maxRefusals, strings.Count(message, "batch_input["))
		_, rest, _ := strings.Cut(message, "; and ")
		require.Equal(t, more, rest)
	}
	for _, data := range items[:2] {
		require.Less(t, len(m.refused(logical.ReadOperation, "creds/long", data.(map[string]any))), 500)
	}
}

// largestAnswer is far above the size of any refusal.
const largestAnswer = 16 << 10

// A private key in the name of a field is never repeated.
func TestKeysSentInWrongPlaces(t *testing.T) {
	m := configured(t)
	m.events.take()
	pkcs1 := readTestdata(t, "rsa2048.pkcs1.pem")
	form, err := url.ParseQuery(pkcs1) // what curl --data-binary @cm-api-key.pem sends
	require.NoError(t, err)
	asForm := map[string]any{}
	for name, values := range form {
		asForm[name] = values[0]
	}
	lines := strings.Split(pkcs1, "\n")
	for _, names := range []map[string]any{
		asForm,
		{pkcs1: "", fieldConsumerID: "acme", fieldRoom: "support-1", fieldToken: "x"},
		{lines[3]: lines[4]},
		{strings.ToLower(lines[3]): ""},
		{lines[5][:33]: 1},
	} {
		item := map[string]any{fieldBatchInput: []any{maps.Clone(names)}}
		refusals := []string{m.refused(logical.UpdateOperation, "creds/support", item)}
		for _, o := range operations(t) {
			refusals = append(refusals, m.refused(o.op, o.path, maps.Clone(names)))
		}
		for _, refusal := range refusals {
			require.Contains(t, refusal, "field")
			requireNoEcho(t, refusal, pkcs1)
			requireNoEcho(t, refusal, strings.ToLower(strings.Join(lines[1:26], "")))
		}
	}
	require.Contains(t, m.refused(logical.UpdateOperation, "config", asForm), "treat this key as exposed and replace it")
	requireNoEcho(t, m.log.String(), pkcs1)
	require.Empty(t, m.events.take())
}

// A caller that gives up leaves no error in the log. The call to Vault that is under way
// then ends with a gRPC status.
func TestCancelledRequestIsNoFault(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, given := range []error{
		fmt.Errorf("%w by its caller", context.Canceled),
		status.Error(codes.Canceled, "gone"),
		errors.New(`reading "keys/1" from storage: context canceled`),
	} {
		require.True(t, isGivenUp(gone, given), "%v", given)
		require.False(t, isGivenUp(t.Context(), given), "Vault itself ended it: %v", given)
	}
	for _, fault := range []error{context.DeadlineExceeded, status.Error(codes.Unavailable, "x"), errors.New("canceled")} {
		require.False(t, isGivenUp(gone, fault), "%v", fault)
	}

	m := configured(t)
	ctx, giveUp := context.WithCancel(t.Context())
	m.storage.failWith(func(string, string) error {
		giveUp()
		time.Sleep(20 * time.Millisecond) // the engine learns of it a moment later
		return context.Canceled
	})
	_, err := m.callIn(ctx, operations(t)["creds read"])
	require.Error(t, err)
	m.storage.failWith(nil)
	m.creds() // the backend is still there
	require.NotContains(t, m.log.String(), "[ERROR]")
}

// A panic is a fault of one request. The log has the stack, and nothing of the request.
func TestPanicIsAFault(t *testing.T) {
	m := configured(t)
	now := m.inside.now
	m.inside.now = func() time.Time { panic("secret of a request") }
	for _, o := range []operation{
		{logical.ReadOperation, "creds/support", map[string]any{fieldRoom: "support-1"}},
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
	_, _, err := m.inside.HandleExistenceCheck(t.Context(), &logical.Request{Operation: logical.UpdateOperation, Path: "config"}) // no storage
	require.ErrorContains(t, err, "panic: runtime error: invalid memory address")

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
	for _, name := range []string{"isuer", "x", "max-ttl", "room2"} {
		require.Contains(t, m.mustWrite("config", map[string]any{name: "x"}).Warnings[0], name)
	}
	for name, shown := range map[string]string{
		"allowedRooms": ` "allowedRooms"`, "Room": ` "Room"`,
		"a b": "", "": "", "é": "", "-a": "", strings.Repeat("a", 33): "", "MIIEvQIBADANBgkq": "",
	} {
		message := m.refused(logical.UpdateOperation, "config", map[string]any{name: "x"})
		require.Equal(t, "the request has a field with an invalid name"+shown+": names have at most 32 lower-case letters, digits, underscores and hyphens; "+
			"the fields of this path are active_key, audience, consumer_id, delete_ended_roles_after, domain, issuer, private_key", message)
	}

	// Vault's own requests carry data that no client sent.
	_, err := m.callIn(t.Context(), operation{logical.RevokeOperation, "creds/support", map[string]any{"Not a name": true, fieldTTL: "x"}})
	require.EqualError(t, err, "request has no secret", "from the framework")
}
