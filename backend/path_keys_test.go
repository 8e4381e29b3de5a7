// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestStageSwitchAndSwitchBack(t *testing.T) {
	m := configured(t)
	first := m.mustRead("keys/1", nil)
	require.Equal(t, "imported", first[fieldSource])
	require.Equal(t, true, first[fieldActive])
	require.Equal(t, testNow.Truncate(time.Second).Format(time.RFC3339), first[fieldCreatedTime])
	require.Equal(t, m.mustRead("config", nil)[fieldPublicKey], first[fieldPublicKey])

	imported := m.mustWrite("keys/import", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.openssh.pem")}).Data
	require.EqualValues(t, 2, imported[fieldVersion])
	generated := m.mustWrite("keys/generate", nil).Data
	require.EqualValues(t, 3, generated[fieldVersion])
	require.EqualValues(t, 2048, generated[fieldKeyBits])
	for _, want := range []map[string]any{imported, generated} {
		got := m.mustRead(fmt.Sprintf("keys/%v", want[fieldVersion]), nil)
		require.Equal(t, false, got[fieldActive])
		for name, value := range want {
			require.Equal(t, value, got[name])
		}
	}
	require.Equal(t, "generated", m.mustRead("keys/3", nil)[fieldSource])
	require.EqualValues(t, 1, m.mustRead("config", nil)[fieldActiveKey], "staging activates nothing")

	read := func() any {
		return m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})[fieldKeyVersion]
	}
	require.EqualValues(t, 1, read())
	m.mustWrite("config", map[string]any{fieldActiveKey: 3})
	require.EqualValues(t, 3, read())
	require.Equal(t, true, m.mustRead("keys/3", nil)[fieldActive])
	require.Equal(t, false, m.mustRead("keys/1", nil)[fieldActive])
	m.mustWrite("config", map[string]any{fieldActiveKey: 1})
	require.EqualValues(t, 1, read())
}

func TestGeneratedKeySizes(t *testing.T) {
	m := newTestMount(t) // keys can be staged before the configuration exists
	for i, bits := range []int{2048, 3072, 4096} {
		data := m.mustWrite("keys/generate", map[string]any{fieldKeyBits: bits}).Data
		require.EqualValues(t, bits, data[fieldKeyBits])
		require.EqualValues(t, i+1, data[fieldVersion])
	}
	writes := m.storage.written()
	for _, bits := range []any{0, 1024, 2047, 2049, 8192, -2048, "big", 2048.5} {
		require.Contains(t, m.refused(logical.UpdateOperation, "keys/generate", map[string]any{fieldKeyBits: bits}), fieldKeyBits)
	}
	require.Equal(t, writes, m.storage.written())
	m.mustWrite("config", map[string]any{fieldConsumerID: testConsumer, fieldActiveKey: 2})
	require.EqualValues(t, 3072, m.mustRead("config", nil)[fieldKeyBits])
}

func TestKeyDelete(t *testing.T) {
	m := configured(t)
	m.mustWrite("keys/generate", nil)
	require.Contains(t, m.refused(logical.DeleteOperation, "keys/1", nil), "version 1 is the active one; set active_key of config to another version first")
	m.token("support", map[string]any{fieldRoom: "support-1"})

	m.mustDelete("keys/2")
	m.mustDelete("keys/2")
	m.mustDelete("keys/99")
	resp, err := m.call(logical.ReadOperation, "keys/2", nil)
	require.NoError(t, err)
	require.Nil(t, resp, "Vault answers nil with 404")
	require.Contains(t, m.refused(logical.UpdateOperation, "config", map[string]any{fieldActiveKey: 2}), "active_key 2 does not exist")

	// The number is never used again, even after everything was deleted.
	require.EqualValues(t, 3, m.mustWrite("keys/generate", nil).Data[fieldVersion])
	m.mustDelete("config")
	require.EqualValues(t, 4, m.mustWrite("keys/generate", nil).Data[fieldVersion])
	m.mustDelete("config")
	m.mustWrite("config", map[string]any{fieldConsumerID: "new", fieldPrivateKey: readTestdata(t, "rsa2048.pkcs1.pem")})
	require.EqualValues(t, 5, m.mustRead("config", nil)[fieldActiveKey])
}

func TestInvalidKeyPaths(t *testing.T) {
	m := configured(t)
	for _, path := range []string{"keys/0", "keys/01", "keys/-1", "keys/1a", "keys/latest", "keys/1/private", "keys/1000000000"} {
		_, err := m.call(logical.ReadOperation, path, nil)
		require.ErrorIs(t, err, logical.ErrUnsupportedPath, path)
	}
	require.NotContains(t, m.log.String(), "[ERROR]", "no fault of the engine's")
}

// No answer of any path contains a private key: neither a prime factor nor the private
// exponent, in any form.
func TestNoPathReturnsAPrivateKey(t *testing.T) {
	m := configured(t)
	m.mustWrite("keys/generate", nil)
	all := operations(t)
	order := slices.SortedFunc(maps.Keys(all), func(x, y string) int { // deletions last
		return cmp.Or(strings.Compare(fmt.Sprint(all[x].op == logical.DeleteOperation), fmt.Sprint(all[y].op == logical.DeleteOperation)), strings.Compare(x, y))
	})
	var answers strings.Builder
	var needles []string
	for _, name := range order {
		resp, err := m.call(all[name].op, all[name].path, all[name].data)
		fmt.Fprintln(&answers, name, resp, err)
		for key := range m.entries() {
			if version, ok := strings.CutPrefix(key, keyPrefix); ok {
				number, err := strconv.Atoi(version)
				require.NoError(t, err)
				k, err := load[storedKey](t.Context(), m.storage, keyPath(number))
				require.NoError(t, err)
				needles = append(needles, privateParts(t, k)...)
			}
		}
	}
	require.Contains(t, answers.String(), "PUBLIC KEY")
	require.NotContains(t, answers.String(), "PRIVATE")
	for _, needle := range needles {
		require.False(t, strings.Contains(answers.String(), needle))
	}
	require.Greater(t, len(needles), 3*5)
}

// privateParts are pieces of the private parts of a key: in decimal, as bytes, in hex, and
// in base64 with any alignment.
func privateParts(t testing.TB, k *key) []string {
	t.Helper()
	parsed, err := x509.ParsePKCS8PrivateKey(k.PKCS8)
	require.NoError(t, err)
	key := parsed.(*rsa.PrivateKey)
	var parts []string
	for _, n := range []*big.Int{key.D, key.Primes[0], key.Primes[1]} {
		piece := n.Bytes()[20:50]
		parts = append(parts, n.String()[10:50], string(piece), hex.EncodeToString(piece))
		for shift := range 3 {
			parts = append(parts, base64.StdEncoding.EncodeToString(piece[shift : shift+27])[2:34])
		}
	}
	return parts
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
	resp = m.mustWrite("config", map[string]any{fieldPrivateKey: first, fieldDomain: "meet.example.com"})
	require.Equal(t, []string{"this private key is already the active one, version 1; no new version was stored"}, resp.Warnings)
	require.Equal(t, "meet.example.com", m.mustRead("config", nil)[fieldDomain])
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
	full := "100 key versions are stored, which is the maximum; delete one that is no longer used, such as keys/2"
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

// A version can't be deleted while it becomes the active one.
func TestKeyDeletionWaitsForASwitch(t *testing.T) {
	m := configured(t)
	m.mustWrite("keys/import", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.openssh.pem")})
	goOn := m.held("keys/2", operation{logical.UpdateOperation, "config", map[string]any{fieldActiveKey: 2}})
	deleted := later(func() { require.Contains(t, m.refused(logical.DeleteOperation, "keys/2", nil), "is the active one") })
	goOn()
	<-deleted
	m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})
}

func TestKeyInfo(t *testing.T) {
	m := configured(t)
	m.mustWrite("keys/generate", map[string]any{fieldKeyBits: 3072})
	require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: keyPath(10), Value: []byte("{")}))
	m.wire.InvalidateKey(t.Context(), keyPath(10))
	data := m.must(m.call(logical.ListOperation, "keys/", nil)).Data
	require.Equal(t, []any{"1", "2", "10"}, data["keys"])
	infos := data["key_info"].(map[string]any)
	for version, source := range map[string]string{"1": "imported", "2": "generated"} {
		read := m.mustRead("keys/"+version, nil)
		require.Equal(t, source, read[fieldSource])
		for _, field := range []string{fieldPublicKey, fieldVersion} {
			delete(read, field)
		}
		require.Equal(t, map[string]any(read), infos[version])
	}
	require.Equal(t, map[string]any{fieldActive: false, fieldError: `corrupt entry in storage: "keys/10": it is not JSON of the right form`}, infos["10"])
}

// A private half that does not belong to its public half is not used. Writing the key again
// stores it anew.
func TestHalvesOfAKey(t *testing.T) {
	m := configured(t)
	mixed := storedOf(t, readTestdata(t, "rsa2048.openssh.pem"))
	mixed.PublicKey = storedOf(t, readTestdata(t, "rsa2048.pkcs1.pem")).PublicKey
	broken := mixed
	broken.PKCS8 = []byte("x")
	for want, stored := range map[string]storedKey{
		`"keys/1": its public half is that of another key`: mixed,
		`"keys/1": its private key can't be parsed`:        broken,
	} {
		require.NoError(t, store(t.Context(), m.storage, keyPath(1), stored))
		m.wire.InvalidateKey(t.Context(), keyPath(1))
		for _, o := range []operation{
			{logical.ReadOperation, "creds/support", map[string]any{fieldRoom: "support-1"}},
			{logical.UpdateOperation, "config", map[string]any{fieldActiveKey: 1}},
		} {
			_, err := m.call(o.op, o.path, o.data)
			require.ErrorContains(t, err, want)
		}
	}
	m.mustWrite("config", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.pkcs1.pem")})
	require.EqualValues(t, 2, m.mustRead("creds/support", map[string]any{fieldRoom: "support-1"})[fieldKeyVersion])
}
