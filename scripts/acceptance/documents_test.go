// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"context"
	"debug/elf"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// A block is commands in a document, and the answer that the document shows after them.
type block struct {
	commands, answer string
}

// blocks returns the commands of a text, which are indented by four spaces or more, with
// the fenced answers that follow them. Commands without an answer belong to the next block
// with one.
func blocks(text string) []block {
	var all []block
	var commands, answer strings.Builder
	fenced := false
	for line := range strings.Lines(text) {
		command, found := strings.CutPrefix(line, "    ")
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			fenced = !fenced
			if !fenced {
				all = append(all, block{commands.String(), answer.String()})
				commands.Reset()
				answer.Reset()
			}
		case fenced:
			answer.WriteString(line)
		case found:
			commands.WriteString(command)
		}
	}
	return append(all, block{commands: commands.String()})
}

// sections returns the parts of a document by their second-level headings.
func sections(t testing.TB, file string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	all := map[string]string{}
	for _, section := range strings.Split(string(text), "\n## ")[1:] {
		name, rest, _ := strings.Cut(section, "\n")
		all[name] = rest
	}
	return all
}

// reader follows a document, in an empty folder, with a mount at clanmeeting/ as it is after
// the README's quick start.
type reader struct {
	t   *testing.T
	dir string
}

func newReader(t *testing.T) reader {
	t.Helper()
	for _, tool := range []string{"curl", "jq", "openssl"} {
		_, err := exec.LookPath(tool)
		require.NoError(t, err, "the documents' commands need %s", tool)
	}
	r := reader{t, t.TempDir()}
	// "vault" is a file on the PATH: a shell function would not see variables that are set
	// for one command.
	require.NoError(t, os.Symlink(vault.Command(t.Context(), "").Path, filepath.Join(r.dir, "vault")))
	mountClanMeeting(t)
	_, private := newKey(t)
	root(t).write("clanmeeting/config", map[string]any{"consumer_id": "acme", "private_key": private, "domain": "meet.example.com"})
	return r
}

// clanMeeting is held by the test that uses the mount of the documents.
var clanMeeting sync.Mutex

// mountClanMeeting enables the engine at the path that the documents use. Afterwards it
// removes that and everything else that they create.
func mountClanMeeting(t *testing.T) {
	t.Helper()
	clanMeeting.Lock()
	t.Cleanup(clanMeeting.Unlock)
	remove := func() {
		for _, path := range []string{"sys/mounts/clanmeeting", "sys/auth/approle", "sys/auth/userpass", "identity/entity/name/ann"} {
			_, _, err := vault.Call(context.Background(), vault.RootToken, http.MethodDelete, path, nil)
			require.NoError(t, err)
		}
	}
	remove()
	t.Cleanup(remove)
	root(t).write("sys/mounts/clanmeeting", map[string]any{"type": devvault.PluginName})
}

// remountClanMeeting makes the mount of the documents new, not configured.
func remountClanMeeting(t *testing.T) {
	t.Helper()
	root(t).call(http.MethodDelete, "sys/mounts/clanmeeting", nil)
	root(t).write("sys/mounts/clanmeeting", map[string]any{"type": devvault.PluginName})
}

// sh runs commands with a token, and returns what they print.
func (r reader) sh(token, commands string) string {
	r.t.Helper()
	shell := exec.CommandContext(r.t.Context(), "sh", "-ec", commands)
	shell.Dir = r.dir
	shell.Env = append(vault.Command(r.t.Context(), token).Env, "ROOT="+vault.RootToken, "PATH="+r.dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	out, err := shell.CombinedOutput()
	require.NoError(r.t, err, "%s\n%s", commands, out)
	return string(out)
}

// follow runs the commands of a section in one shell, as written. It compares the end of
// what each block prints with the answer that the document shows. "…" in an answer stands
// for any text.
func (r reader) follow(token, section string) {
	r.t.Helper()
	const end = "=== end of block %d ===\n"
	all := blocks(section)
	var script strings.Builder
	for i, b := range all {
		script.WriteString(b.commands)
		fmt.Fprintf(&script, "echo '%s'\n", strings.TrimSpace(fmt.Sprintf(end, i)))
	}
	out := r.sh(token, script.String())
	compared := 0
	for i, b := range all {
		var printed string
		var found bool
		printed, out, found = strings.Cut(out, fmt.Sprintf(end, i))
		require.True(r.t, found, "%s\n%s", b.commands, out)
		if b.answer == "" {
			continue
		}
		compared++
		// "…" stands for any text; everything else must be the same.
		want := strings.ReplaceAll(regexp.QuoteMeta(normal(b.answer)), "…", `[^\n]*`)
		require.Regexp(r.t, want+`$`, normal(printed), b.commands)
	}
	require.NotZero(r.t, compared, "no answer was compared")
}

// normal removes the indentation that a list gives a text.
func normal(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return strings.Join(lines, "\n")
}

// Each recipe works as written: its role, its policy, its request and its refusals.
func TestRecipes(t *testing.T) {
	t.Parallel()
	all := sections(t, "../../docs/recipes.md")
	require.Len(t, all, 3)
	for name, section := range all {
		t.Run(name, func(t *testing.T) { newReader(t).follow(vault.RootToken, section) })
	}
}

// docs/keys.md works as written, with the policies that it names. A token that the old key
// signed is valid, with a warning, until that key is deleted.
func TestKeysGuide(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	root(t).write("clanmeeting/roles/support", map[string]any{"allowed_rooms": "support-*", "ttl": "5m", "max_ttl": "5m"})
	token := root(t).read("clanmeeting/creds/support", "room", "support-4711")["token"].(string)
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "token.txt"), []byte(token), 0o600))
	policy := func(name string) string {
		text, err := os.ReadFile("../../examples/policies/" + name + ".hcl")
		require.NoError(t, err)
		return string(text)
	}
	custodian := root(t).as(policy("key-custodian")).token
	support := root(t).as(policy("support")).token
	all := sections(t, "../../docs/keys.md")
	out := r.sh(custodian, indented(all["Scheduled links end with their key"]))
	require.Equal(t, `{"role":"support","max_not_before":0,"max_ttl":300,"valid_from":"","valid_until":""}`, strings.TrimSpace(out))

	before, verify, found := strings.Cut(all["The steps"], "\n**5. ")
	require.True(t, found)
	verify, after, found := strings.Cut(verify, "\n**6. ")
	require.True(t, found)
	require.Contains(t, verify, "clanmeeting/verify")
	out = r.sh(custodian, indented(before)+"VAULT_TOKEN="+support+"\n"+indented(verify)+"VAULT_TOKEN="+custodian+"\n"+indented(after))
	require.Contains(t, out, "old=1 new=2\n")
	require.Regexp(t, `(?m)^1 +true .*\n2 +false `, out)
	require.Regexp(t, `key_version +1\n`, out)
	require.Regexp(t, `valid +true\n`, out)

	data := root(t).read("clanmeeting/config")
	sum := data["public_key_sha256"].(string)
	require.Regexp(t, `(?m)^`+sum+` +-\n`+sum, out, "openssl and the engine print the same fingerprint")
	public, err := os.ReadFile(filepath.Join(r.dir, "cm-public-key.pem"))
	require.NoError(t, err)
	require.Equal(t, strings.TrimSpace(data["public_key"].(string)), strings.TrimSpace(string(public)))
	status, _ := root(t).get("clanmeeting/keys/1")
	require.Equal(t, http.StatusNotFound, status)
}

// What can be tested of examples/docker without a container engine.
func TestContainerExample(t *testing.T) {
	t.Parallel()
	read := func(name string) string {
		text, err := os.ReadFile("../../examples/docker/" + name)
		require.NoError(t, err)
		return string(text)
	}
	dockerfile, compose, readme := read("Dockerfile"), read("compose.yaml"), read("README.md")
	version := regexp.MustCompile(`VERSION: (v\S+)`).FindStringSubmatch(compose)[1]
	require.Contains(t, dockerfile, "ARG VERSION="+version+"\n")
	require.Contains(t, compose, `{"plugin_directory": "/vault/plugins"}`)
	require.Contains(t, dockerfile, "ENV PLUGIN_DIRECTORY=/vault/plugins PLUGIN_VERSION=$VERSION\n")
	require.Contains(t, dockerfile, " /vault/plugins/"+devvault.PluginName+"_$VERSION\n")
	require.Contains(t, dockerfile, "/bin/plugins/"+devvault.PluginName+" ", "what make build makes")
	require.Contains(t, readme, "/vault/plugins/"+devvault.PluginName+"_"+version)

	// As in the image: a folder with the plugin, whose file name has the version.
	plugins := t.TempDir()
	file := filepath.Join(plugins, devvault.PluginName+"_"+version)
	require.Equal(t, testVersion, version)
	buildRelease(t, file)
	binary, err := elf.Open(file)
	require.NoError(t, err)
	defer binary.Close()
	for _, program := range binary.Progs {
		require.NotEqual(t, elf.PT_INTERP, program.Type, "the plugin needs a dynamic linker, which Alpine does not have")
	}

	server, err := devvault.Start(t.Context(), devvault.Options{VaultBin: os.Getenv("VAULT_BIN"), PluginDir: plugins})
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	own := client{t, server, server.RootToken}
	for _, want := range []string{"Success! Enabled the " + devvault.PluginName, "clanmeeting/ is enabled already"} {
		cli := server.Command(t.Context(), server.RootToken)
		shell := exec.CommandContext(t.Context(), "sh", "-ec", withVault(cli, read("enable.sh")))
		shell.Env = append(cli.Env, "PLUGIN_DIRECTORY="+plugins, "PLUGIN_VERSION="+version)
		out, err := shell.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), want)
	}
	require.Equal(t, version, own.read("sys/mounts/clanmeeting")["running_plugin_version"])

	cli := server.Command(t.Context(), server.RootToken)
	shell := exec.CommandContext(t.Context(), "sh", "-ec", withVault(cli, indented(readme)))
	shell.Env = cli.Env
	out, err := shell.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "https://meet.example.com/acme/support-4711?jwt=")
}

// The README is short. The three commands at its top work as written after its quick start
// has made a key, and give the answer that it shows.
func TestREADME(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	text := string(raw)
	require.LessOrEqual(t, strings.Count(text, "\n"), 150)
	top, _, found := strings.Cut(text, "\n## ")
	require.True(t, found)
	_, key, found := strings.Cut(indented(sections(t, "../../README.md")["Quick start"]), "make demo\n")
	require.True(t, found)
	all := blocks(top)
	require.NotEmpty(t, all[0].answer)
	r := newReader(t)
	remountClanMeeting(t)
	out := r.sh(vault.RootToken, key+all[0].commands)
	want := strings.ReplaceAll(regexp.QuoteMeta(all[0].answer), "…", `\S*`)
	require.Regexp(t, regexp.MustCompile(`\d{10}`).ReplaceAllString(want, `\d{10}`)+`$`, out)
}

// The requests of the reference, and the commands of the page for troubleshooting, work as
// written.
func TestReference(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	remountClanMeeting(t)
	_, private := newKey(t)
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "cm-api-key.pem"), []byte(private), 0o600))
	var commands strings.Builder
	commands.WriteString("curl() { command curl -sS --fail-with-body \"$@\"; echo; }\n")
	for _, page := range []string{"reference.md", "troubleshooting.md"} {
		text, err := os.ReadFile("../../docs/" + page)
		require.NoError(t, err)
		commands.WriteString("vault read -field=token clanmeeting/creds/support room=support-4711 > token.txt || true\n")
		for _, b := range blocks(string(text)) {
			commands.WriteString(b.commands)
		}
	}
	out := r.sh(vault.RootToken, commands.String())
	for _, want := range []string{`"active_key":1`, `"keys":\["1","2"\]`, `"batch_results"`, `"matched_rule":"support-\*"`, `not \\"support-4712\\"`, `(?m)^valid +true$`} {
		require.Regexp(t, want, out)
	}
}

// Each link in a document to a file of the repository, or to a heading, works.
func TestDocumentLinks(t *testing.T) {
	t.Parallel()
	var files []string
	for _, pattern := range []string{"*.md", ".github/*.md", "docs/*.md", "examples/*.md", "examples/*/*.md"} {
		found, err := filepath.Glob("../../" + pattern)
		require.NoError(t, err)
		require.NotEmpty(t, found, pattern)
		files = append(files, found...)
	}
	link := regexp.MustCompile(`\]\(([^)\s:]+)\)`)
	fence := regexp.MustCompile("(?ms)^ *```.*?^ *```")
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, match := range link.FindAllStringSubmatch(fence.ReplaceAllString(string(text), ""), -1) {
			path, heading, _ := strings.Cut(match[1], "#")
			target := file
			if path != "" {
				target = filepath.Join(filepath.Dir(file), path)
			}
			info, err := os.Stat(target)
			require.NoError(t, err, "%s: %s", file, match[1])
			if heading == "" {
				continue
			}
			if info.IsDir() {
				target = filepath.Join(target, "README.md")
			}
			require.Contains(t, anchors(t, target), heading, "%s: %s", file, match[1])
		}
	}
}

// anchors returns the names that GitHub gives to the headings of a document.
func anchors(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var all []string
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(string(text), -1) {
		name := regexp.MustCompile(`[^\pL\pN_ -]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		all = append(all, strings.ReplaceAll(name, " ", "-"))
	}
	return all
}
