// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// Replacing a key as in the README: stage a key, read its public half, switch, and switch
// back. Tokens are read all the time, and none fails.
func TestReplaceAKeyUnderLoad(t *testing.T) {
	mount, first := configured(t)
	_, staged := root(t).post(mount+"/keys/generate", map[string]any{"key_bits": 3072})
	require.Equal(t, json.Number("2"), staged.Data()["version"])
	block, _ := pem.Decode([]byte(staged.Data()["public_key"].(string)))
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	require.NoError(t, err)
	keys := map[string]*rsa.PublicKey{"1": first, "2": parsed.(*rsa.PublicKey)}
	require.Equal(t, 384, keys["2"].Size())

	app := root(t).as(`path "` + mount + `/creds/support" { capabilities = ["read"] }`)
	var stop atomic.Bool
	var reads atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				status, answer, err := vault.Call(context.Background(), app.token, http.MethodGet, devvault.Query(mount+"/creds/support", "room", "support-1"), nil)
				if !assert.NoError(t, err) || !assert.Equal(t, http.StatusOK, status, answer.Errors()) {
					return
				}
				assert.NoError(t, verifySignature(answer.Data()["token"].(string), keys[fmt.Sprint(answer.Data()["key_version"])]))
				reads.Add(1)
			}
		})
	}
	for i := range 10 {
		version := fmt.Sprint(2 - i%2)
		root(t).write(mount+"/config", map[string]any{"active_key": version})
		require.Equal(t, json.Number(version), root(t).read(mount+"/creds/support", "room", "support-1")["key_version"], "the next read")
	}
	stop.Store(true)
	wg.Wait()
	require.Greater(t, reads.Load(), int64(10))

	require.Equal(t, json.Number("1"), root(t).read(mount + "/config")["active_key"])
	status, _ := root(t).call(http.MethodDelete, mount+"/keys/1", nil)
	require.Equal(t, http.StatusBadRequest, status, "the active one")
	status, _ = root(t).call(http.MethodDelete, mount+"/keys/2", nil)
	require.Equal(t, http.StatusNoContent, status)
	status, _ = root(t).get(mount + "/keys/2")
	require.Equal(t, http.StatusNotFound, status)
	_, answer := root(t).get(mount + "/keys?list=true")
	require.Equal(t, []any{"1"}, answer.Data()["keys"])
}

func TestVerifyOverHTTP(t *testing.T) {
	mount, _ := configured(t)
	support := root(t).as(`path "` + mount + `/verify" { capabilities = ["update"] }`)
	token := root(t).read(mount+"/creds/support", "room", "support-1")["token"].(string)
	status, answer := support.post(mount+"/verify", map[string]any{"token": token, "room": "support-1"})
	require.Equal(t, http.StatusOK, status, answer.Errors())
	require.Equal(t, true, answer.Data()["valid"])
	require.Equal(t, json.Number("1"), answer.Data()["key_version"])
	require.Equal(t, "support-1", answer.Data()["claims"].(map[string]any)["room"])
	for reason, body := range map[string]map[string]any{
		`for room "support-1", not "support-2"`: {"token": token, "room": "support-2"},
		"signed by another key":                 {"token": token[:len(token)-3] + "AAA"},
		"malformed":                             {"token": "x"},
	} {
		_, answer := support.post(mount+"/verify", body)
		require.Equal(t, false, answer.Data()["valid"])
		require.Contains(t, answer.Data()["reason"], reason)
	}
}

func TestCheckOverHTTP(t *testing.T) {
	mount, _ := configured(t)
	app := root(t).as(`path "` + mount + `/check/support" { capabilities = ["read"] }`)
	data := app.read(mount+"/check/support", "room", "support-1")
	require.Equal(t, true, data["allowed"])
	require.Equal(t, "support-*", data["matched_rule"])
	require.Equal(t, "support-1", data["claims"].(map[string]any)["room"])
	data = app.read(mount+"/check/support", "room", "billing")
	require.Equal(t, map[string]any{
		"allowed": false, "reason": `room "billing" is not allowed by this role; ask for one that matches its allowed_rooms`,
	}, data)
	status, _ := app.get(mount+"/creds/support", "room", "support-1")
	require.Equal(t, http.StatusForbidden, status)
}
