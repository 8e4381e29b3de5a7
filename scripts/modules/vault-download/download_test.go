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

// release is a release site on loopback, laid out like HashiCorp's, with one version. Its
// Vault is a shell script.
type release struct {
	*httptest.Server

	key     string            // armored
	files   map[string][]byte // by URL path
	answers map[string]http.HandlerFunc

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
	r := &release{files: map[string][]byte{}, answers: map[string]http.HandlerFunc{}, asked: map[string]int{}}
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
	if answer := r.answers[req.URL.Path]; answer != nil {
		answer(w, req)
		return
	}
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

// download runs the program, and returns both outputs.
func download(t *testing.T, url, key, dir string) (status int, stdout, stderr string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key.asc")
	require.NoError(t, os.WriteFile(file, []byte(key), 0o600))
	var out, said bytes.Buffer
	status = run(t.Context(), []string{"-version", "v1.21.2", "-dir", dir, "-url", url, "-key", file}, &out, &said)
	return status, out.String(), said.String()
}

// If the site sent something wrong, it must be reported, and nothing is built instead.
func TestWrongDownloads(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*testing.T, *release)
		want  string
	}{
		"checksum": {func(t *testing.T, r *release) {
			r.files[archive] = zipped(t, "#!/bin/sh\necho 'Vault v1.21.2 (another)'\n")
		}, "  checksum does not match for \"" + archiveName()},
		"signature of another key": {func(t *testing.T, r *release) {
			r.files[sumsSig] = signature(t, newSigner(t), r.files[sums])
		}, "unable to verify checksums signature"},
		"another version": {func(t *testing.T, r *release) {
			other := releaseOf(t, "Vault v1.2.3 (loopback)")
			r.files, r.key = other.files, other.key
		}, "error: the release site sent Vault 1.2.3 instead of 1.21.2"},
		"no Vault": {func(t *testing.T, r *release) {
			other := releaseOf(t, "teapot")
			r.files, r.key = other.files, other.key
		}, "error: the downloaded Vault does not run"},
		"interrupted": {func(_ *testing.T, r *release) {
			r.answers[archive] = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/zip")
				w.Header().Set("Content-Length", fmt.Sprint(len(r.files[archive])))
				_, _ = w.Write(r.files[archive][:100]) // the server closes the connection
			}
		}, "unexpected EOF"},
		"a page to log in": {func(_ *testing.T, r *release) {
			r.answers[folder+"index.json"] = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }
		}, "unexpected Content-Type"},
	} {
		t.Run(name, func(t *testing.T) {
			r, dir := newRelease(t), t.TempDir()
			test.spoil(t, r)
			status, stdout, stderr := download(t, r.URL, r.key, dir)
			require.Equal(t, statusFailed, status, stderr)
			require.Empty(t, stdout)
			require.Contains(t, stderr, test.want)
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, entries, "what was not verified must not stay")
		})
	}
}

// By default, HashiCorp's key is used.
func TestDefaultKey(t *testing.T) {
	r := newRelease(t)
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), []string{"-version", "v1.21.2", "-dir", t.TempDir(), "-url", r.URL}, &stdout, &stderr)
	require.Equal(t, statusFailed, status, &stderr)
	require.Contains(t, stderr.String(), "unable to verify checksums signature")
	require.Zero(t, r.requests(archive))
}

func TestUnreachable(t *testing.T) {
	nobody := httptest.NewServer(http.NotFoundHandler())
	nobody.Close()
	tls := httptest.NewTLSServer(http.NotFoundHandler()) // with a self-signed certificate
	t.Cleanup(tls.Close)
	refusing := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(refusing.Close)
	for url, want := range map[string]string{nobody.URL: "connection refused", tls.URL: "certificate", refusing.URL: "answers 404 Not Found"} {
		status, stdout, stderr := download(t, url, "", t.TempDir())
		require.Equal(t, statusUnreachable, status, stderr)
		require.Empty(t, stdout)
		require.Contains(t, stderr, want)
		require.Equal(t, 1, strings.Count(stderr, "\n"), "one line: %s", stderr)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"-version", "v1.21.2"}, {"-dir", "x"}, {"-newest", "-dir", "x"}, {"-nothing"}, {"-version", "v1.21.2", "-dir", "x", "-key", "missing.asc"},
	} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, statusUsage, run(t.Context(), args, &stdout, &stderr), args)
		require.Empty(t, stdout.String())
		require.NotEmpty(t, stderr.String())
	}
}
