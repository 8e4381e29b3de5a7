// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const keyVariable = "RELEASE_SIGNING_KEY"

// newKey returns a private key as it is in a variable, and its line in allowed_signers.
func newKey(t *testing.T) (private, signer string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	_, err := command(t.Context(), "", nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file)
	require.NoError(t, err)
	return strings.TrimSpace(string(read(t, file))), "release " + string(read(t, file+".pub"))
}

// Either there is a signature that operators accept, or there is none.
func TestSign(t *testing.T) {
	dir := t.TempDir()
	script, signers, sums := filepath.Join(dir, "scripts", "sign.sh"), filepath.Join(dir, ".github", "allowed_signers"), filepath.Join(dir, "x_SHA256SUMS")
	for _, file := range []string{script, signers} {
		require.NoError(t, os.Mkdir(filepath.Dir(file), 0o700))
	}
	require.NoError(t, copyFile("../sign.sh", script))
	require.NoError(t, os.WriteFile(sums, []byte("sums"), 0o600))
	t.Setenv("TMPDIR", t.TempDir())
	sign := func(key string) error {
		_, err := command(t.Context(), "", []string{keyVariable + "=" + key}, "sh", script, sums)
		left, globErr := filepath.Glob(os.Getenv("TMPDIR") + "/*")
		require.NoError(t, globErr)
		require.Empty(t, left, "a file with the key")
		return err
	}
	key, signer := newKey(t)
	stranger, _ := newKey(t)
	require.ErrorContains(t, sign(key), "allowed_signers is missing")
	require.NoError(t, os.WriteFile(signers, []byte(signer), 0o600))
	require.ErrorContains(t, sign(""), "RELEASE_SIGNING_KEY is empty")
	require.ErrorContains(t, sign("no key"), "exit status")
	require.NoError(t, sign(key))

	verify := func(signed string) string {
		cmd := exec.Command("ssh-keygen", "-Y", "verify", "-f", signers, "-I", "release", "-n", "file", "-s", sums+".sig")
		cmd.Stdin = strings.NewReader(signed)
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	require.Contains(t, verify("sums"), `Good "file" signature for release`)
	require.Contains(t, verify("sums "), "incorrect signature")

	require.ErrorContains(t, sign(stranger), "is not the key of .github/allowed_signers")
	require.NoFileExists(t, sums+".sig")
}

// The build can't read the key, and only a commit with the version's tag is signed.
func TestKeyIsNotForTheBuild(t *testing.T) {
	repo := repository(t, "a")
	require.NoError(t, os.RemoveAll(filepath.Join(repo, "scripts")))
	require.NoError(t, os.CopyFS(filepath.Join(repo, "scripts"), os.DirFS("..")))
	require.NoError(t, copyFile("../../Makefile", filepath.Join(repo, "Makefile")))
	seen := filepath.Join(t.TempDir(), "seen")
	tool := filepath.Join(t.TempDir(), "tool")
	require.NoError(t, os.WriteFile(tool, []byte("#!/bin/sh\nenv >>"+seen+"\nexec \"$@\"\n"), 0o700)) //nolint:gosec // G306: to be run
	env := []string{keyVariable + "=secret", "GOFLAGS=-toolexec=" + tool}

	_, err := command(t.Context(), repo, env, "scripts/release.sh", "none")
	require.ErrorContains(t, err, "this commit does not have the tag none")
	git(t, repo, "tag", "none")
	_, err = command(t.Context(), repo, env, "scripts/release.sh", "none", "openssl")
	require.ErrorContains(t, err, "a signed release has all builds")
	_, err = command(t.Context(), repo, env, "scripts/release.sh", "none")
	require.ErrorContains(t, err, `"none" is no version`)
	environment := string(read(t, seen))
	require.Contains(t, environment, "PATH=")
	require.False(t, strings.Contains(environment, keyVariable)) // NotContains would print everything
}
