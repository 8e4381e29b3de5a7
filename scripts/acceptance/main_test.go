// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

// Package acceptance tests the built plugin in a real server: what only a server shows.
// The values that a field takes, and how a request is decided, are tested in backend.
package acceptance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// The versions that the tests build.
const (
	testVersion = "v0.1.0"
	nextVersion = "v0.2.0"
)

// vault is the server that most tests share. Each test has its own mounts. The server logs
// at trace level.
var vault *devvault.Server

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "clanmeeting-acceptance-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	builds.dir = dir
	if err := startVault(dir); err != nil {
		return fail(err)
	}
	status := m.Run()
	vault.Stop()
	if status != 0 {
		printErrors(vault.Log())
	}
	if i := strings.Index(vault.Log(), "DATA RACE"); i >= 0 {
		return fail(fmt.Errorf("the plugin has a race: %.4000s", vault.Log()[i:]))
	}
	return status
}

// printErrors prints what may explain a failed test: answers don't say why Vault failed.
func printErrors(log string) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "[ERROR]") {
			fmt.Fprint(os.Stderr, "shared server: ", line)
		}
	}
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "error:", err)
	return 1
}

func startVault(dir string) error {
	bin := os.Getenv("VAULT_BIN")
	if bin == "" {
		return errors.New("the acceptance tests need a Vault: run make test, or set VAULT_BIN")
	}
	if err := buildPlugin(filepath.Join(dir, "plugins", devvault.PluginName), testVersion); err != nil {
		return err
	}
	var err error
	vault, err = devvault.Start(context.Background(), devvault.Options{
		VaultBin: bin, PluginDir: filepath.Join(dir, "plugins"), LogLevel: "trace",
	})
	if err != nil {
		return err
	}
	// Vault ends the plugin's process with its last mount. Then a test that mounts the engine
	// at that moment would fail. So one mount stays. While an audit device is disabled, the
	// last one, Vault fails requests of others. So one stays, too.
	resident := map[string]map[string]any{"sys/mounts/resident": {"type": devvault.PluginName}}
	if vault.Kind == devvault.Vault { // OpenBao has its devices in its configuration
		resident["sys/audit/resident"] = map[string]any{"type": "file", "options": map[string]any{"file_path": "discard"}}
	}
	for path, data := range resident {
		status, answer, err := vault.Call(context.Background(), vault.RootToken, http.MethodPost, path, data)
		if err == nil && status != http.StatusNoContent {
			err = fmt.Errorf("%s: %d %v", path, status, answer)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// builds has the files of the plugin, each of which is built once.
var builds struct {
	mu  sync.Mutex
	dir string
}

// buildPlugin builds with the race detector, to find races that only real traffic causes.
// Its report appears in the server's log.
func buildPlugin(file, version string) error {
	return build(file, "race-"+version, func(out string) *exec.Cmd {
		cmd := exec.Command("go", "build", "-race", "-ldflags", "-X main.version="+version, "-o", out, "./cmd/"+devvault.PluginName)
		cmd.Dir = "../.."
		return cmd
	})
}

// buildRelease builds the plugin as for a release, without the race detector, which takes
// several times the memory.
func buildRelease(t testing.TB, file string) {
	t.Helper()
	require.NoError(t, build(file, "release", func(out string) *exec.Cmd {
		cmd := exec.Command("../build.sh", out)
		cmd.Env = append(os.Environ(), "VERSION="+testVersion)
		return cmd
	}))
}

func build(file, name string, command func(out string) *exec.Cmd) error {
	builds.mu.Lock()
	defer builds.mu.Unlock()
	built := filepath.Join(builds.dir, "builds", name)
	if _, err := os.Stat(built); err != nil {
		out, err := command(built).CombinedOutput()
		if err != nil {
			return fmt.Errorf("building the plugin: %w\n%s", err, out)
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("the plugin's folder: %w", err)
	}
	if err := os.Link(built, file); err != nil {
		return fmt.Errorf("the plugin's file: %w", err)
	}
	return nil
}

// onlyOn skips a test of something that only one server has. The test's name must contain
// that server. On the other server, go test -v and the list at the end of make test report
// the test as not run.
func onlyOn(t *testing.T, kind devvault.Kind) {
	t.Helper()
	require.Contains(t, strings.ToLower(strings.ReplaceAll(t.Name(), "_", "")), strings.ToLower(string(kind))+"only", "the name says which server it needs")
	if vault.Kind == kind {
		return
	}
	text := fmt.Sprintf("not run on %s: %s", vault.Kind, t.Name())
	if file := os.Getenv("NOT_RUN"); file != "" {
		list, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0o600)
		require.NoError(t, err)
		_, err = fmt.Fprintln(list, text)
		require.NoError(t, errors.Join(err, list.Close()))
	}
	t.Skip(text)
}
