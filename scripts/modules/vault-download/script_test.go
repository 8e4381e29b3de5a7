// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
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

func TestDownloads(t *testing.T) {
	r := newRelease(t)
	c := newCheckout(t, r.key)
	for _, vault := range []string{"", "newest", "released"} {
		stdout, stderr, err := c.run(r.URL, vault)
		require.NoError(t, err, stderr)
		require.Equal(t, "Vault v1.21.2 (loopback)\n", c.says(stdout))
	}
	require.Equal(t, 1, r.requests(archive), "the cache comes before the download")
}

func TestPrefersWhatIsThere(t *testing.T) {
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
	require.Zero(t, r.requests(""))

	stdout, stderr, err = c.run(r.URL, "newest", "VAULT_BIN="+own)
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
		require.Equal(t, 1, strings.Count(stderr, "the release site can't be reached"), stderr)
	}
	r := newRelease(t)
	c := newCheckout(t, r.key)
	stdout, stderr, err := c.run(r.URL, "", "VAULT_DOWNLOAD=off")
	require.NoError(t, err, stderr)
	require.Equal(t, "Vault v1.21.2 (built)\n", c.says(stdout))
	require.Zero(t, r.requests(""), "the build was asked for")
}

// A wrong file never leads to a build: somebody should look into it.
func TestWrongDownloads(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*testing.T, *release)
		want  string
	}{
		"checksum": {func(_ *testing.T, r *release) {
			r.files[archive] = append(r.files[archive], 0)
		}, "checksum does not match"},
		"signature of another key": {func(t *testing.T, r *release) {
			r.files[sumsSig] = signature(t, newSigner(t), r.files[sums])
		}, "unable to verify checksums signature"},
		"another version": {func(t *testing.T, r *release) {
			other := releaseOf(t, "Vault v1.2.3 (loopback)")
			r.files, r.key = other.files, other.key
		}, "error: the release site sent Vault 1.2.3 instead of 1.21.2"},
		"interrupted": {func(_ *testing.T, r *release) {
			r.cut = 100
		}, "unexpected EOF"},
		"a page to log in": {func(_ *testing.T, r *release) {
			r.files[folder+"index.json"] = []byte("<html>")
		}, "error: "},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelease(t)
			test.spoil(t, r)
			stdout, stderr, err := newCheckout(t, r.key).run(r.URL, "")
			require.Error(t, err, stdout)
			require.Empty(t, stdout)
			require.Contains(t, stderr, test.want)
			require.NotContains(t, stderr, "Building")
		})
	}
}

// release is a release site on loopback, laid out like HashiCorp's, with one version. Its
// Vault is a shell script.
type release struct {
	*httptest.Server

	key   string            // armored
	files map[string][]byte // by URL path
	cut   int               // after so many bytes of the archive the connection ends; 0 is never

	mu    sync.Mutex
	asked map[string]int // by URL path; empty is all of them
}

const (
	folder  = "/vault/1.21.2/"
	sums    = folder + "vault_1.21.2_SHA256SUMS"
	sumsSig = sums + ".sig"
)

var archive = folder + archiveName()

func archiveName() string { return "vault_1.21.2_" + runtime.GOOS + "_" + runtime.GOARCH + ".zip" }

func newRelease(t *testing.T) *release {
	t.Helper()
	return releaseOf(t, "Vault v1.21.2 (loopback)")
}

// releaseOf returns a release whose Vault prints that text as its version.
func releaseOf(t *testing.T, said string) *release {
	t.Helper()
	r := &release{files: map[string][]byte{}, asked: map[string]int{}}
	index := map[string]any{
		"name": "vault", "version": "1.21.2",
		"shasums": filepath.Base(sums), "shasums_signature": filepath.Base(sumsSig), "shasums_signatures": []string{filepath.Base(sumsSig)},
		"builds": []map[string]any{{
			"name": "vault", "version": "1.21.2", "os": runtime.GOOS, "arch": runtime.GOARCH,
			"filename": archiveName(), "url": "https://releases.hashicorp.com" + archive,
		}},
	}
	r.files[folder+"index.json"] = toJSON(t, index)
	versions := map[string]any{}
	for _, v := range []string{"1.9.10", "1.21.2", "1.21.2+ent", "1.22.0-rc1", "1.21.10+ent.hsm"} {
		versions[v] = map[string]any{"name": "vault", "version": v}
	}
	r.files["/vault/index.json"] = toJSON(t, map[string]any{"name": "vault", "versions": versions})
	r.files[archive] = zipped(t, "#!/bin/sh\necho '"+said+"'\n")
	r.files[sums] = fmt.Appendf(nil, "%x  %s\n%064d  vault_1.21.2_plan9_mips.zip\n", sha256.Sum256(r.files[archive]), archiveName(), 0)

	signer := newSigner(t)
	r.key = publicKey(t, signer)
	r.files[sumsSig] = signature(t, signer, r.files[sums])
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *release) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.asked[req.URL.Path]++
	r.asked[""]++
	r.mu.Unlock()
	content, found := r.files[req.URL.Path]
	if !found {
		http.NotFound(w, req)
		return
	}
	switch filepath.Ext(req.URL.Path) {
	case ".json":
		w.Header().Set("Content-Type", "application/json")
	case ".zip":
		w.Header().Set("Content-Type", "application/zip")
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(content)))
	if req.URL.Path == archive && r.cut > 0 {
		content = content[:r.cut]
	}
	_, _ = w.Write(content) // fails if the client is gone
}

// requests returns how often that path was requested; empty means any path.
func (r *release) requests(path string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[path]
}

func toJSON(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	require.NoError(t, err)
	return raw
}

// zipped returns an archive like HashiCorp's, without compression.
func zipped(t *testing.T, vault string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for name, content := range map[string]string{"vault": vault, "LICENSE.txt": "a licence"} {
		f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		require.NoError(t, err)
		_, err = f.Write([]byte(content))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return buf.Bytes()
}

func newSigner(t *testing.T) *openpgp.Entity {
	t.Helper()
	signer, err := openpgp.NewEntity("loopback", "", "", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	require.NoError(t, err)
	return signer
}

func publicKey(t *testing.T, signer *openpgp.Entity) string {
	t.Helper()
	var buf bytes.Buffer
	w, err := armor.Encode(&buf, openpgp.PublicKeyType, nil)
	require.NoError(t, err)
	require.NoError(t, signer.Serialize(w))
	require.NoError(t, w.Close())
	return buf.String()
}

func signature(t *testing.T, signer *openpgp.Entity, content []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	require.NoError(t, openpgp.DetachSign(&buf, signer, bytes.NewReader(content), nil))
	return buf.Bytes()
}
