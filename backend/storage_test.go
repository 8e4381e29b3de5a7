// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

type operation struct {
	op   logical.Operation
	path string
	data map[string]any
}

// operations has one of every kind. Each succeeds if nothing fails.
func operations(t testing.TB) map[string]operation {
	t.Helper()
	return map[string]operation{
		"config read":        {logical.ReadOperation, "config", nil},
		"config update":      {logical.UpdateOperation, "config", map[string]any{fieldIssuer: "staging"}},
		"config new key":     {logical.UpdateOperation, "config", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.openssh.pem")}},
		"config switch":      {logical.UpdateOperation, "config", map[string]any{fieldActiveKey: 1}},
		"config delete":      {logical.DeleteOperation, "config", nil},
		"key list":           {logical.ListOperation, "keys/", nil},
		"key read":           {logical.ReadOperation, "keys/1", nil},
		"key import":         {logical.UpdateOperation, "keys/import", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.openssh.pem")}},
		"key generate":       {logical.UpdateOperation, "keys/generate", nil},
		"key delete":         {logical.DeleteOperation, "keys/2", nil},
		"role list":          {logical.ListOperation, "roles/", nil},
		"role read":          {logical.ReadOperation, "roles/support", nil},
		"role create":        {logical.UpdateOperation, "roles/new", map[string]any{fieldAllowedRooms: "a"}},
		"role update":        {logical.UpdateOperation, "roles/support", map[string]any{fieldTTL: "1m"}},
		"role delete":        {logical.DeleteOperation, "roles/support", nil},
		"creds read":         {logical.ReadOperation, "creds/support", map[string]any{fieldRoom: "support-1"}},
		"check":              {logical.ReadOperation, "check/support", map[string]any{fieldRoom: "support-1"}},
		"check, refused":     {logical.ReadOperation, "check/support", map[string]any{fieldRoom: "x"}},
		"check by an update": {logical.UpdateOperation, "check/support", map[string]any{fieldRoom: "support-1"}},
		"verify":             {logical.UpdateOperation, "verify", map[string]any{fieldToken: strings.TrimSpace(readTestdata(t, "golden.jwt"))}},
		"verify, malformed":  {logical.UpdateOperation, "verify", map[string]any{fieldToken: "x"}},
		"creds by an update": {logical.UpdateOperation, "creds/support", map[string]any{fieldRoom: "support-1"}},
	}
}

// Every storage call of every operation fails once. The answer is a fault that names the
// entry, never a token or a 400. Nothing in storage changes, except that a key number may
// be used up. The next request works.
func TestEveryStorageCallFails(t *testing.T) {
	for name, o := range operations(t) {
		// ErrReadOnly is no fault: Vault looks for its text, and forwards the request.
		for _, fault := range []error{errors.New("storage is down"), logical.ErrReadOnly} {
			calls := 1
			for failStorage(t, o, fmt.Sprintf("%s, call %d, %s", name, calls, fault), calls, fault) {
				calls++
			}
			require.Greater(t, calls, 1, name)
		}
	}
}

// failStorage lets one call to storage fail, and reports whether there were so many.
func failStorage(t *testing.T, o operation, what string, failing int, fault error) bool {
	t.Helper()
	m := configured(t)
	n, failed, before := 0, "", m.entries()
	m.storage.failWith(func(_, key string) error {
		if n++; n == failing {
			failed = key
			return fault
		}
		return nil
	})
	resp, err := m.do(o)
	if n < failing {
		return false
	}
	require.ErrorContains(t, err, failed, what)
	require.True(t, strings.HasSuffix(err.Error(), fault.Error()), "%s: %s", what, err)
	require.Nil(t, resp, what)
	require.Equal(t, !isReadOnly(fault), strings.Contains(m.log.String(), fault.Error()), "a fault is logged with its cause: %s", what)

	m.storage.failWith(nil)
	if o.op != logical.DeleteOperation { // a deletion has several steps
		require.Subset(t, m.entries(), before, what)
	}
	m.must(m.do(o))
	return true
}

// lastKey matches the number that is taken before its key is stored.
var lastKey = regexp.MustCompile(`"last_key":\d+`)

// entries returns everything in storage, without the last key number.
func (m *testMount) entries() map[string]string {
	m.t.Helper()
	all := map[string]string{}
	for key, value := range m.all() {
		all[key] = lastKey.ReplaceAllString(string(value), "")
	}
	return all
}

// An entry that can't be decoded, or that the engine never writes, is a fault that names
// the entry. The entry stays as it is.
func TestCorruptEntries(t *testing.T) {
	numbers := `{"format":1,"entry":{"consumer_id":"acme","audience":"a","issuer":"i","active_key":%d,"last_key":1}}`
	corrupt := map[string]string{
		"no JSON":           `hello`,
		"an empty object":   `{}`,
		"null entry":        `{"format":1,"entry":null}`,
		"empty entry":       `{"format":1,"entry":{"last_key":-1}}`,
		"a later format":    `{"format":2,"entry":{}}`,
		"no format":         strings.Replace(fmt.Sprintf(numbers, 1), `"format":1,`, "", 1),
		"types that clash":  `{"format":1,"entry":{"consumer_id":1,"pkcs8":1,"allowed_rooms":1}}`,
		"no life":           `{"format":1,"entry":{"last_key":-1,"allowed_rooms":["*"],"ttl":0,"max_ttl":0}}`,
		"a bad value":       `{"format":1,"entry":{"consumer_id":"a.b","pkcs8":"AAAA","allowed_rooms":["a.*"]}}`,
		"a later key":       fmt.Sprintf(numbers, 2),
		"a negative number": fmt.Sprintf(numbers, -1),
	}
	// The operations that read each entry.
	touched := map[string][]string{
		"config": {
			"config read", "config update", "config new key", "config switch", "key read", "key import", "key generate", "key delete", "check", "verify", "creds read",
		},
		"keys/1":        {"config read", "config switch", "key read", "check", "creds read"},
		"roles/support": {"role read", "role update", "check", "creds read"},
	}
	for path, names := range touched {
		for what, value := range corrupt {
			what = path + ": " + what
			m := configured(t)
			m.put(path, value)
			writes := m.storage.written()
			if path != "keys/1" { // it has no existence check
				// No error here: Vault would answer it with fewer details.
				req := &logical.Request{Operation: logical.UpdateOperation, Path: path, Storage: m.storage}
				_, exists, err := m.wire.HandleExistenceCheck(t.Context(), req)
				require.NoError(t, err, what)
				require.True(t, exists, what)
			}
			for _, name := range names {
				resp, err := m.do(operations(t)[name])
				require.ErrorContains(t, err, `"`+path+`"`, "%s: %s", what, name)
				require.Nil(t, resp, "%s: %s", what, name)
			}
			require.Equal(t, writes, m.storage.written(), "%s: nothing is overwritten", what)
		}
	}
}

func TestActiveKeyMissingFromStorage(t *testing.T) {
	m := configured(t)
	require.NoError(t, m.storage.Delete(t.Context(), "keys/1"))
	m.wire.InvalidateKey(t.Context(), "keys/1")
	for _, name := range []string{"config read", "creds read"} {
		_, err := m.do(operations(t)[name])
		require.EqualError(t, err, `the active key "keys/1" is missing from storage`, name)
	}
}

// One can recover from a corrupt entry without losing anything else.
func TestRecoveryFromCorruptStorage(t *testing.T) {
	const corrupt = `{"format":1,"entry":{`
	first := map[string]any{fieldConsumerID: testConsumer, fieldPrivateKey: readTestdata(t, "rsa2048.pkcs1.pem")}
	m := configured(t)
	token := m.creds()[fieldToken].(string)

	// The active key is replaced by itself, then by a staged one.
	m.put("keys/1", corrupt)
	require.Contains(t, m.verify(token, "").Data[fieldReason], "signed by another key")
	require.Equal(t, []string{"key version 1 can't be read from storage and was not tried"}, m.verify(token, "").Warnings)
	m.mustWrite("config", first)
	require.Equal(t, "2 of [1 2]", m.keyState())
	m.put("keys/2", corrupt)
	m.mustWrite("config", map[string]any{fieldActiveKey: m.stageSecond()})
	require.Equal(t, "3 of [1 2 3]", m.keyState())
	m.mustDelete("keys/1")
	m.mustDelete("keys/2")
	require.Empty(t, m.verify(token, "").Warnings)

	// The configuration, and everything below keys/.
	for _, path := range []string{"config", "keys/2", "keys/9x", "keys/a/b"} {
		m.put(path, corrupt)
	}
	m.mustDelete("config")
	require.Equal(t, "unconfigured <nil>", m.keyState())
	m.mustWrite("config", first)
	require.Equal(t, "4 of [4]", m.keyState(), "no number is used again")

	// A role is deleted without being read.
	m.put("roles/support", corrupt)
	m.mustDelete("roles/support")
	m.mustWrite("roles/support", map[string]any{fieldAllowedRooms: "support-*"})

	// A corrupt inactive version stops nothing.
	m.put("keys/5", corrupt)
	require.Equal(t, true, m.verify(m.creds()[fieldToken].(string), "").Data[fieldValid])
	m.mustWrite("keys/generate", nil)
	require.Equal(t, "4 of [4 5 6]", m.keyState())
}
