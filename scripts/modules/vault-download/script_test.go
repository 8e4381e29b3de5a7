// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// checkout is a folder with the parts of this repository that scripts/vault.sh needs. Its
// go command is the real one, but does not take minutes to build a Vault: it writes a script
// that says "built".
type checkout struct {
	t   *testing.T
	dir string
	key string // a file
}

const wrapper = `#!/bin/sh
case "$*" in
*" github.com/hashicorp/vault")
	while [ "$1" != -o ]; do shift; done
	printf '#!/bin/sh\necho "Vault v1.21.2 (built)"\n' >"$2"
	chmod +x "$2"
	exit
	;;
esac
exec "$REAL_GO" "$@"
`

func newCheckout(t *testing.T, key string) checkout {
	t.Helper()
	c := checkout{t: t, dir: t.TempDir()}
	c.key = c.write("key.asc", key)
	c.write("scripts/modules/vault/go.mod", "module x\n\nrequire (\n\tgithub.com/hashicorp/vault v1.21.2\n)\n")
	c.write("bin/go", wrapper)
	for from, to := range map[string]string{
		"../../vault.sh": "scripts/vault.sh", "go.mod": "scripts/modules/vault-download/go.mod", "go.sum": "scripts/modules/vault-download/go.sum",
		"main.go": "scripts/modules/vault-download/main.go", "../../progress.awk": "scripts/progress.awk",
	} {
		content, err := os.ReadFile(from)
		require.NoError(t, err)
		c.write(to, string(content))
	}
	return c
}

func (c checkout) write(name, content string) string {
	c.t.Helper()
	file := filepath.Join(c.dir, name)
	require.NoError(c.t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(c.t, os.WriteFile(file, []byte(content), 0o700)) //nolint:gosec // G306: programs
	return file
}

// run runs vault.sh with VAULT=vault and more variables, and returns its output.
func (c checkout) run(url, vault string, environ ...string) (stdout, stderr string, err error) {
	c.t.Helper()
	goTool, err := exec.LookPath("go")
	require.NoError(c.t, err)
	cmd := exec.CommandContext(c.t.Context(), filepath.Join(c.dir, "scripts", "vault.sh"))
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(c.dir, "bin")+":/usr/bin:/bin", "REAL_GO="+goTool,
		"VAULT_BIN=", "VAULT_DOWNLOAD=", "VAULT="+vault, "VAULT_DOWNLOAD_FLAGS=-url "+url+" -key "+c.key)
	cmd.Env = append(cmd.Env, environ...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err = cmd.Run()
	c.requireTidy()
	return out.String(), said.String(), err
}

// requireTidy checks that only Vaults remain in the cache.
func (c checkout) requireTidy() {
	c.t.Helper()
	found, err := filepath.Glob(filepath.Join(c.dir, ".cache", "*"))
	require.NoError(c.t, err)
	for _, name := range found {
		require.True(c.t, strings.HasPrefix(filepath.Base(name), "vault-v"), name)
		entries, err := os.ReadDir(name)
		require.NoError(c.t, err)
		for _, entry := range entries {
			require.Equal(c.t, "vault", entry.Name())
		}
	}
}

// says returns the output of the Vault whose path vault.sh has printed.
func (c checkout) says(stdout string) string {
	c.t.Helper()
	path := strings.TrimSuffix(stdout, "\n")
	require.True(c.t, filepath.IsAbs(path), stdout)
	out, err := exec.Command(path, "version").Output()
	require.NoError(c.t, err)
	return string(out)
}

func TestScriptDownloads(t *testing.T) {
	r := newRelease(t)
	c := newCheckout(t, r.key)
	for _, vault := range []string{"", "newest", "released"} {
		stdout, stderr, err := c.run(r.URL, vault)
		require.NoError(t, err, stderr)
		require.Equal(t, "Vault v1.21.2 (loopback)\n", c.says(stdout))
	}
	require.Equal(t, 1, r.requests(archive), "the cache comes before the download")
}

func TestScriptPrefersWhatIsThere(t *testing.T) {
	r := newRelease(t)
	c := newCheckout(t, r.key)
	own := c.write("own/vault", "#!/bin/sh\necho 'Vault v1.20.0 (own)'\n")
	onPath := c.write("bin/vault", "#!/bin/sh\necho 'Vault v1.20.0 (on the PATH)'\n")

	stdout, stderr, err := c.run(r.URL, "", "VAULT_BIN="+own)
	require.NoError(t, err, stderr)
	require.Equal(t, own+"\n", stdout)
	stdout, stderr, err = c.run(r.URL, "")
	require.NoError(t, err, stderr)
	require.Equal(t, onPath+"\n", stdout)

	// The build is asked for.
	stdout, stderr, err = newCheckout(t, r.key).run(r.URL, "", "VAULT_DOWNLOAD=off")
	require.NoError(t, err, stderr)
	require.Equal(t, "Vault v1.21.2 (built)\n", c.says(stdout))
	require.Zero(t, r.requests(""))

	stdout, stderr, err = c.run(r.URL, "newest", "VAULT_BIN="+own)
	require.NoError(t, err, stderr)
	require.Equal(t, "Vault v1.21.2 (loopback)\n", c.says(stdout))
}

func TestScriptBuildsIfUnreachable(t *testing.T) {
	r := newRelease(t)
	r.Close()
	c := newCheckout(t, r.key)
	stdout, stderr, err := c.run(r.URL, "released")
	require.Error(t, err, stdout)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "the release site can't be reached")

	stdout, stderr, err = c.run(r.URL, "")
	require.NoError(t, err, stderr)
	require.Equal(t, "Vault v1.21.2 (built)\n", c.says(stdout))
	require.Equal(t, 1, strings.Count(stderr, "the release site can't be reached"), stderr)
}

// A wrong file never leads to a build: somebody should look into it.
func TestScriptFailsOnWrongDownloads(t *testing.T) {
	r := newRelease(t)
	r.files[archive] = append(r.files[archive], 0)
	stdout, stderr, err := newCheckout(t, r.key).run(r.URL, "")
	require.Error(t, err, stdout)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "checksum does not match")
	require.NotContains(t, stderr, "Building")
}
