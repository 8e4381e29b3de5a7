// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// guide is a reader of docs/operations.md at the active node of a cluster.
type guide struct {
	reader

	sections map[string]string
	cluster  *devvault.Cluster
}

func newGuide(t *testing.T) *guide {
	t.Helper()
	g := &guide{reader: reader{client{t: t}, readersFolder(t)}, sections: sections(t, "../../docs/operations.md")}
	require.NoError(t, os.Mkdir(g.plugins(), 0o700))
	return g
}

// start runs a cluster. From then on, the commands run there with its root token.
func (g *guide) start(start func(context.Context, devvault.Options, string) (*devvault.Cluster, error)) {
	g.t.Helper()
	var err error
	g.cluster, err = start(g.t.Context(), devvault.Options{VaultBin: os.Getenv("VAULT_BIN"), PluginDir: g.plugins()}, g.t.TempDir())
	require.NoError(g.t, err)
	g.t.Cleanup(g.cluster.Stop)
	active, err := g.cluster.Active(g.t.Context())
	require.NoError(g.t, err)
	g.vault, g.token = active.Server, g.cluster.RootToken
}

func (g *guide) root() client { return g.with(g.cluster.RootToken) }

// variables returns the first commands of a section.
func (g *guide) variables(section string) string { return blocks(g.sections[section])[0].commands }

// installStep returns the commands of a step of "Install".
func (g *guide) installStep(number int) string {
	g.t.Helper()
	return indented(step(g.t, g.sections["Install"], number))
}

// The operator's guide works as written: from a release to a running mount, to the next
// version and back, and from a snapshot to a new cluster with the same key.
func TestOperationsGuide(t *testing.T) {
	t.Parallel()
	g := newGuide(t)
	g.start(devvault.StartCluster)
	for _, version := range []string{"0.1.0", "0.2.0"} {
		require.NoError(t, buildPlugin(filepath.Join(g.dir, devvault.PluginName+"_"+version+"_linux_amd64", devvault.PluginName), "v"+version))
	}
	g.token = g.root().as(examplePolicy(t, "operator")).token
	require.Regexp(t, `running_plugin_version +v0\.1\.0`, g.run(indented(g.sections["Install"])))
	key := g.root().configure("clanmeeting")
	requireSigns := func() {
		t.Helper()
		token := g.root().read("clanmeeting/creds/support", "room", "support-4711")["token"].(string)
		require.NoError(t, verifySignature(token, &key.PublicKey))
	}
	g.changeTheBuild(requireSigns)
	t.Run("pins: Vault only", func(t *testing.T) {
		onlyOn(t, devvault.Vault)
		require.Regexp(t, `version +v0\.1\.0`, g.run(indented(g.sections["Pin a version"])))
	})
	next := strings.Replace(g.variables("Install"), "version=0.1.0", "version=0.2.0", 1)
	require.True(t, strings.HasSuffix(g.run(next+g.installStep(1)+g.installStep(2)+indented(g.sections["Upgrade"])), "v0.2.0"))
	requireSigns()
	require.Contains(t, g.run(indented(g.sections["Roll back"])), "v0.1.0")
	requireSigns()
	require.NoFileExists(t, filepath.Join(g.plugins(), devvault.PluginName+"_v0.2.0"))
	require.Regexp(t, `rate +100`, g.run(indented(g.sections["Rate limits"])))
	g.requireLimit()
	g.restore()
	requireSigns()
}

// changeTheBuild follows "Change the build", there and back. In between, a file that can't
// run is registered, as by somebody who did not try it.
func (g *guide) changeTheBuild(requireSigns func()) {
	g.t.Helper()
	there, back, _ := strings.Cut(g.sections["Change the build"], "\n**To go back**")
	variables := g.variables("Change the build")
	reload, found := strings.CutPrefix(indented(there), variables)
	require.True(g.t, found)
	first := g.root().read("sys/mounts/clanmeeting")["running_sha256"].(string)
	// Another file of the same version stands for the other build: a program may have
	// anything after its end.
	build := "install -D ${plugin}_${version}_linux_amd64/$plugin $file\necho >> $file\n"
	out := g.run(variables + build + g.installStep(1) + g.installStep(2) + reload)
	require.Contains(g.t, out, devvault.PluginName+" v0.1.0")
	second := g.root().read("sys/mounts/clanmeeting")["running_sha256"].(string)
	require.NotEqual(g.t, first, second)
	require.Equal(g.t, 3, strings.Count(out, second), "the checksum of the file, of the catalog, and of the plugin that runs: %s", out)
	requireSigns()

	broken := "name=broken file=\"$PLUGIN_DIRECTORY/broken\"\necho 'not a program' > \"$file\"\nchmod +x \"$file\"\n"
	g.run(variables + broken + g.installStep(2))
	g.root().post("sys/plugins/reload/backend", map[string]any{"plugin": devvault.PluginName})
	status, _ := g.root().get("clanmeeting/creds/support", "room", "support-4711")
	require.Equal(g.t, http.StatusInternalServerError, status, "the same version: Vault can't keep the old file")

	require.True(g.t, strings.HasSuffix(g.run(variables+indented(back)), first))
	requireSigns()
}

// requireLimit checks that a limit with the path of the guide is one for tokens alone.
func (g *guide) requireLimit() {
	g.t.Helper()
	g.root().write("sys/quotas/rate-limit/clanmeeting", map[string]any{"path": "clanmeeting/creds/*", "rate": 1, "interval": "1h"})
	var statuses []int
	for _, path := range []string{"creds", "creds", "check", "check"} {
		status, _ := g.root().get("clanmeeting/"+path+"/support", "room", "support-1")
		statuses = append(statuses, status)
	}
	require.Equal(g.t, []int{http.StatusOK, http.StatusTooManyRequests, http.StatusOK, http.StatusOK}, statuses)
	g.root().call(http.MethodDelete, "sys/quotas/rate-limit/clanmeeting", nil)
}

// restore follows "Backup and restore", from the old cluster to a new one.
func (g *guide) restore() {
	g.t.Helper()
	commands := blocks(g.sections["Backup and restore"])
	require.Len(g.t, commands, 3)
	g.run(commands[0].commands)
	sum := g.root().read("clanmeeting/config")["public_key_sha256"].(string)
	old := g.cluster
	old.Stop()
	g.start(devvault.StartFirstNode)
	g.run(commands[1].commands)
	require.NoError(g.t, g.cluster.Restored(g.t.Context(), old))
	g.token = old.RootToken
	require.Regexp(g.t, "^"+sum+`(?s:.*)\ntoken +ey`, g.run(commands[2].commands))
}
