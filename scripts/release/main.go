// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Release builds what operators download, into dist: for each system an archive with
// the plugin and a list of what is in it, and the sums of all of them, to be signed.
package main

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const plugin = "vault-plugin-secrets-clanmeeting"

type target struct{ os, arch string }

var targets = []target{
	{"linux", "amd64"},
	{"linux", "arm64"},
	{"darwin", "amd64"},
	{"darwin", "arm64"},
	{"windows", "amd64"},
	{"windows", "arm64"},
}

// versions is Semantic Versioning with the v of a git tag. Build metadata is left out:
// Vault has that for its built-in plugins.
var versions = regexp.MustCompile(`^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(-(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?$`)

func main() {
	version := flag.String("version", "", "the version, such as v1.2.3 or v1.2.3-rc.1")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, ".", *version, targets)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// run fills repo/dist from the commit that is checked out in repo.
func run(ctx context.Context, repo, version string, targets []target) error {
	if !versions.MatchString(version) {
		return fmt.Errorf("%q is no version: make release VERSION=v1.2.3, or v1.2.3-rc.1", version)
	}
	dirty, err := command(ctx, repo, nil, "git", "status", "--porcelain")
	if err != nil {
		return err
	}
	if dirty != "" {
		return fmt.Errorf("a release is made from a commit, and here are changes that are in none:\n%s", dirty)
	}
	dist, err := filepath.Abs(filepath.Join(repo, "dist"))
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dist); err != nil {
		return err
	}
	if err := os.Mkdir(dist, 0o750); err != nil {
		return err
	}
	source, err := os.MkdirTemp("", "clanmeeting-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(source)
	if err := checkOut(ctx, repo, source, version); err != nil {
		return err
	}
	var sums strings.Builder
	for _, t := range targets {
		if err := t.release(ctx, source, dist, version, &sums); err != nil {
			return fmt.Errorf("%s/%s: %w", t.os, t.arch, err)
		}
	}
	file := filepath.Join(dist, fmt.Sprintf("%s_%s_SHA256SUMS", plugin, version[1:]))
	return os.WriteFile(file, []byte(sums.String()), 0o644) //nolint:gosec // G306: to be published
}

// checkOut makes a clone that has the commit, and the version as its only tag. Go
// writes the nearest tag into the binary, and which others a clone has would be seen.
func checkOut(ctx context.Context, repo, source, version string) error {
	if _, err := command(ctx, repo, nil, "git", "clone", "--quiet", "--shared", "--no-tags", ".", source); err != nil {
		return err
	}
	_, err := command(ctx, source, nil, "git", "tag", "--no-sign", version)
	return err
}

// release makes what is for one system, and notes the sums: also of the plugin, which
// is what Vault's catalog asks for.
func (t target) release(ctx context.Context, source, dist, version string, sums *strings.Builder) error {
	base := fmt.Sprintf("%s_%s_%s_%s", plugin, version[1:], t.os, t.arch)
	binary := filepath.Join(base, plugin)
	if t.os == "windows" {
		binary += ".exe"
	}
	if err := t.build(ctx, source, filepath.Join(dist, binary), version); err != nil {
		return err
	}
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
		if err := copyFile(filepath.Join(source, name), filepath.Join(dist, base, name)); err != nil {
			return err
		}
	}
	info, err := buildinfo.ReadFile(filepath.Join(dist, binary))
	if err != nil {
		return err
	}
	if err := writeLicences(ctx, filepath.Join(dist, base, "LICENSES-THIRD-PARTY.txt"), source, info); err != nil {
		return err
	}
	commit, err := committed(info)
	if err != nil {
		return err
	}
	if err := pack(filepath.Join(dist, base), commit); err != nil {
		return err
	}
	if err := writeSBOM(filepath.Join(dist, base+".cdx.json"), info, version, commit); err != nil {
		return err
	}
	for _, name := range []string{base + ".zip", base + ".cdx.json", binary} {
		raw, err := os.ReadFile(filepath.Join(dist, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(sums, "%x  %s\n", sha256.Sum256(raw), filepath.ToSlash(name))
	}
	return nil
}

// build leaves out the debugger's tables (-w), not the table of symbols (-s): govulncheck
// tells from that which functions are in the binary. What else could change the
// result is set, whatever the environment says.
func (t target) build(ctx context.Context, source, binary, version string) error {
	env := []string{
		"GOOS=" + t.os, "GOARCH=" + t.arch, "GOAMD64=v1", "GOARM64=v8.0",
		"CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off", "GOEXPERIMENT=", "GOFIPS140=off",
	}
	_, err := command(ctx, source, env, "go", "build", "-trimpath", "-buildvcs=true",
		"-ldflags", "-w -X main.version="+version, "-o", binary, "./cmd/"+plugin)
	return err
}

func copyFile(from, to string) error {
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, raw, 0o644) //nolint:gosec // G306: to be published
}

// committed is when the commit was made: the one time that is the same in every build.
func committed(info *buildinfo.BuildInfo) (time.Time, error) {
	for _, setting := range info.Settings {
		if setting.Key == "vcs.time" {
			return time.Parse(time.RFC3339, setting.Value)
		}
	}
	return time.Time{}, errors.New("the binary does not say which commit it is of")
}

// pack makes the folder's archive: sorted, with one date and two modes.
func pack(folder string, date time.Time) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	writer := zip.NewWriter(&archive)
	for _, entry := range entries {
		header := &zip.FileHeader{Name: entry.Name(), Method: zip.Deflate, Modified: date.UTC()}
		header.SetMode(0o644)
		if strings.TrimSuffix(entry.Name(), ".exe") == plugin {
			header.SetMode(0o755)
		}
		file, err := writer.CreateHeader(header)
		if err != nil {
			return err
		}
		raw, err := os.ReadFile(filepath.Join(folder, entry.Name()))
		if err != nil {
			return err
		}
		if _, err := file.Write(raw); err != nil {
			return err
		}
	}
	if err := writer.Close(); err != nil {
		return err
	}
	return os.WriteFile(folder+".zip", archive.Bytes(), 0o644) //nolint:gosec // G306: to be published
}

// command runs a command and returns what it printed.
func command(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env, cmd.Stderr = dir, append(os.Environ(), env...), &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", name, args[0], err, out, &stderr)
	}
	return string(out), nil
}
