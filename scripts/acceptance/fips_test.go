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
	unusual, err := os.ReadFile("../../backend/internal/rsakey/testdata/accepted/exponent-3.pem")
	require.NoError(t, err)
	for mode, refusal := range map[string]string{"on": "^$", "only": "fips140=only"} {
		name := unique(t)
		root(t).write("sys/plugins/catalog/secret/"+name, map[string]any{
			"command": devvault.PluginName, "sha256": sum, "env": []string{"GODEBUG=fips140=" + mode},
		})
		root(t).write("sys/mounts/"+name, map[string]any{"type": name})
		t.Cleanup(func() {
			root(t).call(http.MethodDelete, "sys/mounts/"+name, nil)
			root(t).call(http.MethodDelete, "sys/plugins/catalog/secret/"+name, nil)
		})
		root(t).configure(name)
		_, answer := root(t).post(name+"/config", map[string]any{"private_key": string(unusual)})
		require.Regexp(t, refusal, answer.Errors())
		verify(t, root(t).read(name+"/creds/support", "room", "support-1")["token"].(string), publicKey(t, name))
	}
}
