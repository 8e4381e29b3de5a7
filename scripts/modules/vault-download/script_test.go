// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
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
	for _, leftover := range []string{"vault-download*", "*/download-*", "*/vault.*"} {
		found, err := filepath.Glob(filepath.Join(c.dir, ".cache", leftover))
		require.NoError(c.t, err)
		require.Empty(c.t, found)
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

func TestDownloads(t *testing.T) {
	r := newRelease(t, "Vault v1.21.2 (loopback)")
	c := newCheckout(t, r.key)
	for _, vault := range []string{"", "newest", "released"} {
		stdout, stderr, err := c.run(r.url(t), vault)
		require.NoError(t, err, stderr)
		require.Equal(t, "Vault v1.21.2 (loopback)\n", c.says(stdout))
		require.Equal(t, vault != "", strings.Contains(stderr, "Vault from the cache"), stderr)
	}
}

func TestPrefersWhatIsThere(t *testing.T) {
	r := newRelease(t, "Vault v1.21.2 (loopback)")
	c := newCheckout(t, r.key)
	own := c.write("own/vault", "#!/bin/sh\necho 'Vault v1.20.0 (own)'\n")
	onPath := c.write("bin/vault", "#!/bin/sh\necho 'Vault v1.20.0 (on the PATH)'\n")

	stdout, stderr, err := c.run(r.url(t), "", "VAULT_BIN="+own)
	require.NoError(t, err, stderr)
	require.Equal(t, own+"\n", stdout)
	stdout, stderr, err = c.run(r.url(t), "")
	require.NoError(t, err, stderr)
	require.Equal(t, onPath+"\n", stdout)
	stdout, stderr, err = c.run(r.url(t), "newest", "VAULT_BIN="+own)
	require.NoError(t, err, stderr)
	require.Equal(t, "Vault v1.21.2 (loopback)\n", c.says(stdout))
}

func TestBuilds(t *testing.T) {
	refusing := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(refusing.Close)
	nobody := httptest.NewServer(http.NotFoundHandler())
	nobody.Close()
	for _, url := range []string{refusing.URL, nobody.URL} {
		c := newCheckout(t, "")
		stdout, stderr, err := c.run(url, "released")
		require.Error(t, err, "nobody knows which version it is")
		require.Empty(t, stdout)
		require.Contains(t, stderr, "the release site can't be reached")

		stdout, stderr, err = c.run(url, "")
		require.NoError(t, err, stderr)
		require.Equal(t, "Vault v1.21.2 (built)\n", c.says(stdout))
		require.Contains(t, stderr, "the release site can't be reached")
	}
	r := newRelease(t, "Vault v1.21.2 (loopback)")
	c := newCheckout(t, r.key)
	stdout, stderr, err := c.run(r.url(t), "", "VAULT_DOWNLOAD=off")
	require.NoError(t, err, stderr)
	require.Equal(t, "Vault v1.21.2 (built)\n", c.says(stdout))
}

// A wrong file never leads to a build: somebody should look into it.
func TestWrongDownloads(t *testing.T) {
	other := newRelease(t, "Vault v1.2.3 (loopback)")
	for want, spoil := range map[string]func(*release){
		"checksum does not match": func(r *release) {
			r.files[archive] = append(r.files[archive], 0)
		},
		"unable to verify checksums signature": func(r *release) {
			r.files[sumsSig] = other.files[sumsSig] // of another key
		},
		"error: the release site sent Vault 1.2.3 instead of 1.21.2": func(r *release) {
			*r = other
		},
		"error: downloading": func(r *release) {
			r.files[folder+"index.json"] = []byte("<html>") // a page to log in
		},
	} {
		r := newRelease(t, "Vault v1.21.2 (loopback)")
		spoil(&r)
		stdout, stderr, err := newCheckout(t, r.key).run(r.url(t), "")
		require.Error(t, err, stdout)
		require.Empty(t, stdout)
		require.Contains(t, stderr, want)
		require.NotContains(t, stderr, "Building")
	}
}

// release is what a release site like HashiCorp's has of one version. Its Vault is a shell
// script.
type release struct {
	key   string            // armored
	files map[string][]byte // by URL path
}

const (
	folder  = "/vault/1.21.2/"
	sums    = folder + "vault_1.21.2_SHA256SUMS"
	sumsSig = sums + ".sig"
	zipName = "vault_1.21.2_" + runtime.GOOS + "_" + runtime.GOARCH + ".zip"
	archive = folder + zipName
)

// newRelease returns a release whose Vault prints that text as its version.
func newRelease(t *testing.T, said string) release {
	t.Helper()
	signer, err := openpgp.NewEntity("loopback", "", "", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	require.NoError(t, err)
	var key, zipped, signature bytes.Buffer
	armored, err := armor.Encode(&key, openpgp.PublicKeyType, nil)
	require.NoError(t, err)
	require.NoError(t, signer.Serialize(armored))
	require.NoError(t, armored.Close())

	w := zip.NewWriter(&zipped)
	f, err := w.Create("vault")
	require.NoError(t, err)
	_, err = f.Write([]byte("#!/bin/sh\necho '" + said + "'\n"))
	require.NoError(t, err)
	require.NoError(t, w.Close())

	list := fmt.Sprintf("%x  %s\n", sha256.Sum256(zipped.Bytes()), zipName)
	require.NoError(t, openpgp.DetachSign(&signature, signer, strings.NewReader(list), nil))
	return release{key.String(), map[string][]byte{
		"/vault/index.json": []byte(`{"name": "vault", "versions": {"1.9.10": {"version": "1.9.10"}, "1.21.2": {"version": "1.21.2"},
			"1.21.2+ent": {"version": "1.21.2+ent"}, "1.22.0-rc1": {"version": "1.22.0-rc1"}, "1.21.10+ent.hsm": {"version": "1.21.10+ent.hsm"}}}`),
		folder + "index.json": fmt.Appendf(nil, `{"name": "vault", "version": "1.21.2",
			"shasums": %q, "shasums_signature": %q, "shasums_signatures": [%[2]q],
			"builds": [{"name": "vault", "version": "1.21.2", "os": %q, "arch": %q, "filename": %q, "url": "https://releases.hashicorp.com%s"}]}`,
			filepath.Base(sums), filepath.Base(sumsSig), runtime.GOOS, runtime.GOARCH, zipName, archive),
		archive: zipped.Bytes(),
		sums:    []byte(list),
		sumsSig: signature.Bytes(),
	}}
}

// url runs the site on loopback.
func (r release) url(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		content, found := r.files[req.URL.Path]
		if !found {
			http.NotFound(w, req)
			return
		}
		if filepath.Ext(req.URL.Path) == ".json" {
			w.Header().Set("Content-Type", "application/json")
		}
		_, _ = w.Write(content) // fails if the client is gone
	}))
	t.Cleanup(server.Close)
	return server.URL
}
