// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"cmp"
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

// document returns the text of a file.
func document(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text)
}

// sections returns the parts of a document by their second-level headings.
func sections(t testing.TB, file string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, section := range strings.Split(document(t, file), "\n## ")[1:] {
		name, rest, _ := strings.Cut(section, "\n")
		all[name] = rest
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

// A block is commands, which are indented by four spaces or more, and the fenced text right
// after them, such as their answer. Either may be missing.
type block struct{ commands, fenced string }

// blocks returns the blocks of a document, separate where there is other text between them.
func blocks(text string) []block {
	var all []block
	inBlock, inFence := false, false
	for line := range strings.Lines(text) {
		command, isCommand := strings.CutPrefix(line, "    ")
		isFence := strings.HasPrefix(strings.TrimSpace(line), "```")
		if (isCommand || isFence) && !inBlock {
			all = append(all, block{})
			inBlock = true
		}
		switch {
		case isFence:
			inFence = !inFence
			inBlock = inFence
		case inFence:
			all[len(all)-1].fenced += line
		case isCommand:
			all[len(all)-1].commands += command
		case strings.TrimSpace(line) != "":
			inBlock = false
		}
	}
	return all
}

// indented returns all commands of a text.
func indented(text string) string {
	var commands strings.Builder
	for _, b := range blocks(text) {
		commands.WriteString(b.commands)
	}
	return commands.String()
}

func examplePolicy(t testing.TB, name string) string {
	t.Helper()
	return document(t, "../../examples/policies/"+name+".hcl")
}

// reader follows a document, in a folder and as the holder of a token.
type reader struct {
	client

	dir string
}

// clanMeeting is held by the test that uses the mount of the documents.
var clanMeeting sync.Mutex

// newReader is a reader with the root token, with a mount at clanmeeting/ that is not
// configured, and without what the documents created for the last reader.
func newReader(t testing.TB) reader {
	t.Helper()
	clanMeeting.Lock()
	t.Cleanup(clanMeeting.Unlock)
	for _, path := range []string{"sys/mounts/clanmeeting", "sys/auth/approle", "sys/auth/userpass", "identity/entity/name/ann"} {
		root(t).call(http.MethodDelete, path, nil)
	}
	root(t).enable("clanmeeting")
	return reader{root(t), readersFolder(t)}
}

// readersFolder returns a folder that has only the program vault. It is a file on the PATH: a
// shell function would not see variables that are set for one command.
func readersFolder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Symlink(vault.Command(t.Context(), "").Path, filepath.Join(dir, "vault")))
	return dir
}

// file writes a file into the folder.
func (r reader) file(name, text string) {
	r.t.Helper()
	require.NoError(r.t, os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600))
}

// plugins is the plugin directory of a reader with a server of its own.
func (r reader) plugins() string { return filepath.Join(r.dir, "plugins") }

// run runs commands in one shell, and returns what they print.
func (r reader) run(commands string) string {
	r.t.Helper()
	shell := exec.CommandContext(r.t.Context(), "sh", "-ec", commands)
	shell.Dir, shell.Env = r.dir, append(r.vault.Command(r.t.Context(), r.token).Env,
		"PLUGIN_DIRECTORY="+r.plugins(), "PATH="+r.dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	out, err := shell.CombinedOutput()
	require.NoError(r.t, err, "%s\n%s", commands, out)
	return string(out)
}

// follow runs the commands of a text in one shell, as written. They must print the answers
// that it shows, the last one at the end. There, "…" stands for any text, and a time for any
// time.
func (r reader) follow(text string) {
	r.t.Helper()
	want := ""
	for _, b := range blocks(text) {
		if b.fenced != "" {
			want += "(?s:.*)" + strings.ReplaceAll(regexp.QuoteMeta(b.fenced), "…", ".*")
		}
	}
	require.NotEmpty(r.t, want)
	want = regexp.MustCompile(`\d{10}`).ReplaceAllString(want, `\d{10}`)
	require.Regexp(r.t, want+"$", r.run(indented(text)))
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
// signed is valid until that key is deleted.
func TestKeysGuide(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	r.configure("clanmeeting")
	r.write("clanmeeting/roles/support", map[string]any{"max_ttl": "5m"})
	r.run("vault read -field=token clanmeeting/creds/support room=support-4711 > token.txt")
	custodian := reader{r.as(examplePolicy(t, "key-custodian")), r.dir}
	support := r.as(examplePolicy(t, "support"))
	all := sections(t, "../../docs/keys.md")
	out := custodian.run(indented(all["Scheduled links end with their key"]))
	require.Equal(t, `{"role":"support","max_not_before":0,"max_ttl":300,"valid_from":"","valid_until":""}`, strings.TrimSpace(out))

	verify := indented(step(t, all["The steps"], 5))
	out = custodian.run(strings.Replace(indented(all["The steps"]), verify, "VAULT_TOKEN="+support.token+" "+verify, 1))
	for _, want := range []string{`old=1 new=2\n`, `(?m)^1 +true .*\n2 +false `, `key_version +1\n`, `valid +true\n`} {
		require.Regexp(t, want, out)
	}
	r.requireNewKey(out)
}

// requireNewKey checks what the steps of docs/keys.md have printed, and what they left.
func (r reader) requireNewKey(out string) {
	r.t.Helper()
	sum := r.read("clanmeeting/config")["public_key_sha256"].(string)
	require.Regexp(r.t, `(?m)^`+sum+` +-\n`+sum, out, "openssl, for the file, and the engine print the same fingerprint")
	status, _ := r.get("clanmeeting/keys/1")
	require.Equal(r.t, http.StatusNotFound, status)
}

// What can be tested of examples/docker without a container engine.
func TestContainerExample(t *testing.T) {
	t.Parallel()
	const example, file = "../../examples/docker/", "/vault/plugins/" + devvault.PluginName + "_"
	for text, name := range map[string]string{
		"VERSION: " + testVersion + "\n":                                "compose.yaml",
		`{"plugin_directory": "/vault/plugins"}`:                        "compose.yaml",
		"ARG VERSION=" + testVersion + "\n":                             "Dockerfile",
		"/bin/plugins/" + devvault.PluginName + " " + file + "$VERSION": "Dockerfile", // what make build makes
		"ENV PLUGIN_DIRECTORY=/vault/plugins PLUGIN_VERSION=$VERSION":   "Dockerfile",
	} {
		require.Contains(t, document(t, example+name), text)
	}
	require.Contains(t, document(t, example+"README.md"), file+testVersion)

	// As in the image: a folder with the plugin, whose file name has the version.
	r := reader{client{t: t}, readersFolder(t)}
	buildRelease(t, filepath.Join(r.plugins(), filepath.Base(file)+testVersion))
	server, err := devvault.Start(t.Context(), devvault.Options{VaultBin: os.Getenv("VAULT_BIN"), PluginDir: r.plugins()})
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	r.vault, r.token = server, server.RootToken
	r.run("! ldd plugins/*") // Alpine lacks the libraries that a dynamic program needs
	for _, want := range []string{"Success! Enabled the " + devvault.PluginName, "clanmeeting/ is enabled already"} {
		require.Contains(t, r.run("export PLUGIN_VERSION="+testVersion+"\n"+document(t, example+"enable.sh")), want)
	}
	require.Equal(t, testVersion, r.read("sys/mounts/clanmeeting")["running_plugin_version"])
	require.Contains(t, r.run(indented(document(t, example+"README.md"))), "https://meet.example.com/acme/support-4711?jwt=")
}

// The README is short. The three commands at its top work as written after its quick start
// has made a key, and give the answer that it shows.
func TestREADME(t *testing.T) {
	t.Parallel()
	text := document(t, "../../README.md")
	require.LessOrEqual(t, strings.Count(text, "\n"), 150)
	top, _, _ := strings.Cut(text, "\n## ")
	_, key, _ := strings.Cut(sections(t, "../../README.md")["Quick start"], "make demo\n")
	newReader(t).follow(key + top)
}

// The requests of the reference, and the commands of the page for troubleshooting, work as
// written.
func TestReference(t *testing.T) {
	t.Parallel()
	out := newReader(t).run("openssl genrsa -out cm-api-key.pem 2048\n" +
		"curl() { command curl -sS --fail-with-body \"$@\"; echo; }\n" +
		indented(document(t, "../../docs/reference.md")) +
		"vault read -field=token clanmeeting/creds/support room=support-4711 > token.txt\n" +
		indented(document(t, "../../docs/troubleshooting.md")))
	for _, want := range []string{
		`"active_key":1`, `"keys":\["1","2"\]`, `"batch_results"`, `"matched_rule":"support-\*"`, `not \\"support-4712\\"`, `(?m)^valid +true$`,
	} {
		require.Regexp(t, want, out)
	}
}

// Every example in the help works as printed. The paths are in the order in which a new
// user needs them.
func TestHelpExamples(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	r.run("openssl genrsa -out cm-api-key.pem 2048\nopenssl genrsa -out new-key.pem 2048")
	paths := []string{
		"", "config", "roles/support", "roles", "creds/support", "check/support", "verify",
		"keys/generate", "keys/import", "keys", "keys/1",
	}
	for _, path := range paths {
		_, answer := r.get("clanmeeting/"+path, "help", "1")
		_, description, _ := strings.Cut(answer["help"].(string), "## DESCRIPTION\n")
		description, list, _ := strings.Cut(description, "## PATHS\n")
		if path == "" {
			require.Equal(t, len(paths)-1, strings.Count(list, "\n    ^"), "a path is missing here")
		}
		commands := indented(description)
		require.NotEmpty(t, commands, path)
		if path == "verify" {
			r.run("vault read -field=token clanmeeting/creds/support room=support-1 > token.txt")
		}
		r.run(commands)
	}
}

// Each link in a document to a file of the repository, or to a heading, works.
func TestDocumentLinks(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)\s:]+)\)`)
	fence := regexp.MustCompile("(?ms)^ *```.*?^ *```")
	punctuation := regexp.MustCompile(`[^\pL\pN_ \n-]`)
	for _, pattern := range []string{"*.md", ".github/*.md", "docs/*.md", "examples/*.md", "examples/*/*.md"} {
		files, err := filepath.Glob("../../" + pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files, pattern)
		for _, file := range files {
			for _, match := range link.FindAllStringSubmatch(fence.ReplaceAllString(document(t, file), ""), -1) {
				path, heading, _ := strings.Cut(match[1], "#")
				target := filepath.Join(filepath.Dir(file), cmp.Or(path, filepath.Base(file)))
				_, err := os.Stat(target)
				require.NoError(t, err, "%s: %s", file, match[1])
				if heading == "" {
					continue
				}
				// GitHub's name of a heading has no punctuation, and a dash for each space.
				names := punctuation.ReplaceAllString(strings.ToLower(document(t, target)), "")
				require.Contains(t, strings.ReplaceAll(names, " ", "-"), "\n-"+heading+"\n", "%s: %s", file, match[1])
			}
		}
	}
}
