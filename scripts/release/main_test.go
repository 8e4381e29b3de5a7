// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var all = flag.Bool("all", false, "build for all systems, the second time with nothing compiled before")

const (
	testVersion = "v1.2.3-rc.1"
	commitDate  = "2026-01-02T03:04:05Z"
)

// repository makes a repository with one commit, which contains this working tree.
func repository(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	for _, folder := range []string{"backend", "cmd"} {
		require.NoError(t, os.CopyFS(filepath.Join(dir, folder), os.DirFS("../../"+folder)))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "scripts"), 0o700))
	for _, file := range []string{".gitignore", "CHANGELOG.md", "LICENSE", "README.md", "go.mod", "go.sum", "scripts/build.sh"} {
		require.NoError(t, copyFile("../../"+file, filepath.Join(dir, file)))
	}
	commitAll(t, dir)
	return dir
}

func commitAll(t *testing.T, dir string) {
	t.Helper()
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	t.Setenv("GIT_AUTHOR_DATE", commitDate)
	t.Setenv("GIT_COMMITTER_DATE", commitDate)
	git(t, dir, "init", "--quiet")
	git(t, dir, "add", "--all")
	git(t, dir, "-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "--quiet", "--message", "x")
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := command(t.Context(), dir, nil, "git", args...)
	require.NoError(t, err)
	return strings.TrimSpace(out)
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	return raw
}

// tree returns every file below the folder.
func tree(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	require.NoError(t, fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files[name] = read(t, filepath.Join(dir, name))
		}
		return err
	}))
	return files
}

// toBuild returns the targets of this machine, or all. OpenSSL needs packages that not every
// developer has. In CI they must be there.
func toBuild(t *testing.T) []target {
	t.Helper()
	if *all {
		return targets
	}
	built := []target{{runtime.GOOS, runtime.GOARCH, pureGo}}
	withOpenSSL := target{runtime.GOOS, runtime.GOARCH, openSSL}
	if !slices.Contains(targets, withOpenSSL) {
		return built
	}
	if _, err := withOpenSSL.libraries(t.Context()); err != nil && os.Getenv("CI") == "" {
		t.Logf("not built: %s: %v", withOpenSSL, err)
		return built
	}
	return append(built, withOpenSSL)
}

func TestRelease(t *testing.T) {
	built := toBuild(t)
	one, two := repository(t, "a"), repository(t, "another/folder")
	require.NoError(t, run(t.Context(), one, testVersion, built))

	// Settings of another machine, and a tag of another clone.
	t.Setenv("GOFLAGS", "-buildvcs=false")
	t.Setenv("GOAMD64", "v3")
	t.Setenv("GOEXPERIMENT", "arenas")
	t.Setenv("GOFIPS140", "v1.0.0")
	t.Setenv("CC", "clang")
	t.Setenv("CGO_CFLAGS", "-O0")
	t.Setenv("CGO_LDFLAGS", "-lz")
	git(t, two, "tag", "v1.9.9")
	if *all {
		t.Setenv("GOCACHE", t.TempDir())
	}
	require.NoError(t, run(t.Context(), two, testVersion, built))

	files, others := tree(t, filepath.Join(one, "dist")), tree(t, filepath.Join(two, "dist"))
	require.Len(t, files, len(built)*7+1)
	require.Len(t, others, len(files))
	for name, raw := range files {
		// require.Equal would print 25 MB.
		require.True(t, bytes.Equal(raw, others[name]), "%s differs", name)
		require.False(t, bytes.Contains(raw, []byte(one)), "%s has the folder in it", name)
	}

	var lines []string
	for _, b := range built {
		base := fmt.Sprintf("%s_1.2.3-rc.1_%s", plugin, b)
		binary := base + "/" + plugin
		if b.os == "windows" {
			binary += ".exe"
		}
		for _, name := range []string{base + ".zip", base + ".cdx.json", binary} {
			lines = append(lines, fmt.Sprintf("%x  %s\n", sha256.Sum256(files[name]), name))
		}
		libraries, err := b.libraries(t.Context())
		require.NoError(t, err)
		testArchive(t, files, base, filepath.Base(binary))
		sbom := testSBOM(t, filepath.Join(one, "dist", binary), files[base+".cdx.json"], libraries)
		testLicences(t, files[base+"/LICENSES-THIRD-PARTY.txt"], sbom)
		if b.os == "linux" {
			testStatic(t, files[binary])
		}
		require.Equal(t, b.signer == openSSL, bytes.Contains(files[binary], []byte("\x00EVP_PKEY_sign\x00")), "%s: libcrypto", b)
		if b.os == runtime.GOOS && b.arch == runtime.GOARCH {
			out, err := exec.Command(filepath.Join(one, "dist", binary), "-version").CombinedOutput()
			require.NoError(t, err)
			signs := "Go " + runtime.Version()[len("go"):]
			if b.signer == openSSL {
				upstream, _, _ := strings.Cut(libraries[0].version, "-")
				signs = "OpenSSL " + upstream + " .+"
			}
			require.Regexp(t, fmt.Sprintf(`^%s %s \(commit %s, %s, %s/%s, signs with %s\)\n$`, plugin, testVersion,
				git(t, one, "rev-parse", "HEAD"), runtime.Version(), b.os, b.arch, signs), string(out))
		}
	}
	require.Equal(t, strings.Join(lines, ""), string(files[plugin+"_1.2.3-rc.1_SHA256SUMS"]))
}

// testArchive checks that the archive has what the folder has, in order, with the
// commit's date, and that only the plugin may be run.
func testArchive(t *testing.T, files map[string][]byte, base, binary string) {
	t.Helper()
	raw := files[base+".zip"]
	archive, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
	require.NoError(t, err)
	var names []string
	for _, file := range archive.File {
		names = append(names, file.Name)
		require.Equal(t, commitDate, file.Modified.UTC().Format(time.RFC3339))
		require.Equal(t, file.Name == binary, file.Mode()&0o111 != 0, file.Name)
		reader, err := file.Open()
		require.NoError(t, err)
		content, err := io.ReadAll(reader)
		require.NoError(t, err)
		require.True(t, bytes.Equal(files[base+"/"+file.Name], content), file.Name)
	}
	require.Equal(t, []string{"CHANGELOG.md", "LICENSE", "LICENSES-THIRD-PARTY.txt", "README.md", binary}, names)
}

// testLicences checks that the licence of each module in the list is there.
func testLicences(t *testing.T, licences []byte, sbom bom) {
	t.Helper()
	for _, m := range sbom.Components {
		name := m.Name
		if name == "stdlib" {
			name = "Go and its standard library"
		}
		require.Regexp(t, `(?mi)^===== `+regexp.QuoteMeta(name)+`: licen[cs]e\S*(, \S+)? =====\n\n.+`, string(licences))
	}
	home, err := os.UserHomeDir()
	require.NoError(t, err)
	require.NotContains(t, string(licences), home)
}

// testSBOM checks the list against what the Go command reads from the binary.
func testSBOM(t *testing.T, binary string, raw []byte, libraries []library) bom {
	t.Helper()
	var sbom bom
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&sbom))
	listed := map[string]string{}
	for _, m := range sbom.Components {
		listed[m.Name] = m.Version
	}
	require.Len(t, sbom.Components, len(listed), "one twice")

	out, err := command(t.Context(), "", nil, "go", "version", "-m", binary)
	require.NoError(t, err)
	want := map[string]string{"stdlib": strings.TrimPrefix(runtime.Version(), "go")}
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); fields[0] == "dep" {
			want[fields[1]] = fields[2]
		}
	}
	require.Greater(t, len(want), 10)
	for _, l := range libraries {
		want[l.name] = l.version
	}
	require.Equal(t, want, listed)
	require.Equal(t, testVersion, sbom.Metadata.Component.Version)
	require.Equal(t, commitDate, sbom.Metadata.Timestamp.Format(time.RFC3339))
	require.Len(t, sbom.DependsOn[0].On, len(listed))
	return sbom
}

// testStatic checks that a Linux without any library can start it.
func testStatic(t *testing.T, raw []byte) {
	t.Helper()
	file, err := elf.NewFile(bytes.NewReader(raw))
	require.NoError(t, err)
	for _, part := range file.Progs {
		require.NotContains(t, []elf.ProgType{elf.PT_INTERP, elf.PT_DYNAMIC}, part.Type)
	}
}

func TestSBOM(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bom")
	require.NoError(t, writeSBOM(file, &debug.BuildInfo{
		GoVersion: "go1.26.8",
		Main:      debug.Module{Path: "example.com/plugin"},
		Deps: []*debug.Module{
			{Path: "example.com/A", Version: "v2.0.0+incompatible"},
			{Path: "example.com/b", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/c", Version: "v1.1.0"}},
		},
	}, []library{{name: "openssl", version: "3.0.1+b-1", purl: "pkg:deb/debian/libssl-dev@3.0.1%2Bb-1?arch=amd64"}}, testVersion, time.Time{}))
	var sbom bom
	require.NoError(t, json.Unmarshal(read(t, file), &sbom))
	require.Equal(t, []module{
		{"library", "pkg:golang/stdlib@1.26.8", "stdlib", "1.26.8", "pkg:golang/stdlib@1.26.8"},
		{"library", "pkg:golang/example.com/a@v2.0.0%2Bincompatible", "example.com/A", "v2.0.0+incompatible", "pkg:golang/example.com/a@v2.0.0%2Bincompatible"},
		{"library", "pkg:golang/example.com/c@v1.1.0", "example.com/c", "v1.1.0", "pkg:golang/example.com/c@v1.1.0"},
		{"library", "pkg:deb/debian/libssl-dev@3.0.1%2Bb-1?arch=amd64", "openssl", "3.0.1+b-1", "pkg:deb/debian/libssl-dev@3.0.1%2Bb-1?arch=amd64"},
	}, sbom.Components)
}

func TestRefused(t *testing.T) {
	repo := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(repo, "file"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(repo, ".gitignore"), []byte("/dist/\n"), 0o600))
	commitAll(t, repo)
	for _, version := range []string{
		"", "1.2.3", "v1", "v1.2", "v1.2.3.4", "v01.2.3", "v1.2.3-", "v1.2.3-01", "v1.2.3-a..b", "v1.2.3+meta", "V1.2.3", "v1.2.3 ", "v1.2.3\n", "v1.2.x", "v1.2.3-ä", "v1.2.3/..",
	} {
		require.ErrorContains(t, run(t.Context(), repo, version, nil), "is no version", version)
	}
	for _, version := range []string{"v0.0.0", "v1.2.3-0", "v1.2.3-rc.1", "v1.2.3-0a.x-y.10"} {
		// With no targets it takes no time.
		require.NoError(t, run(t.Context(), repo, version, nil), version)
	}

	require.NoError(t, os.WriteFile(filepath.Join(repo, "file"), []byte("x"), 0o600))
	require.ErrorContains(t, run(t.Context(), repo, testVersion, nil), "these changes are not committed:\n M file")
	git(t, repo, "checkout", "--quiet", "file")
	require.NoError(t, os.WriteFile(filepath.Join(repo, "new"), nil, 0o600))
	require.ErrorContains(t, run(t.Context(), repo, testVersion, nil), "?? new")
}

func TestOnly(t *testing.T) {
	builds, err := only("")
	require.NoError(t, err)
	require.Equal(t, targets, builds)
	for _, signer := range []string{pureGo, openSSL} {
		builds, err := only(signer)
		require.NoError(t, err)
		require.NotEmpty(t, builds)
		for _, b := range targets {
			require.Equal(t, b.signer == signer, slices.Contains(builds, b), b)
		}
	}
	_, err = only("boring")
	require.ErrorContains(t, err, `"boring" is no signer: SIGNER=go, SIGNER=openssl`)
}

// If the compiler is missing, or does not find the library, one line says what to install,
// before anything is built.
func TestMissingPackages(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	if other == "" {
		t.Skip("no OpenSSL builds are made on this architecture")
	}
	missing := func(arch, packages string) {
		t.Helper()
		b := target{"linux", arch, openSSL}
		err := run(t.Context(), t.TempDir(), testVersion, []target{{"linux", arch, pureGo}, b})
		require.EqualError(t, err, b.String()+": libcrypto is missing: "+packages)
	}
	here := "apt-get install gcc libc6-dev libssl-dev zlib1g-dev libzstd-dev"
	there := fmt.Sprintf("dpkg --add-architecture %[1]s && apt-get update && apt-get install gcc-%[2]s-linux-gnu libc6-dev-%[1]s-cross libssl-dev:%[1]s zlib1g-dev:%[1]s libzstd-dev:%[1]s",
		other, map[string]string{"amd64": "x86-64", "arm64": "aarch64"}[other])
	missing(runtime.GOARCH, here)
	missing(other, there)
	for _, triple := range triples {
		require.NoError(t, os.WriteFile(filepath.Join(bin, triple+"-gcc"), []byte("#!/bin/sh\necho libcrypto.a\n"), 0o700)) //nolint:gosec // G306: to be run
	}
	missing(runtime.GOARCH, here)
	missing(other, there)
}
