// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// checkout is a folder with the parts of this repository that scripts/vault.sh needs. The
// Vault whose source its go.mod names is a program that says "built", which takes no minutes
// to build.
type checkout struct {
	t   *testing.T
	dir string
}

func newCheckout(t *testing.T, version string) checkout {
	t.Helper()
	c := checkout{t, t.TempDir()}
	c.write("scripts/modules/vault/go.mod", "module x\n\ngo 1.26.0\n\nrequire (\n\tgithub.com/hashicorp/vault "+version+"\n)\n\n"+
		"replace github.com/hashicorp/vault => ./vault\n")
	c.write("scripts/modules/vault/vault/go.mod", "module github.com/hashicorp/vault\n")
	c.write("scripts/modules/vault/vault/main.go", `package main

import "os"

func main() { os.Stdout.WriteString("Vault v1.21.2 (built)\n") }
`)
	require.NoError(t, os.Mkdir(filepath.Join(c.dir, "bin"), 0o700))
	goTool, err := exec.LookPath("go")
	require.NoError(t, err)
	for name, target := range map[string]string{
		"scripts/vault.sh": "../../vault.sh", "scripts/progress.awk": "../../progress.awk",
		"scripts/modules/vault-download": ".", "bin/go": goTool,
	} {
		target, err := filepath.Abs(target)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(target, filepath.Join(c.dir, name)))
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
	key, err := filepath.Abs("testdata/key.asc")
	require.NoError(c.t, err)
	cmd := exec.CommandContext(c.t.Context(), filepath.Join(c.dir, "scripts", "vault.sh"))
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(c.dir, "bin")+":/usr/bin:/bin",
		"VAULT_BIN=", "VAULT_DOWNLOAD=", "VAULT="+vault, "VAULT_DOWNLOAD_FLAGS=-url "+url+" -key "+key)
	cmd.Env = append(cmd.Env, environ...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err = cmd.Run()
	for _, leftover := range []string{"vault-download*", "*/download-*", "*/vault.*"} {
		found, err := filepath.Glob(filepath.Join(c.dir, ".cache", leftover))
		require.NoError(c.t, err)
		require.Empty(c.t, found, "only Vaults remain in the cache")
	}
	return out.String(), said.String(), err
}

// version runs vault.sh, and the Vault whose path it prints.
func (c checkout) version(url, vault string, environ ...string) (version, stderr string) {
	c.t.Helper()
	stdout, stderr, err := c.run(url, vault, environ...)
	require.NoError(c.t, err, stderr)
	file := strings.TrimSuffix(stdout, "\n")
	require.True(c.t, filepath.IsAbs(file), stdout)
	out, err := exec.Command(file, "version").Output()
	require.NoError(c.t, err)
	return string(out), stderr
}

// newSite runs the release site of testdata, which also sends its Vault as version 1.21.3,
// with other contents for some files.
func newSite(t *testing.T, spoiled map[string]string) string {
	t.Helper()
	files := http.FileServer(http.Dir("testdata"))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		req.URL.Path = strings.Replace(req.URL.Path, "1.21.3", "1.21.2", 1)
		if content, ok := spoiled[path.Base(req.URL.Path)]; ok {
			_, _ = io.WriteString(w, content) // fails if the client is gone
			return
		}
		files.ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestFindsOrDownloads(t *testing.T) {
	c, url := newCheckout(t, "v1.21.2"), newSite(t, nil)
	for _, vault := range []string{"", "newest", "released"} {
		version, stderr := c.version(url, vault)
		require.Equal(t, "Vault v1.21.2 (loopback)\n", version)
		require.Equal(t, vault != "", strings.Contains(stderr, "Vault from the cache"), stderr)
	}
	own := c.write("own/vault", "#!/bin/sh\necho 'Vault v1.20.0 (own)'\n")
	c.write("bin/vault", "#!/bin/sh\necho 'Vault v1.20.0 (on the PATH)'\n")
	version, _ := c.version(url, "")
	require.Equal(t, "Vault v1.20.0 (on the PATH)\n", version)
	version, _ = c.version(url, "", "VAULT_BIN="+own)
	require.Equal(t, "Vault v1.20.0 (own)\n", version)
	version, _ = c.version(url, "newest", "VAULT_BIN="+own)
	require.Equal(t, "Vault v1.21.2 (loopback)\n", version)
}

func TestBuilds(t *testing.T) {
	refusing := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(refusing.Close)
	for _, url := range []string{refusing.URL, "http://127.0.0.1:1"} {
		c := newCheckout(t, "v1.21.2")
		stdout, stderr, err := c.run(url, "released")
		require.Error(t, err, "nobody knows which version it is")
		require.Empty(t, stdout)
		require.Contains(t, stderr, "could not find the newest Vault")

		version, stderr := c.version(url, "")
		require.Equal(t, "Vault v1.21.2 (built)\n", version)
		require.Contains(t, stderr, "the release site can't be reached")
	}
	version, _ := newCheckout(t, "v1.21.2").version(newSite(t, nil), "", "VAULT_DOWNLOAD=off")
	require.Equal(t, "Vault v1.21.2 (built)\n", version)
}

// A wrong file never leads to a build: somebody should look into it.
func TestWrongDownloads(t *testing.T) {
	site := newSite(t, nil)
	for want, test := range map[string]struct{ version, url, flags string }{
		"checksum does not match": {"v1.21.2", newSite(t, map[string]string{"vault.zip": "PK\x03\x04"}), ""},
		"error: downloading":      {"v1.21.2", newSite(t, map[string]string{"index.json": "<a page to log in>"}), ""},
		// Without -key, the site must be HashiCorp's.
		"unable to verify checksums signature":                        {"v1.21.2", site, "VAULT_DOWNLOAD_FLAGS=-url " + site},
		"error: the release site sent Vault 1.21.2 instead of 1.21.3": {"v1.21.3", site, ""},
	} {
		stdout, stderr, err := newCheckout(t, test.version).run(test.url, "", test.flags)
		require.Error(t, err, stdout)
		require.Empty(t, stdout)
		require.Contains(t, stderr, want)
		require.NotContains(t, stderr, "Building")
	}
}
