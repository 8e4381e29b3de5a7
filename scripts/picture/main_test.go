// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The README's picture shows the README's commands. If it does not, run make picture.
func TestPictureIsOfTheREADME(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	picture, err := os.ReadFile("../../.github/start.svg")
	require.NoError(t, err)
	lines := commands(string(readme), "In a minute")
	require.GreaterOrEqual(t, len(lines), 5)
	for _, line := range lines {
		if !strings.HasPrefix(line, "#") {
			line = "$ " + line
		}
		require.Contains(t, string(picture), ">"+shown(line)+"<", "run make picture")
	}
}
