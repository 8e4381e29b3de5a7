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

// indentedBlocks returns the commands of a text, separately where there is text between them.
func indentedBlocks(text string) []string {
	var all []string
	for _, part := range regexp.MustCompile(`(?m)^\S.*$`).Split(text, -1) {
		if commands := indented(part); commands != "" {
			all = append(all, commands)
		}
	}
	return all
}

// step returns the text of a numbered step, whose number is bold.
func step(t testing.TB, section string, number int) string {
	t.Helper()
	_, text, found := strings.Cut(section, fmt.Sprintf("\n**%d. ", number))
	require.True(t, found, number)
	text, _, _ = strings.Cut(text, fmt.Sprintf("\n**%d. ", number+1))
	return text
}

func examplePolicy(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../examples/policies/" + name + ".hcl")
	require.NoError(t, err)
	return string(text)
}

// reader follows a document, in a folder and as the holder of a token.
type reader struct {
	client

	dir string
}

// newReader is a reader with the root token and with a mount at clanmeeting/, not configured.
func newReader(t testing.TB) reader {
	t.Helper()
	mountClanMeeting(t)
	return reader{root(t), readersFolder(t)}
}

// readersFolder returns a folder that has only the program vault. It is a file on the PATH: a
// shell function would not see variables that are set for one command.
func readersFolder(t testing.TB) string {
	t.Helper()
	for _, tool := range []string{"curl", "jq", "openssl"} {
		_, err := exec.LookPath(tool)
		require.NoError(t, err, "the documents' commands need %s", tool)
	}
	dir := t.TempDir()
	require.NoError(t, os.Symlink(vault.Command(t.Context(), "").Path, filepath.Join(dir, "vault")))
	return dir
}

// holding is a reader with one of the example policies.
func (r reader) holding(policy string) reader {
	r.client = r.as(examplePolicy(r.t, policy))
	return r
}

// file writes a file into the folder.
func (r reader) file(name, text string) {
	r.t.Helper()
	require.NoError(r.t, os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600))
}

// run runs commands in one shell, and returns what they print.
func (r reader) run(commands string, env ...string) string {
	r.t.Helper()
	shell := exec.CommandContext(r.t.Context(), "sh", "-ec", commands)
	shell.Dir, shell.Env = r.dir, r.vault.Command(r.t.Context(), r.token).Env
	shell.Env = append(shell.Env, "ROOT="+r.vault.RootToken, "PATH="+r.dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	shell.Env = append(shell.Env, env...)
	out, err := shell.CombinedOutput()
	require.NoError(r.t, err, "%s\n%s", commands, out)
	return string(out)
}

// clanMeeting is held by the test that uses the mount of the documents.
var clanMeeting sync.Mutex

// mountClanMeeting enables the engine at the path that the documents use. Afterwards it
// removes that and everything else that they create.
func mountClanMeeting(t testing.TB) {
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
	root(t).enable("clanmeeting")
}

// follow runs the commands of a section in one shell, as written. It compares the end of
// what each block prints with the answer that the document shows. "…" in an answer stands
// for any text.
func (r reader) follow(section string) {
	r.t.Helper()
	const end = "=== end of block %d ===\n"
	all := blocks(section)
	var script strings.Builder
	for i, b := range all {
		script.WriteString(b.commands)
		fmt.Fprintf(&script, "echo '%s'\n", strings.TrimSpace(fmt.Sprintf(end, i)))
	}
	out := r.run(script.String())
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
		t.Run(name, func(t *testing.T) {
			r := newReader(t)
			r.configure("clanmeeting")
			r.follow(section)
		})
	}
}

// docs/keys.md works as written, with the policies that it names. A token that the old key
// signed is valid, with a warning, until that key is deleted.
func TestKeysGuide(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	r.configure("clanmeeting")
	r.write("clanmeeting/roles/support", map[string]any{"max_ttl": "5m"})
	r.file("token.txt", root(t).read("clanmeeting/creds/support", "room", "support-4711")["token"].(string))
	custodian, support := r.holding("key-custodian"), r.holding("support")
	all := sections(t, "../../docs/keys.md")
	out := custodian.run(indented(all["Scheduled links end with their key"]))
	require.Equal(t, `{"role":"support","max_not_before":0,"max_ttl":300,"valid_from":"","valid_until":""}`, strings.TrimSpace(out))

	verify := indented(step(t, all["The steps"], 5))
	require.Contains(t, verify, "clanmeeting/verify")
	out = custodian.run(strings.Replace(indented(all["The steps"]), verify, "VAULT_TOKEN="+support.token+"\n"+verify+"VAULT_TOKEN="+custodian.token+"\n", 1))
	require.Contains(t, out, "old=1 new=2\n")
	require.Regexp(t, `(?m)^1 +true .*\n2 +false `, out)
	require.Regexp(t, `key_version +1\n`, out)
	require.Regexp(t, `valid +true\n`, out)
	r.requireNewKey(out)
}

// requireNewKey checks what the steps of docs/keys.md have printed, and what they left.
func (r reader) requireNewKey(out string) {
	r.t.Helper()
	data := r.read("clanmeeting/config")
	sum := data["public_key_sha256"].(string)
	require.Regexp(r.t, `(?m)^`+sum+` +-\n`+sum, out, "openssl and the engine print the same fingerprint")
	public, err := os.ReadFile(filepath.Join(r.dir, "cm-public-key.pem"))
	require.NoError(r.t, err)
	require.Equal(r.t, strings.TrimSpace(data["public_key"].(string)), strings.TrimSpace(string(public)))
	status, _ := r.get("clanmeeting/keys/1")
	require.Equal(r.t, http.StatusNotFound, status)
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
	r := reader{client{t, server, server.RootToken}, readersFolder(t)}
	for _, want := range []string{"Success! Enabled the " + devvault.PluginName, "clanmeeting/ is enabled already"} {
		require.Contains(t, r.run(read("enable.sh"), "PLUGIN_DIRECTORY="+plugins, "PLUGIN_VERSION="+version), want)
	}
	require.Equal(t, version, r.read("sys/mounts/clanmeeting")["running_plugin_version"])
	require.Contains(t, r.run(indented(readme)), "https://meet.example.com/acme/support-4711?jwt=")
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
	out := newReader(t).run(key + all[0].commands)
	want := strings.ReplaceAll(regexp.QuoteMeta(all[0].answer), "…", `\S*`)
	require.Regexp(t, regexp.MustCompile(`\d{10}`).ReplaceAllString(want, `\d{10}`)+`$`, out)
}

// The requests of the reference, and the commands of the page for troubleshooting, work as
// written.
func TestReference(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	_, private := newKey(t)
	r.file("cm-api-key.pem", private)
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
	out := r.run(commands.String())
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
