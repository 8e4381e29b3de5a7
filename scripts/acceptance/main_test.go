// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

// Package acceptance tests the built plugin in a real server: what only a server shows.
// The values that a field takes, and how a request is decided, are tested in backend.
package acceptance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	status, err := testMain(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		status = 1
	}
	os.Exit(status)
}

func testMain(m *testing.M) (int, error) {
	bin := os.Getenv("VAULT_BIN")
	if bin == "" {
		return 0, errors.New("the acceptance tests need a Vault: run make test, or set VAULT_BIN")
	}
	dir, err := os.MkdirTemp("", "clanmeeting-acceptance-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	builds.dir = dir
	plugins := filepath.Join(dir, "plugins")
	if err := buildPlugin(filepath.Join(plugins, devvault.PluginName), testVersion); err != nil {
		return 0, err
	}
	vault, err = devvault.Start(context.Background(), devvault.Options{VaultBin: bin, PluginDir: plugins, LogLevel: "trace"})
	if err != nil {
		return 0, err
	}
	defer vault.Stop()
	if err := addResidents(); err != nil {
		return 0, err
	}
	status := m.Run()
	vault.Stop()
	for line := range strings.Lines(vault.Log()) {
		if status != 0 && strings.Contains(line, "[ERROR]") { // answers don't say why Vault failed
			fmt.Fprint(os.Stderr, "shared server: ", line)
		}
	}
	if i := strings.Index(vault.Log(), "DATA RACE"); i >= 0 {
		return 0, fmt.Errorf("the plugin has a race: %.4000s", vault.Log()[i:])
	}
	return status, nil
}

// addResidents enables what stays. Vault ends the plugin's process with its last mount. Then a
// test that mounts the engine at that moment would fail. While an audit device is disabled,
// the last one, Vault fails requests of others.
func addResidents() error {
	residents := [][]string{{"secrets", "enable", "-path=resident", devvault.PluginName}}
	if vault.Kind == devvault.Vault { // OpenBao has its devices in its configuration
		residents = append(residents, []string{"audit", "enable", "-path=resident", "file", "file_path=discard"})
	}
	for _, args := range residents {
		if out, err := vault.Command(context.Background(), vault.RootToken, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", args, err, out)
		}
	}
	return nil
}

// builds has the files of the plugin, each of which is built once.
var builds struct {
	sync.Mutex

	dir string
}

// buildPlugin builds with the race detector, to find races that only real traffic causes.
// Its report appears in the server's log.
func buildPlugin(file, version string) error {
	main := "../../cmd/" + devvault.PluginName
	return build(file, version, exec.Command("go", "build", "-C", main, "-race", "-ldflags", "-X main.version="+version, "-o"))
}

// buildRelease builds the plugin as for a release, without the race detector, which takes
// several times the memory.
func buildRelease(t testing.TB, file string) {
	t.Helper()
	cmd := exec.Command("../build.sh")
	cmd.Env = append(os.Environ(), "VERSION="+testVersion)
	require.NoError(t, build(file, "release", cmd))
}

// build makes the file by a command to which the name of its output is added.
func build(file, name string, cmd *exec.Cmd) error {
	builds.Lock()
	defer builds.Unlock()
	built := filepath.Join(builds.dir, "builds", name)
	if _, err := os.Stat(built); err != nil {
		cmd.Args = append(cmd.Args, built)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building the plugin: %w\n%s", err, out)
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.Link(built, file)
}

// onlyOn skips a test of something that only one server has. On the other server, go test -v
// and the list at the end of make test report the test as not run.
func onlyOn(t *testing.T, kind devvault.Kind) {
	t.Helper()
	if vault.Kind == kind {
		return
	}
	text := fmt.Sprintf("not run on %s: %s", vault.Kind, t.Name())
	list, err := os.OpenFile(cmp.Or(os.Getenv("NOT_RUN"), os.DevNull), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	defer list.Close()
	_, err = fmt.Fprintln(list, text)
	require.NoError(t, err)
	t.Skip(text)
}
