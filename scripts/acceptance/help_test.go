// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every example in the help works as printed. The paths are in the order in which a new
// user needs them.
func TestHelpExamples(t *testing.T) {
	t.Parallel()
	mountClanMeeting(t)
	paths := []string{
		"", "config", "roles/support", "roles", "creds/support", "check/support", "verify",
		"keys/generate", "keys/import", "keys", "keys/1",
	}

	dir := t.TempDir()
	for _, name := range []string{"cm-api-key.pem", "new-key.pem"} {
		_, private := newKey(t)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(private), 0o600))
	}
	for _, path := range paths {
		_, answer := root(t).get("clanmeeting/"+path, "help", "1")
		help := answer["help"].(string)
		if path == "" {
			require.Equal(t, len(paths)-1, strings.Count(help, "\n    ^"), "a path is missing here")
		}
		commands := examples(help)
		require.NotEmpty(t, commands, path)
		if path == "verify" {
			token := root(t).read("clanmeeting/creds/support", "room", "support-1")["token"].(string)
			require.NoError(t, os.WriteFile(filepath.Join(dir, "token.txt"), []byte(token), 0o600))
		}
		cli := vault.Command(t.Context(), vault.RootToken)
		shell := exec.CommandContext(t.Context(), "sh", "-ec", withVault(cli, commands))
		shell.Dir, shell.Env = dir, cli.Env
		out, err := shell.CombinedOutput()
		require.NoError(t, err, "%q: %s\n%s", path, commands, out)
	}
}

// examples returns the commands in the description of a help text.
func examples(help string) string {
	_, description, _ := strings.Cut(help, "## DESCRIPTION\n")
	description, _, _ = strings.Cut(description, "## PATHS\n")
	return indented(description)
}

// withVault returns shell commands in which vault means the program of cli.
func withVault(cli *exec.Cmd, commands string) string {
	return "vault() { '" + cli.Path + `' "$@"; }` + "\n" + commands
}

// indented returns the lines that are indented by four spaces: the commands of a text.
func indented(text string) string {
	var lines strings.Builder
	for line := range strings.Lines(text) {
		if command, found := strings.CutPrefix(line, "    "); found {
			lines.WriteString(command)
		}
	}
	return lines.String()
}
