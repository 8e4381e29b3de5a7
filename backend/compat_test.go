// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// make fixture VERSION=vX.Y.Z sets it, once for each release.
var writeStorage = flag.String("write-storage", "", "write testdata/storage/VERSION.json with the storage of this version")

// releasedStorage is what a release wrote to storage, and how it answered from that.
type releasedStorage struct {
	InUse   map[string]json.RawMessage `json:"in_use"`
	Answers map[string]map[string]any  `json:"answers"`

	// Deleted is a mount that had two keys when its configuration was deleted.
	Deleted map[string]json.RawMessage `json:"deleted"`
}

// This version reads what a release wrote, and gives the same answers, perhaps with
// additional fields. Reading changes nothing.
func TestStorageOfReleases(t *testing.T) {
	if *writeStorage != "" {
		writeReleasedStorage(t, *writeStorage)
	}
	files, err := filepath.Glob("testdata/storage/v*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			require.NoError(t, err)
			var release releasedStorage
			require.NoError(t, json.Unmarshal(raw, &release))

			m := newTestMount(t)
			m.putAll(release.InUse)
			for path, want := range release.Answers {
				require.Subset(t, m.answer(path), want, path)
			}
			require.Zero(t, m.storage.written(), "a read changed storage")
			m.mustWrite("roles/every-field", map[string]any{fieldTTL: "2m"})
			m.mustWrite("config", map[string]any{fieldActiveKey: 2})
			require.EqualValues(t, 2, m.answer("creds/every-field")[fieldKeyVersion])

			m = newTestMount(t)
			m.putAll(release.Deleted)
			require.Nil(t, m.must(m.call(logical.ReadOperation, "config", nil)))
			require.EqualValues(t, 3, m.mustWrite("keys/generate", nil).Data[fieldVersion], "a number is not given twice")
		})
	}
}

// answer reads a path, with its query.
func (m *testMount) answer(path string) map[string]any {
	m.t.Helper()
	path, room, asked := strings.Cut(path, "?room=")
	if !asked {
		return m.mustRead(path, nil)
	}
	return m.mustRead(path, map[string]any{fieldRoom: room})
}

func (m *testMount) putAll(entries map[string]json.RawMessage) {
	m.t.Helper()
	for key, value := range entries {
		m.put(key, string(value))
	}
}

// all returns everything in storage.
func (m *testMount) all() map[string]json.RawMessage {
	m.t.Helper()
	entries := map[string]json.RawMessage{}
	require.NoError(m.t, logical.ScanView(m.t.Context(), m.storage, func(key string) {
		entry, err := m.storage.Get(m.t.Context(), key)
		require.NoError(m.t, err)
		entries[key] = entry.Value
	}))
	return entries
}

func writeReleasedStorage(t *testing.T, version string) {
	t.Helper()
	m := newTestMount(t)
	m.mustWrite("config", map[string]any{
		fieldConsumerID: testConsumer, fieldPrivateKey: readTestdata(t, "rsa2048.pkcs1.pem"),
		fieldAudience: "other", fieldIssuer: "staging", fieldDomain: "meet.example.com", fieldDeleteEndedRolesAfter: "30d",
	})
	m.mustWrite("keys/generate", nil)
	m.mustWrite("roles/every-field", map[string]any{
		fieldAllowedRooms: "launch,support-*", fieldDefaultRoom: "launch", fieldAllowWildcardRoom: true,
		fieldTTL: "5m", fieldMaxTTL: "2h", fieldNotBeforeDuration: "10s", fieldMaxNotBefore: "24h", fieldGenerateLease: true,
		fieldValidFrom: testNow.Add(-time.Minute).Unix(), fieldValidUntil: testNow.Add(time.Hour).Unix(),
	})
	m.mustWrite("roles/defaults", map[string]any{fieldAllowedRooms: "*"})
	m.mustWrite("roles/personal", map[string]any{fieldAllowedRooms: "{{identity.entity.id}}", fieldAllowedRoomsTemplate: true})
	release := releasedStorage{InUse: m.all(), Answers: map[string]map[string]any{}}
	for _, path := range []string{ // which together return every field of every entry
		"config", "keys/1", "keys/2", "roles/every-field", "roles/defaults", "roles/personal", "creds/every-field", "check/defaults?room=support-1",
	} {
		release.Answers[path] = m.answer(path)
	}
	m.mustDelete("config")
	for _, role := range m.roleNames() {
		m.mustDelete("roles/" + role.(string))
	}
	release.Deleted = m.all()

	raw, err := json.MarshalIndent(release, "", "  ")
	require.NoError(t, err)
	file := filepath.Join("testdata", "storage", version+".json")
	require.NoFileExists(t, file, "what a release has written is not written again")
	require.NoError(t, os.WriteFile(file, append(raw, '\n'), 0o600))
}
