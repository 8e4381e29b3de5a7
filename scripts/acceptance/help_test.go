// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every example in the help works as printed. The paths are in the order in which a new
// user needs them.
func TestHelpExamples(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	paths := []string{
		"", "config", "roles/support", "roles", "creds/support", "check/support", "verify",
		"keys/generate", "keys/import", "keys", "keys/1",
	}

	for _, name := range []string{"cm-api-key.pem", "new-key.pem"} {
		_, private := newKey(t)
		r.file(name, private)
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
			r.file("token.txt", root(t).read("clanmeeting/creds/support", "room", "support-1")["token"].(string))
		}
		r.run(commands)
	}
}

// examples returns the commands in the description of a help text.
func examples(help string) string {
	_, description, _ := strings.Cut(help, "## DESCRIPTION\n")
	description, _, _ = strings.Cut(description, "## PATHS\n")
	return indented(description)
}
