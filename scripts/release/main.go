// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Release builds what operators download into dist. For each system there is an archive
// with the plugin, and a list of the modules in it. One file has all checksums; it is what
// gets signed.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

const plugin = "vault-plugin-secrets-clanmeeting"

// versions matches Semantic Versioning with the v of a git tag. Build metadata is not
// allowed: Vault uses it for its built-in plugins.
var versions = regexp.MustCompile(`^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(-(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?$`)

func main() {
	version := flag.String("version", "", "the version, such as v1.2.3 or v1.2.3-rc.1")
	signer := flag.String("signer", "", "only the builds with this signer, go or openssl; by default all")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	builds, err := only(*signer)
	if err == nil {
		err = run(ctx, ".", *version, builds)
	}
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
	libraries, err := allLibraries(ctx, targets)
	if err != nil {
		return err
	}
	dirty, err := command(ctx, repo, nil, "git", "status", "--porcelain")
	if err != nil {
		return err
	}
	if dirty != "" {
		return fmt.Errorf("a release is made from a commit, but these changes are not committed:\n%s", dirty)
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
		if err := t.release(ctx, source, dist, version, libraries[t], &sums); err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
	}
	file := filepath.Join(dist, fmt.Sprintf("%s_%s_SHA256SUMS", plugin, version[1:]))
	return os.WriteFile(file, []byte(sums.String()), 0o644) //nolint:gosec // G306: to be published
}

// checkOut makes a clone whose only tag is the version. Go writes the nearest tag into the
// binary, so other tags would change it.
func checkOut(ctx context.Context, repo, source, version string) error {
	if _, err := command(ctx, repo, nil, "git", "clone", "--quiet", "--shared", "--no-tags", ".", source); err != nil {
		return err
	}
	_, err := command(ctx, source, nil, "git", "tag", "--no-sign", version)
	return err
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
