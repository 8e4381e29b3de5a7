// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Picture runs the commands of a section of the README, as written, in a Vault in dev mode
// with the engine mounted. It draws what a terminal shows as an SVG.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"html"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

func main() {
	vaultBin := flag.String("vault", "", "the Vault binary")
	pluginDir := flag.String("plugin-dir", "", "the folder with the plugin and nothing else")
	readme := flag.String("readme", "README.md", "the file with the commands")
	section := flag.String("section", "In a minute", "the heading of the section with the commands, which follow its first comment")
	out := flag.String("out", "", "the picture")
	flag.Parse()
	if err := draw(*vaultBin, *pluginDir, *readme, *section, *out); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func draw(vaultBin, pluginDir, readme, section, out string) error {
	text, err := os.ReadFile(readme)
	if err != nil {
		return fmt.Errorf("reading the commands: %w", err)
	}
	lines := commands(string(text), section)
	if len(lines) == 0 {
		return fmt.Errorf("%s has no commands in a section %q", readme, section)
	}
	ctx := context.Background()
	vault, err := devvault.Start(ctx, devvault.Options{VaultBin: vaultBin, PluginDir: pluginDir})
	if err != nil {
		return err
	}
	defer vault.Stop()
	status, answer, err := vault.Call(ctx, vault.RootToken, http.MethodPost, "sys/mounts/clanmeeting", map[string]any{"type": devvault.PluginName})
	if err != nil || status >= http.StatusBadRequest {
		return errors.Join(fmt.Errorf("mounting the engine: %d %s", status, answer.Errors()), err)
	}
	session, err := record(vault, vaultBin, lines)
	if err != nil {
		return err
	}
	if err := os.WriteFile(out, []byte(svg(session)), 0o600); err != nil {
		return fmt.Errorf("writing the picture: %w", err)
	}
	return nil
}

// commands returns the lines of the indented block that begins with a comment.
func commands(text, section string) []string {
	_, text, _ = strings.Cut(text, "\n## "+section+"\n")
	text, _, _ = strings.Cut(text, "\n## ")
	_, text, found := strings.Cut(text, "\n    # ")
	if !found {
		return nil
	}
	var lines []string
	for _, line := range strings.Split("    # "+text, "\n") {
		command, indented := strings.CutPrefix(line, "    ")
		switch {
		case indented:
			lines = append(lines, command)
		case line != "":
			return lines
		}
	}
	return lines
}

// record runs the commands in order in an empty folder, with vault on the PATH, and returns
// what a terminal shows.
func record(vault *devvault.Server, vaultBin string, lines []string) ([]string, error) {
	dir, err := os.MkdirTemp("", "clanmeeting-picture-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for the commands: %w", err)
	}
	defer os.RemoveAll(dir)
	// The binary may have another name.
	if err := os.Symlink(vaultBin, filepath.Join(dir, "vault")); err != nil {
		return nil, fmt.Errorf("putting Vault on the path: %w", err)
	}
	var session []string
	start := time.Now()
	for _, line := range lines {
		if strings.HasPrefix(line, "#") {
			session = append(session, line)
			continue
		}
		session = append(session, "$ "+line)
		cmd := exec.Command("sh", "-c", line)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "VAULT_ADDR="+vault.Addr, "VAULT_TOKEN="+vault.RootToken,
			"PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"))
		output, err := cmd.CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", line, err, output)
		}
		if text := strings.TrimRight(string(output), "\n"); text != "" {
			session = append(session, strings.Split(text, "\n")...)
		}
	}
	return append(session, fmt.Sprintf("# %.1f seconds", time.Since(start).Seconds())), nil
}

const columns = 104 // of the terminal

// shown returns a terminal's line, cut to its width, as SVG text.
func shown(line string) string {
	if characters := []rune(line); len(characters) > columns {
		line = string(characters[:columns-1]) + "…"
	}
	return html.EscapeString(line)
}

// svg draws the lines.
func svg(lines []string) string {
	const lineHeight, charWidth, margin = 19, 7.8, 14
	var out strings.Builder
	width, height := columns*charWidth+2*margin, len(lines)*lineHeight+2*margin
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %d" width="%.0f" height="%d" font-family="monospace" font-size="13">`+"\n", width, height, width, height)
	fmt.Fprintf(&out, `<rect width="100%%" height="100%%" rx="6" fill="#1e2430"/>`+"\n")
	for i, line := range lines {
		colour := "#c9d1d9"
		switch {
		case strings.HasPrefix(line, "$ "):
			colour = "#7ee787"
		case strings.HasPrefix(line, "#"):
			colour = "#8b949e"
		}
		fmt.Fprintf(&out, `<text x="%d" y="%d" fill="%s" xml:space="preserve">%s</text>`+"\n", margin, margin+(i+1)*lineHeight-5, colour, shown(line))
	}
	fmt.Fprintln(&out, "</svg>")
	return out.String()
}
