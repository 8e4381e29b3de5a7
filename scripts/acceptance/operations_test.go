// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// guide follows docs/operations.md with a cluster.
type guide struct {
	t        *testing.T
	sections map[string]string
	dir      string // where the commands run
	plugins  string
	cluster  *devvault.Cluster
	token    string // for the commands
}

func newGuide(t *testing.T) *guide {
	t.Helper()
	return &guide{t: t, sections: sections(t, "../../docs/operations.md"), dir: readersFolder(t), plugins: t.TempDir()}
}

// unpackReleases makes two releases as they are when they are unpacked.
func (g *guide) unpackReleases() {
	g.t.Helper()
	for _, version := range []string{"0.1.0", "0.2.0"} {
		release := devvault.PluginName + "_" + version
		file := filepath.Join(release+"_linux_amd64", devvault.PluginName)
		require.NoError(g.t, buildPlugin(filepath.Join(g.dir, file), "v"+version))
		raw, err := os.ReadFile(filepath.Join(g.dir, file))
		require.NoError(g.t, err)
		g.reader().file(release+"_SHA256SUMS", fmt.Sprintf("%x  %s\n", sha256.Sum256(raw), file))
	}
}

func (g *guide) startCluster(start func(context.Context, devvault.Options, string) (*devvault.Cluster, error)) {
	g.t.Helper()
	c, err := start(g.t.Context(), devvault.Options{VaultBin: os.Getenv("VAULT_BIN"), PluginDir: g.plugins}, g.t.TempDir())
	require.NoError(g.t, err)
	g.t.Cleanup(c.Stop)
	g.cluster = c
}

func (g *guide) root() client {
	g.t.Helper()
	active, err := g.cluster.Active(context.Background())
	require.NoError(g.t, err)
	return client{g.t, active.Server, g.cluster.RootToken}
}

// reader runs commands at the active node.
func (g *guide) reader() reader { return reader{g.root().with(g.token), g.dir} }

func (g *guide) run(commands string) string {
	g.t.Helper()
	return g.reader().run(commands, "PLUGIN_DIRECTORY="+g.plugins)
}

// install returns steps 1 and 2 of "Install" for other variables: what copies the file and
// registers it.
func (g *guide) install(variables string) string {
	g.t.Helper()
	steps := g.section("Install")
	return variables + indented(step(g.t, steps, 1)) + indented(step(g.t, steps, 2))
}

// variables returns the first block of commands of a section.
func (g *guide) variables(section string) string {
	g.t.Helper()
	return indentedBlocks(g.section(section))[0]
}

// follow runs the commands of a section as written, and returns what they print.
func (g *guide) follow(section string) string {
	g.t.Helper()
	commands := g.commands(section)
	require.NotEmpty(g.t, commands, section)
	return g.run(commands)
}

func (g *guide) commands(section string) string {
	g.t.Helper()
	return indented(g.section(section))
}

func (g *guide) section(name string) string {
	g.t.Helper()
	require.Contains(g.t, g.sections, name)
	return g.sections[name]
}

// The operator's guide works as written: from a release to a running mount, to the next
// version and back, and from a snapshot to a new cluster with the same key.
func TestOperationsGuide(t *testing.T) {
	t.Parallel()
	g := newGuide(t)
	g.startCluster(devvault.StartCluster)
	g.unpackReleases()
	g.token = g.root().as(examplePolicy(t, "operator")).token
	require.Regexp(t, `running_plugin_version +v0\.1\.0`, g.follow("Install"))
	key := g.root().configure("clanmeeting")
	token := func() string {
		return g.root().read("clanmeeting/creds/support", "room", "support-4711")["token"].(string)
	}
	g.changeTheBuild(token, &key.PublicKey)
	t.Run("pins: Vault only", func(t *testing.T) {
		onlyOn(t, devvault.Vault)
		require.Regexp(t, `version +v0\.1\.0`, g.follow("Pin a version"))
	})
	next := strings.Replace(g.variables("Install"), "version=0.1.0", "version=0.2.0", 1)
	require.True(t, strings.HasSuffix(g.run(g.install(next)+g.commands("Upgrade")), "v0.2.0"))
	require.NoError(t, verifySignature(token(), &key.PublicKey))
	require.Contains(t, g.follow("Roll back"), "v0.1.0")
	require.NoError(t, verifySignature(token(), &key.PublicKey))
	require.NoFileExists(t, filepath.Join(g.plugins, devvault.PluginName+"_v0.2.0"))
	require.Regexp(t, `rate +100`, g.follow("Rate limits"))
	g.overTheLimit()

	require.NoError(t, verifySignature(g.restore(), &key.PublicKey))
}

// changeTheBuild follows "Change the build", there and back. In between, a file that can't
// run is registered, as by somebody who did not try it.
func (g *guide) changeTheBuild(token func() string, key *rsa.PublicKey) {
	g.t.Helper()
	there, back, found := strings.Cut(g.section("Change the build"), "\n**To go back**")
	require.True(g.t, found)
	// Another file of the same version stands for the other build: a program may have
	// anything after its end.
	raw, err := os.ReadFile(filepath.Join(g.dir, devvault.PluginName+"_0.1.0_linux_amd64", devvault.PluginName))
	require.NoError(g.t, err)
	require.NoError(g.t, os.MkdirAll(filepath.Join(g.dir, "bin/plugins"), 0o700))
	require.NoError(g.t, os.WriteFile(filepath.Join(g.dir, "bin/plugins", devvault.PluginName), append(raw, '\n'), 0o700)) //nolint:gosec // it must be executable
	first := g.root().read("sys/mounts/clanmeeting")["running_sha256"]
	variables := g.variables("Change the build")
	reload, found := strings.CutPrefix(indented(there), variables)
	require.True(g.t, found)
	out := g.run(g.install(variables) + reload)
	require.Contains(g.t, out, devvault.PluginName+" v0.1.0")
	second := g.root().read("sys/mounts/clanmeeting")["running_sha256"].(string)
	require.NotEqual(g.t, first, second)
	require.Equal(g.t, 3, strings.Count(out, second), "the checksum of the file, of the catalog, and of the plugin that runs: %s", out)
	require.NoError(g.t, verifySignature(token(), key))

	broken := []byte("not a program")
	require.NoError(g.t, os.WriteFile(filepath.Join(g.plugins, "broken"), broken, 0o700)) //nolint:gosec // it must be executable
	catalog := map[string]any{"version": "v0.1.0", "command": "broken", "sha256": fmt.Sprintf("%x", sha256.Sum256(broken))}
	g.root().write("sys/plugins/catalog/secret/"+devvault.PluginName, catalog)
	g.root().post("sys/plugins/reload/backend", map[string]any{"plugin": devvault.PluginName})
	status, _ := g.root().get("clanmeeting/creds/support", "room", "support-4711")
	require.Equal(g.t, http.StatusInternalServerError, status, "the same version: Vault can't keep the old file")

	require.True(g.t, strings.HasSuffix(g.run(variables+indented(back)), first.(string)))
	require.NoError(g.t, verifySignature(token(), key))
}

// overTheLimit checks that the limit in the guide works.
func (g *guide) overTheLimit() {
	g.t.Helper()
	root := g.root()
	root.write("sys/quotas/rate-limit/clanmeeting", map[string]any{"path": "clanmeeting/creds/*", "rate": 2, "interval": "1m"})
	statuses := map[int]int{}
	for range 4 {
		status, _ := root.get("clanmeeting/creds/support", "room", "support-1")
		statuses[status]++
	}
	require.Equal(g.t, map[int]int{http.StatusOK: 2, http.StatusTooManyRequests: 2}, statuses)
	status, _ := root.get("clanmeeting/check/support", "room", "support-1")
	require.Equal(g.t, http.StatusOK, status)
	root.call(http.MethodDelete, "sys/quotas/rate-limit/clanmeeting", nil)
}

// restore follows "Backup and restore", from the old cluster to a new one, and returns a
// token of the new one.
func (g *guide) restore() string {
	g.t.Helper()
	commands := strings.Split(strings.TrimSpace(g.commands("Backup and restore")), "\n")
	require.Len(g.t, commands, 4)
	g.run(commands[0])
	sum := g.root().read("clanmeeting/config")["public_key_sha256"]
	old := g.cluster
	old.Stop()
	g.startCluster(devvault.StartFirstNode)
	g.token = g.cluster.RootToken
	g.run(commands[1])
	g.token = old.RootToken
	require.NoError(g.t, g.cluster.Restored(g.t.Context(), old))
	require.Equal(g.t, sum, g.run(commands[2]))
	out := g.run(commands[3])
	token := regexp.MustCompile(`(?m)^token +(\S+)$`).FindStringSubmatch(out)
	require.NotNil(g.t, token, out)
	return token[1]
}
