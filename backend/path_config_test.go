// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestConfigBeforeItIsWritten(t *testing.T) {
	m := newTestMount(t)
	resp, err := m.call(logical.ReadOperation, "config", nil)
	require.NoError(t, err)
	require.Nil(t, resp, "Vault answers nil with 404")

	m.mustWrite("roles/support", map[string]any{fieldAllowedRooms: "support-*"})
	message := m.refused(logical.ReadOperation, "creds/support", map[string]any{fieldRoom: "support-1"})
	require.Equal(t, "this mount is not configured; write consumer_id and private_key to clanmeeting/config", message)
	require.Equal(t, message, m.refused(logical.UpdateOperation, "creds/support", map[string]any{fieldBatchInput: manyItems(1)}))
}

func TestConfigRead(t *testing.T) {
	m := configured(t)
	key := testKey(t)
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	require.NoError(t, err)
	sum := sha256.Sum256(der)
	require.Equal(t, map[string]any{
		fieldConsumerID:      testConsumer,
		fieldAudience:        "clanmeeting",
		fieldIssuer:          "production",
		fieldDomain:          "",
		fieldActiveKey:       float64(1),
		fieldPublicKey:       string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		fieldPublicKeySHA256: hex.EncodeToString(sum[:]),
		fieldKeyBits:         float64(2048),

		fieldDeleteEndedRolesAfter: float64(0),
	}, m.mustRead("config", nil))
}

func TestConfigRefusals(t *testing.T) {
	m := newTestMount(t)
	pkcs1 := readTestdata(t, "rsa2048.pkcs1.pem")
	for name, test := range map[string]struct {
		data map[string]any
		want string
	}{
		"no consumer":        {map[string]any{fieldPrivateKey: pkcs1}, "consumer_id is required"},
		"empty consumer":     {map[string]any{fieldConsumerID: ""}, "consumer_id is required"},
		"consumer with dot":  {map[string]any{fieldConsumerID: "acme.com"}, "consumer_id must be"},
		"consumer with line": {map[string]any{fieldConsumerID: "acme\n"}, "consumer_id must be"},
		"audience, new line": {map[string]any{fieldConsumerID: "a", fieldAudience: "clanmeeting\n"}, "audience must"},
		"domain with scheme": {map[string]any{fieldConsumerID: "a", fieldDomain: "https://meet.example.com"}, "domain must be"},
		"domain with path":   {map[string]any{fieldConsumerID: "a", fieldDomain: "meet.example.com/x"}, "domain must be"},
		"domain with user":   {map[string]any{fieldConsumerID: "a", fieldDomain: "evil@meet.example.com"}, "domain must be"},
		"domain, two dots":   {map[string]any{fieldConsumerID: "a", fieldDomain: "meet..example.com"}, "domain must be"},
		"no such key":        {map[string]any{fieldConsumerID: "a", fieldActiveKey: 1}, "active_key 1 does not exist; list the path keys to see which versions do"},
		"key -1":             {map[string]any{fieldConsumerID: "a", fieldActiveKey: -1}, "active_key -1 does not exist"},
		"two, and no key":    {map[string]any{fieldConsumerID: "a", fieldActiveKey: 7, fieldPrivateKey: pkcs1}, "can't be used together"},
		"two ways at once":   {map[string]any{fieldConsumerID: "a", fieldActiveKey: 0, fieldPrivateKey: pkcs1}, "can't be used together"},
		"every problem told": {map[string]any{fieldConsumerID: "a.b", fieldIssuer: " x", fieldDomain: "x:1"}, "consumer_id must be 1 to 128 letters, digits, underscores and hyphens; issuer must"},
	} {
		require.Contains(t, m.refused(logical.UpdateOperation, "config", test.data), test.want, name)
	}
	require.Zero(t, m.storage.written(), "a refused write must write nothing")
}

// The longest values that are accepted: one character more is refused.
func TestConfigLimits(t *testing.T) {
	m := newTestMount(t)
	domain := strings.Repeat("a.", 126) + "a"
	require.Len(t, domain, 253)
	for field, longest := range map[string]string{
		fieldConsumerID: strings.Repeat("a", 128), fieldAudience: strings.Repeat("é", 255), fieldIssuer: strings.Repeat("i", 255), fieldDomain: domain,
	} {
		data := map[string]any{fieldConsumerID: testConsumer}
		data[field] = longest
		m.mustWrite("config", data)
		require.Equal(t, longest, m.mustRead("config", nil)[field])
		data[field] = "a" + longest
		require.Contains(t, m.refused(logical.UpdateOperation, "config", data), field+" must be")
	}
}

func TestConfigUpdateKeepsTheRest(t *testing.T) {
	m := configured(t)
	m.mustWrite("config", map[string]any{fieldDomain: "meet.example.com", fieldAudience: "other"})
	m.mustWrite("config", map[string]any{fieldIssuer: "staging"})
	got := m.mustRead("config", nil)
	require.Equal(t, "acme", got[fieldConsumerID])
	require.Equal(t, "meet.example.com", got[fieldDomain])
	require.Equal(t, "other", got[fieldAudience])
	require.Equal(t, "staging", got[fieldIssuer])
	require.EqualValues(t, 1, got[fieldActiveKey])

	m.mustWrite("config", map[string]any{fieldDomain: "", fieldAudience: "", fieldIssuer: ""})
	got = m.mustRead("config", nil)
	require.Equal(t, "", got[fieldDomain])
	require.Equal(t, "clanmeeting", got[fieldAudience])
	require.Equal(t, "production", got[fieldIssuer])
}

func TestConfigWithoutAKey(t *testing.T) {
	m := newTestMount(t)
	m.mustWrite("config", map[string]any{fieldConsumerID: testConsumer})
	m.mustWrite("roles/support", map[string]any{fieldAllowedRooms: "support-*"})
	got := m.mustRead("config", nil)
	require.EqualValues(t, 0, got[fieldActiveKey])
	require.NotContains(t, got, fieldPublicKey)
	message := m.refused(logical.ReadOperation, "creds/support", map[string]any{fieldRoom: "support-1"})
	require.Equal(t, "this mount has no active key; write private_key to clanmeeting/config, or active_key to choose one that is stored", message)
}

func TestConfigDelete(t *testing.T) {
	m := configured(t)
	m.mustDelete("config")
	m.mustDelete("config")

	resp, err := m.call(logical.ReadOperation, "config", nil)
	require.NoError(t, err)
	require.Nil(t, resp)
	require.Contains(t, m.refused(logical.ReadOperation, "creds/support", map[string]any{fieldRoom: "support-1"}), "not configured")
	keys, err := m.storage.List(t.Context(), keyPrefix)
	require.NoError(t, err)
	require.Empty(t, keys)
	require.Contains(t, m.refused(logical.UpdateOperation, "config", map[string]any{fieldIssuer: "x"}), "consumer_id is required")
	require.Contains(t, m.refused(logical.UpdateOperation, "config", map[string]any{fieldConsumerID: "a", fieldActiveKey: 1}), "active_key 1 does not exist")

	// A number is never used again.
	m.mustWrite("config", map[string]any{fieldConsumerID: "new", fieldPrivateKey: readTestdata(t, "rsa2048.pkcs1.pem")})
	got := m.mustRead("config", nil)
	require.EqualValues(t, 2, got[fieldActiveKey])
	require.Equal(t, "clanmeeting", got[fieldAudience])
}

func TestDeleteIsIdempotent(t *testing.T) {
	m := newTestMount(t)
	m.mustDelete("config")
	m.mustDelete("roles/none")
	entries, err := m.storage.List(t.Context(), "")
	require.NoError(t, err)
	require.Empty(t, entries)
}

// If a deletion fails halfway, the configuration stays, without an active key, until the
// next attempt deletes all of it.
func TestConfigDeleteThatFails(t *testing.T) {
	for _, failing := range []string{"keys/1", "keys/2", "config"} {
		m := configured(t)
		m.mustWrite("keys/import", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.openssh.pem")})
		puts := 0
		m.storage.failWith(func(verb, key string) error {
			if verb == "put" && key == "config" {
				puts++
			}
			if verb == "delete" && key == failing || failing == "config" && puts == 2 {
				return errors.New("storage is down")
			}
			return nil
		})
		_, err := m.call(logical.DeleteOperation, "config", nil)
		require.ErrorContains(t, err, failing)
		m.storage.failWith(nil)
		require.Contains(t, m.refused(logical.ReadOperation, "creds/support", map[string]any{fieldRoom: "support-1"}), "no active key")
		require.EqualValues(t, 0, m.mustRead("config", nil)[fieldActiveKey])

		m.mustDelete("config")
		keys, err := m.storage.List(t.Context(), keyPrefix)
		require.NoError(t, err)
		require.Empty(t, keys)
	}
}

// A number that was taken by a failed write is never given to another key.
func TestKeyNumberIsTakenBeforeTheKey(t *testing.T) {
	m := configured(t)
	other := readTestdata(t, "rsa2048.openssh.pem")
	m.storage.failWith(func(verb, key string) error {
		if verb == "put" && key == "keys/2" {
			return errors.New("disk full")
		}
		return nil
	})
	_, err := m.call(logical.UpdateOperation, "config", map[string]any{fieldPrivateKey: other, fieldDomain: "changed.example.com"})
	require.ErrorContains(t, err, `writing "keys/2" to storage: disk full`)
	m.storage.failWith(nil)

	got := m.mustRead("config", nil)
	require.EqualValues(t, 1, got[fieldActiveKey])
	require.Equal(t, "", got[fieldDomain], "a failed write changes nothing else")
	m.mustWrite("config", map[string]any{fieldPrivateKey: other})
	require.EqualValues(t, 3, m.mustRead("config", nil)[fieldActiveKey])
}

// The next read sees every kind of change to the key or the configuration.
func TestSignerIsReloadedAfterEveryChange(t *testing.T) {
	m := configured(t)
	read := func() (map[string]any, map[string]any) {
		return m.token("support", map[string]any{fieldRoom: "support-1"})
	}
	read()
	m.mustWrite("config", map[string]any{fieldIssuer: "staging"})
	_, claims := read()
	require.Equal(t, "staging", claims["iss"])

	// Another node wrote the configuration.
	cfg, err := loadConfig(t.Context(), m.storage)
	require.NoError(t, err)
	cfg.ConsumerID = "other"
	require.NoError(t, store(t.Context(), m.storage, configStoragePath, *cfg))
	_, claims = read()
	require.Equal(t, testConsumer, claims["sub"], "not invalidated yet")
	m.wire.InvalidateKey(t.Context(), "config")
	_, claims = read()
	require.Equal(t, "other", claims["sub"])

	// Another node wrote the active key.
	require.NoError(t, store(t.Context(), m.storage, "keys/1", storedOf(t, readTestdata(t, "rsa2048.openssh.pem"))))
	m.wire.InvalidateKey(t.Context(), "keys/1")
	verified(t, m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})[fieldToken].(string), secondKey(t))

	m.mustDelete("config")
	require.Contains(t, m.refused(logical.ReadOperation, "creds/support", map[string]any{fieldRoom: "support-1"}), "not configured")
}
