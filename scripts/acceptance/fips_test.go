// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"net/http"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// What docs/security.md says about Go's FIPS 140-3 mode. The forms of a key are tested in
// backend/internal/rsakey.
func TestFIPS(t *testing.T) {
	t.Parallel()
	sum := root(t).read("sys/mounts/" + enable(t))["running_sha256"]
	for _, mode := range []string{"on", "only"} {
		t.Run(mode, func(t *testing.T) {
			name := "fips-" + mode
			root(t).write("sys/plugins/catalog/secret/"+name, map[string]any{
				"command": devvault.PluginName, "sha256": sum, "env": []string{"GODEBUG=fips140=" + mode},
			})
			mount := unique(t)
			root(t).write("sys/mounts/"+mount, map[string]any{"type": name})
			t.Cleanup(func() {
				root(t).call(http.MethodDelete, "sys/mounts/"+mount, nil)
				root(t).call(http.MethodDelete, "sys/plugins/catalog/secret/"+name, nil)
			})
			root(t).write(mount+"/config", map[string]any{"consumer_id": "acme"})
			root(t).write(mount+"/roles/any", map[string]any{"allowed_rooms": "*"})
			_, private := newKey(t)
			for _, key := range []map[string]any{{"private_key": private}, {"active_key": root(t).write(mount+"/keys/generate", nil).Data()["version"]}} {
				root(t).write(mount+"/config", key)
				signs(t, mount)
			}
			unusual, err := os.ReadFile("../../backend/internal/rsakey/testdata/accepted/exponent-3.pem")
			require.NoError(t, err)
			status, answer := root(t).post(mount+"/config", map[string]any{"private_key": string(unusual)})
			if mode == "only" {
				require.Equal(t, http.StatusBadRequest, status)
				require.Contains(t, answer.Errors(), "fips140=only")
				return
			}
			require.Less(t, status, http.StatusBadRequest, answer.Errors())
			signs(t, mount)
		})
	}
}

// signs checks that a mount makes a token, and that its verify accepts it.
func signs(t *testing.T, mount string) {
	t.Helper()
	token := root(t).read(mount+"/creds/any", "room", "a")["token"]
	status, answer := root(t).post(mount+"/verify", map[string]any{"token": token})
	require.Equal(t, http.StatusOK, status, answer.Errors())
	require.Equal(t, true, answer.Data()["valid"])
}
