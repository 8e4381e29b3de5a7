// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// A Vault that is killed leaves its plugins running. Ours must end, because it has the key
// in memory.
func TestPluginEndsWithItsVault(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, buildPlugin(filepath.Join(dir, devvault.PluginName), testVersion))
	idle, err := devvault.Start(t.Context(), devvault.Options{VaultBin: os.Getenv("VAULT_BIN"), PluginDir: dir})
	require.NoError(t, err)
	t.Cleanup(idle.Stop)
	client{t, idle, idle.RootToken}.write("sys/mounts/clanmeeting", map[string]any{"type": devvault.PluginName})
	plugins := children(t, idle.PID())
	require.Len(t, plugins, 1)
	time.Sleep(time.Second)
	require.True(t, running(plugins[0]), "it must not end while its Vault is there")
	idle.Kill()
	require.Eventually(t, func() bool { return !running(plugins[0]) }, 10*time.Second, 10*time.Millisecond, "the plugin outlives its Vault")
}

// An operator must see which version and which of the two builds runs: in Vault, in the log of
// the server, and by asking the file.
func TestBuildNamesItself(t *testing.T) {
	t.Parallel()
	mount := enable(t)
	require.Equal(t, testVersion, root(t).read("sys/mounts/" + mount)["running_plugin_version"])
	signer := "Go " + strings.TrimPrefix(runtime.Version(), "go")
	if os.Getenv("SIGNER") == "openssl" {
		signer = "OpenSSL 3."
	}
	require.Regexp(t, `(?m)plugin starting: .*signs_with="`+regexp.QuoteMeta(signer), vault.Log())

	file := filepath.Join(t.TempDir(), devvault.PluginName)
	buildRelease(t, file)
	out, err := exec.Command(file, "-version").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "signs with "+signer)
}

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

// children returns the plugin's processes that a process has started.
func children(t testing.TB, parent int) []int {
	t.Helper()
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=,args=").Output()
	require.NoError(t, err)
	var found []int
	line := regexp.MustCompile(fmt.Sprintf(`(?m)^ *(\d+) +%d \S*%s`, parent, devvault.PluginName))
	for _, match := range line.FindAllStringSubmatch(string(out), -1) {
		pid, err := strconv.Atoi(match[1])
		require.NoError(t, err)
		found = append(found, pid)
	}
	return found
}

// running reports whether a process exists and is not a zombie.
func running(pid int) bool {
	s := state(pid)
	return s != "" && !strings.HasPrefix(s, "Z")
}

// state returns the state of a process as ps shows it, such as T for stopped; empty if it
// has ended.
func state(pid int) string {
	out, _ := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output() // it fails if there is none
	return strings.TrimSpace(string(out))
}
