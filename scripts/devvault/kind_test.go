// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package devvault

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The output of a binary decides, not its name.
func TestKindOf(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "vault")
	for version, want := range map[string]Kind{
		"Vault v1.21.2 (b60c9e5c), built 2026-01-06T08:33:05Z": Vault,
		"OpenBao v2.5.0-beta20260101":                          OpenBao,
		"vault v1.21.2":                                        "",
		"Terraform v1.9":                                       "",
	} {
		script := "#!/bin/sh\n[ \"$*\" = version ] && echo '" + version + "'\n"
		require.NoError(t, os.WriteFile(bin, []byte(script), 0o700)) //nolint:gosec // it must be executable
		got, err := KindOf(t.Context(), bin)
		require.Equal(t, want, got, version)
		require.Equal(t, want == "", err != nil, version)
	}
}

// OpenBao loses settings if it gets two files, so it gets one.
func TestOneConfiguration(t *testing.T) {
	dir := t.TempDir()
	bin, more, seen := filepath.Join(dir, "bao"), filepath.Join(dir, "more.hcl"), filepath.Join(dir, "seen")
	require.NoError(t, os.WriteFile(more, []byte("raw_storage_endpoint = true\n"), 0o600))
	script := `#!/bin/sh
[ "$1" = version ] && exec echo 'OpenBao v2.6.2'
for arg; do
	case $arg in -config=*) echo file && cat "${arg#-config=}" ;; esac
done >'` + seen + "'\n"
	require.NoError(t, os.WriteFile(bin, []byte(script), 0o700)) //nolint:gosec // it must be executable
	_, err := Start(t.Context(), Options{VaultBin: bin, PluginDir: dir, Config: more})
	require.ErrorIs(t, err, errEnded)
	text, err := os.ReadFile(seen)
	require.NoError(t, err)
	require.Regexp(t, `(?s)^file\nlistener "tcp" \{.*\}\nunsafe_allow_api_audit_creation = true\nraw_storage_endpoint = true\n$`, string(text))
}

// A command must not see settings for another server, and a script that sets VAULT_TOKEN for
// one command must get that token: OpenBao's command prefers BAO_TOKEN.
func TestCommandEnvironment(t *testing.T) {
	t.Setenv("VAULT_NAMESPACE", "other")
	t.Setenv("BAO_ADDR", "http://other")
	for _, kind := range []Kind{Vault, OpenBao} {
		server := &Server{Addr: "http://a", bin: "bao", Kind: kind}
		env := strings.Join(server.Command(t.Context(), "t", "status").Env, "\n") + "\n"
		require.Contains(t, env, "VAULT_ADDR=http://a\nVAULT_TOKEN=t\n")
		require.NotContains(t, env, "BAO_")
		require.NotContains(t, env, "VAULT_NAMESPACE")
	}
}

func TestNodeConfig(t *testing.T) {
	node := nodeConfig{id: "n0", addr: "127.0.0.1:1", clusterAddr: "127.0.0.1:2", advertised: "127.0.0.1:3", peers: []string{"127.0.0.1:1", "127.0.0.1:4"}}
	require.Contains(t, node.text(Vault), "\ncluster_addr = \"https://127.0.0.1:3\"\n")
	require.Contains(t, node.text(Vault), "\ndisable_mlock = true\n")
	bao := node.text(OpenBao)
	require.NotContains(t, bao, "disable_mlock")
	require.Contains(t, bao, "\n  max_request_json_strings = 20000\n}\n")
	require.Contains(t, bao, "\nunsafe_allow_api_audit_creation = true\ndisable_standby_reads = true\n")

	node.standbyReads, node.multiplier, node.disableCache = true, 1, true
	require.NotContains(t, node.text(OpenBao), "disable_standby_reads")
	require.Contains(t, node.text(OpenBao), "\n  performance_multiplier = 1\n")
	require.Contains(t, node.text(Vault), "\ndisable_cache = true\n")
}
