// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// keyState says which version is active, and which ones are stored. The version that is
// active signs the next token; without one, tokens are refused.
func (m *testMount) keyState() string {
	m.t.Helper()
	versions := m.must(m.call(logical.ListOperation, "keys/", nil)).Data["keys"]
	config := m.must(m.call(logical.ReadOperation, "config", nil))
	refusal := "this mount has no active key; write private_key to clanmeeting/config, or active_key to choose one that is stored"
	switch {
	case config == nil:
		refusal = "this mount is not configured; write consumer_id and private_key to clanmeeting/config"
		fallthrough
	case config.Data[fieldActiveKey] == 0.0:
		require.Equal(m.t, refusal, m.refused(logical.ReadOperation, "creds/support", map[string]any{fieldRoom: "support-1"}))
	default:
		require.Equal(m.t, config.Data[fieldActiveKey], m.creds()[fieldKeyVersion])
	}
	if config == nil {
		return fmt.Sprintf("unconfigured %v", versions)
	}
	return fmt.Sprintf("%v of %v", config.Data[fieldActiveKey], versions)
}

// The life of a mount: what each write answers, what it leaves behind, and which events
// tell of it. A refused write stores nothing.
func TestConfigAndKeys(t *testing.T) {
	m := newTestMount(t)
	m.mustWrite("roles/support", map[string]any{fieldAllowedRooms: "support-*"})
	m.events.take()
	first, second := readTestdata(t, "rsa2048.pkcs1.pem"), readTestdata(t, "rsa2048.openssh.pem")
	again, small := readKey(t, "accepted/pkcs8-named-pkcs1.pem"), readKey(t, "refused/bits-1024.pem")
	type data = map[string]any
	type events = []string // like "key-import 2", from the path of the request
	const write, remove = logical.UpdateOperation, logical.DeleteOperation
	const stored = "this private key was stored already, as version 1"
	configWrite := events{"config-write"}
	for i, step := range []struct {
		op      logical.Operation
		path    string
		data    data
		version int    // of the key, in the answer
		warning string // "" for none
		refusal string // "" for none
		events  events // none if it changed nothing
		state   string // "" for the same as before
	}{
		{op: remove, path: "config", events: events{"config-delete unchanged"}, state: "unconfigured <nil>"},
		{op: write, path: "config", data: data{fieldPrivateKey: first}, refusal: "consumer_id is required; Clan Meeting gave it to"},
		{op: write, path: "config", data: data{fieldConsumerID: "a", fieldActiveKey: -1}, refusal: "active_key -1 does not exist; list the"},
		{op: write, path: "config", data: data{fieldActiveKey: 0, fieldPrivateKey: first}, refusal: "can't be used together"},
		{op: write, path: "config", data: data{fieldConsumerID: "a.b", fieldPrivateKey: small}, refusal: "hyphens; private_key has 1024 bits"},
		{op: write, path: "keys/import", data: data{fieldPrivateKey: small}, refusal: "private_key has 1024 bits"},
		{op: write, path: "keys/generate", data: data{fieldKeyBits: 2049}, refusal: "key_bits must be 2048, 3072 or 4096"},
		{op: write, path: "config", data: data{fieldConsumerID: "acme"}, events: configWrite, state: "0 of <nil>"},
		{op: write, path: "config", data: data{fieldActiveKey: 0}, events: events{"config-write unchanged"}},

		// A key is stored once, however often it is written, by either path and in any form.
		{op: write, path: "keys/import", data: data{fieldPrivateKey: first}, version: 1, events: events{"key-import 1"}, state: "0 of [1]"},
		{op: write, path: "keys/import", data: data{fieldPrivateKey: again}, version: 1, warning: stored + "; no new version was stored"},
		{
			op: write, path: "config", data: data{fieldPrivateKey: first},
			warning: stored + ", which is the active one now; no version was active before; no new version was stored",
			events:  events{"config-write", "key-activate 1"}, state: "1 of [1]",
		},
		{op: write, path: "keys/import", data: data{fieldPrivateKey: first}, version: 1, warning: activeKeyWarning(1)},
		{
			op: write, path: "config", data: data{fieldPrivateKey: again, fieldDomain: "meet.example.com"},
			warning: activeKeyWarning(1), events: configWrite,
		},

		// Staged keys become active when they are told to, and there is a way back.
		{op: write, path: "keys/generate", version: 2, events: events{"key-generate 2"}, state: "1 of [1 2]"},
		{op: write, path: "config", data: data{fieldActiveKey: 2}, events: events{"config-write", "key-activate 2"}, state: "2 of [1 2]"},
		{op: remove, path: "keys/2", refusal: "version 2 is the active one; set active_key of config to another version first"},
		{
			op: write, path: "config", data: data{fieldActiveKey: 0},
			refusal: "active_key 0 is accepted only while no key is active; version 2 is active",
		},
		{
			op: write, path: "config", data: data{fieldPrivateKey: first},
			warning: stored + ", which is the active one now; version 2 was active before; no new version was stored",
			events:  events{"config-write", "key-activate 1"}, state: "1 of [1 2]",
		},
		{op: remove, path: "keys/2", events: events{"key-delete 2"}, state: "1 of [1]"},
		{op: remove, path: "keys/2"},
		{op: write, path: "config", data: data{fieldActiveKey: 2}, refusal: "active_key 2 does not exist"},

		// No number is given twice, even after everything was deleted.
		{
			op: write, path: "config", data: data{fieldPrivateKey: second},
			events: events{"key-import 3", "config-write", "key-activate 3"}, state: "3 of [1 3]",
		},
		{op: remove, path: "config", events: events{"config-delete"}, state: "unconfigured <nil>"},
		{op: write, path: "config", data: data{fieldIssuer: "x"}, refusal: "consumer_id is required"},
		{op: write, path: "keys/generate", version: 4, events: events{"key-generate 4"}, state: "unconfigured [4]"},
		{op: remove, path: "config", events: events{"config-delete"}, state: "unconfigured <nil>"},
		{
			op: write, path: "config", data: data{fieldConsumerID: "new", fieldPrivateKey: second},
			events: events{"key-import 5", "config-write", "key-activate 5"}, state: "5 of [5]",
		},
	} {
		what := fmt.Sprintf("step %d: %s %s", i, step.op, step.path)
		before, written := m.entries(), m.storage.written()
		state := cmp.Or(step.state, m.keyState())
		if step.refusal != "" {
			require.Contains(t, m.refused(step.op, step.path, step.data), step.refusal, what)
		} else {
			resp := m.must(m.call(step.op, step.path, step.data))
			require.Equal(t, step.version == 0 && step.warning == "", resp == nil, "nil is the 204 that clients expect")
			if resp != nil {
				require.Equal(t, step.warning, strings.Join(resp.Warnings, "\n"), what)
			}
			if step.version != 0 {
				require.EqualValues(t, step.version, resp.Data[fieldVersion], what)
				require.Subset(t, m.mustRead(keyPath(step.version), nil), resp.Data, what)
			}
		}
		require.Equal(t, state, m.keyState(), what)
		var sent events
		for _, text := range step.events {
			name, detail, _ := strings.Cut(text, " ")
			event := fmt.Sprintf("clanmeeting/%s modified=%t operation=%[1]s path=%[3]s", name, detail != "unchanged", step.path)
			if strings.HasPrefix(name, "key-") {
				event += " version=" + detail
			}
			sent = append(sent, event)
		}
		require.Equal(t, sent, m.events.take(), what)
		if step.events == nil {
			require.Equal(t, before, m.entries(), what)
			require.Equal(t, written, m.storage.written(), what)
		}
	}
	require.Equal(t, "clanmeeting", m.mustRead("config", nil)[fieldAudience], "a new configuration has the defaults")
	fresh := newTestMount(t)
	fresh.mustDelete("config")
	require.Empty(t, fresh.entries())
}

// The longest values that are accepted, and values that are refused.
func TestConfigValues(t *testing.T) {
	m := configured(t)
	domain := strings.Repeat("a.", 126) + "a"
	require.Len(t, domain, 253)
	for field, longest := range map[string]string{
		fieldConsumerID: strings.Repeat("a", 128), fieldAudience: strings.Repeat("é", 255), fieldIssuer: "Führung №1", fieldDomain: domain,
	} {
		m.mustWrite("config", map[string]any{field: longest})
		require.Equal(t, longest, m.mustRead("config", nil)[field])
	}
	before := m.entries()
	for field, values := range map[string][]any{
		fieldConsumerID: {strings.Repeat("a", 129), "acme.com", "acme\n", "acme\ufeff"},
		fieldDomain: {
			"a" + domain, "https://meet.example.com", "meet.example.com/x", "evil@meet.example.com", "meet..example.com", "x:1",
			"meet.example.com\u200b", "meet.example.com\n",
		},
		fieldAudience: {
			strings.Repeat("é", 256), "clanmeeting\n", " a", "\ufeffclanmeeting", "clan\u200bmeeting",
			"clanmeeting\u00a0", "clan\u00admeeting", "clanmeeting\u3164", "clanmeeting\ufe0f",
		},
		fieldIssuer:                {" ", "production\r", "production\u2028", "\u202eproduction", "prod\ufffd\x00"},
		fieldPrivateKey:            {[]any{"x"}},
		fieldActiveKey:             {"0x2"},
		fieldDeleteEndedRolesAfter: {"3651d"},
	} {
		for _, value := range values {
			message := m.refused(logical.UpdateOperation, "config", map[string]any{field: value})
			require.Regexp(t, "^"+field+" (must be|is too large)", message, "%q", value)
			text, _ := value.(string)
			hasEnd := strings.HasSuffix(text, "\n") || strings.HasSuffix(text, "\r")
			require.Equal(t, hasEnd, strings.Contains(message, "the value ends with a line end"), "%q", value)
		}
	}
	problems := map[string]any{fieldConsumerID: "a.b", fieldIssuer: " x", fieldDomain: "x:1"}
	require.Regexp(t, "^consumer_id must.+; issuer must.+; domain must", m.refused(logical.UpdateOperation, "config", problems))
	require.Equal(t, before, m.entries())
}

// failFrom makes storage fail from a write on; 1 is the next one.
func (m *testMount) failFrom(write int) {
	last := m.storage.written() + write
	m.storage.failWith(func(string, string) error {
		if m.storage.written() >= last {
			return errors.New("storage is down")
		}
		return nil
	})
}

// If a deletion fails halfway, the configuration stays, without an active key, until the
// next attempt deletes all of it.
func TestConfigDeleteThatFails(t *testing.T) {
	for _, failing := range []int{2, 3, 4} { // each of two keys, and the rest of the configuration
		m := configured(t)
		m.stageSecond()
		m.failFrom(failing)
		_, err := m.call(logical.DeleteOperation, "config", nil)
		require.ErrorContains(t, err, "storage is down")
		m.storage.failWith(nil)
		require.Regexp(t, "^0 of", m.keyState())
		m.mustDelete("config")
		require.Equal(t, "unconfigured <nil>", m.keyState())
	}
}

// A number that was taken by a failed write is never given to another key.
func TestKeyNumberIsTakenBeforeTheKey(t *testing.T) {
	m := configured(t)
	m.failFrom(2)
	_, err := m.do(operations(t)["config new key"])
	require.ErrorContains(t, err, `writing "keys/2" to storage: storage is down`)
	m.storage.failWith(nil)
	m.must(m.do(operations(t)["config new key"]))
	require.Equal(t, "3 of [1 3]", m.keyState())
}

// On a node that is behind, a switch and the deletion of the old key may arrive while a request
// reads them. It then reads again.
func TestLoadsOnANodeThatIsBehind(t *testing.T) {
	for path, field := range map[string]string{"creds/support": fieldKeyVersion, "config": fieldActiveKey, "keys/2": fieldVersion} {
		m := configured(t)
		m.stageSecond()
		m.wire.InvalidateKey(t.Context(), "config")
		inner := m.storage.Storage
		read := false
		m.storage.failWith(func(verb, key string) error {
			if !read && verb == "get" && key == "keys/1" {
				read = true
				cfg, err := loadConfig(t.Context(), inner)
				assert.NoError(t, err)
				cfg.ActiveKey = 2
				return errors.Join(store(t.Context(), inner, configStoragePath, *cfg), inner.Delete(t.Context(), "keys/1"))
			}
			return nil
		})
		require.EqualValues(t, 2, m.mustRead(path, map[string]any{fieldRoom: "support-1"})[field], path)
		require.True(t, read, path)
	}
}

// A change waits for a request that has begun to load what it changes. So a request sees
// one state, and nothing old is kept.
func TestChangesWaitForLoads(t *testing.T) {
	read := map[string]any{fieldRoom: "support-1"}
	deleted := func(m *testMount) { m.mustDelete("config") }
	for name, test := range map[string]struct {
		key    string // whose read is held
		o      operation
		change func(m *testMount)
		after  string
	}{
		"a key":   {"keys/1", operation{logical.ReadOperation, "keys/1", nil}, deleted, "unconfigured <nil>"},
		"a token": {"config", operation{logical.ReadOperation, "creds/support", read}, deleted, "unconfigured <nil>"},
		"a switch": {"keys/2", operation{logical.UpdateOperation, "config", map[string]any{fieldActiveKey: 2}}, func(m *testMount) {
			assert.Contains(t, m.refused(logical.DeleteOperation, "keys/2", nil), "is the active one")
		}, "2 of [1 2]"},
		"another node": {"config", operation{logical.ReadOperation, "creds/support", read}, func(m *testMount) {
			m.storeConfig(func(c *config) { c.ActiveKey = 2 })
			m.wire.InvalidateKey(t.Context(), "config")
		}, "2 of [1 2]"},
		"another node's role": {"roles/support", operation{logical.ReadOperation, "creds/support", read}, func(m *testMount) {
			r, err := loadRole(t.Context(), m.storage, "support")
			assert.NoError(t, err)
			r.TTL = time.Minute
			assert.NoError(t, store(t.Context(), m.storage, "roles/support", r.storedRole))
			m.wire.InvalidateKey(t.Context(), "roles/support")
			assert.EqualValues(t, 60, m.mustRead("creds/support", read)[fieldTTL])
		}, "1 of [1 2]"},
	} {
		m := configured(t)
		m.stageSecond()
		m.wire.InvalidateKey(t.Context(), "config")
		reached, proceed := m.hold(test.key)
		loaded, changed := make(chan error), make(chan struct{})
		go func() {
			_, err := m.do(test.o) // a token may be refused, if the change comes before its signature
			loaded <- err
		}()
		<-reached
		go func() {
			test.change(m)
			close(changed)
		}()
		select {
		case <-changed:
			t.Errorf("%s: changed while it was loaded", name)
		case <-time.After(50 * time.Millisecond):
		}
		close(proceed)
		require.NoError(t, <-loaded, name)
		<-changed
		require.Equal(t, test.after, m.keyState(), name)
	}
}
