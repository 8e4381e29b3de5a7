// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// night is a cluster with an application, in which something is stolen. Whoever follows the
// incident sections has only the policy incident.hcl.
type night struct {
	*guide

	roleID, secretID string // of the application
}

func newNight(t *testing.T) night {
	t.Helper()
	n := night{guide: newGuide(t)}
	n.start(devvault.StartFirstNode)
	examples, err := filepath.Abs("../../examples")
	require.NoError(t, err)
	for name, text := range n.sections {
		n.sections[name] = strings.ReplaceAll(text, "/var/log/vault/", n.dir+"/")
	}
	file := filepath.Join(n.plugins(), devvault.PluginName)
	require.NoError(t, buildPlugin(file, testVersion))
	require.NoError(t, n.cluster.Register(t.Context(), devvault.PluginName, "", file))
	n.write("sys/audit/file", map[string]any{"type": "file", "options": map[string]any{"file_path": filepath.Join(n.dir, "audit.log")}})
	n.configure(n.enable("clanmeeting"))
	n.write("clanmeeting/roles/support", map[string]any{"ttl": "10m", "valid_from": "2020-01-01T00:00:00Z"})
	login := blocks(strings.ReplaceAll(sections(t, "../../examples/README.md")["Before the first link"], "examples/", examples+"/"))
	printed := strings.Fields(n.run(login[0].commands + login[1].commands + "echo $VAULT_ROLE_ID $VAULT_SECRET_ID"))
	n.roleID, n.secretID = printed[len(printed)-2], printed[len(printed)-1]
	n.token = n.as(examplePolicy(t, "incident")).token
	return n
}

// login is the application's, with a secret ID. Without an answer it has no token.
func (n night) login(secretID string) client {
	n.t.Helper()
	_, answer := n.root().post("auth/approle/login", map[string]any{"role_id": n.roleID, "secret_id": secretID})
	auth, _ := answer["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	return n.with(token)
}

// link asks for a link as an application would. It is empty if that is refused.
func (n night) link(app client) string {
	n.t.Helper()
	_, answer := app.get("clanmeeting/creds/support", "room", "support-4711")
	link, _ := answer.Data()["meeting_url"].(string)
	return link
}

// step returns the blocks of commands of a step, after a token was stolen.
func (n night) step(number, blocksInIt int) []string {
	n.t.Helper()
	var all []string
	for _, b := range blocks(step(n.t, n.sections["A token is stolen"], number)) {
		all = append(all, b.commands)
	}
	require.Len(n.t, all, blocksInIt)
	return all
}

// The incident sections of the operator's guide work as written, on Raft, with incident.hcl
// alone.
func TestIncidents(t *testing.T) {
	t.Parallel()
	n := newNight(t)
	n.tokenStolen()
	n.noEntity()
	n.keyStolen()
	n.keyInLog()
	n.corrupt()
}

func (n night) tokenStolen() {
	thief := n.login(n.secretID)
	// As it arrives at night: a link, with a byte-order mark and a DOS line end.
	n.file("stolen.txt", "\ufeff "+n.link(thief)+"\r\n")
	require.Regexp(n.t, `(?s)"valid": true,.*"room": "support-4711",\n +"until": "20`, n.run(n.step(1, 1)[0]))

	found := n.search()
	require.Equal(n.t, "support-app", found.Metadata["role_name"])
	require.Equal(n.t, "127.0.0.1", found.Address)
	require.NotEmpty(n.t, found.EntityID)

	four := n.step(4, 4)
	four[0] = strings.Replace(four[0], "<entity_id>", found.EntityID, 1)
	n.run(four[0])
	require.Empty(n.t, n.link(thief))
	n.run(four[1])
	secretID := document(n.t, filepath.Join(n.dir, "secret-id"))
	n.run(four[2])
	n.run(strings.Split(four[0], "\n")[0] + "\n" + four[3])
	require.Empty(n.t, n.link(thief), "a login outlives its secret ID, unless it is revoked")
	require.Empty(n.t, n.login(n.secretID).token, "with the old secret ID")
	require.NotEmpty(n.t, n.link(n.login(secretID)))
	require.NoFileExists(n.t, filepath.Join(n.dir, "secret-id"))

	n.run(n.step(7, 1)[0])
	require.Equal(n.t, json.Number("120"), n.root().read("clanmeeting/roles/support")["ttl"])
}

// asker is what the search in the audit log prints.
type asker struct {
	Address, Accessor string
	EntityID          string `json:"entity_id"`
	Metadata          map[string]string
	Policies          []string
}

// search follows step 2, from stolen.txt to who asked last.
func (n night) search() asker {
	n.t.Helper()
	n.run(n.step(1, 1)[0])
	two := n.step(2, 3)
	printed := strings.Split(n.run(two[0]+two[1]), "\n{")
	var last asker
	require.NoError(n.t, json.Unmarshal([]byte("{"+printed[len(printed)-1]), &last), "%s", printed)
	return last
}

func (n night) noEntity() {
	thief := n.root().as(`path "clanmeeting/creds/support" { capabilities = ["read"] }`)
	n.file("stolen.txt", strings.SplitN(n.link(thief), "jwt=", 2)[1])
	found := n.search()
	require.NotEmpty(n.t, found.Accessor)
	require.Empty(n.t, found.EntityID)

	// The same caller, by a wrapped answer.
	reader{thief, n.dir}.run("vault read -wrap-ttl=1m -field=wrapping_token clanmeeting/creds/support room=support-1 > wrapping")
	n.run("VAULT_TOKEN=\"$(cat wrapping)\" vault unwrap -field=token > stolen.txt")
	unwrapped := n.search()
	require.Equal(n.t, []string{"response-wrapping"}, unwrapped.Policies)
	wrapped := strings.Replace(n.step(2, 3)[2], "<accessor>", unwrapped.Accessor, 1)
	require.Contains(n.t, n.run(wrapped), `"accessor": "`+found.Accessor+`"`)
	five := n.step(5, 3)
	require.Contains(n.t, n.run(strings.Replace(five[0], "<accessor>", found.Accessor, 1)), "Success!")
	require.Empty(n.t, n.link(thief))

	app := n.root().as(examplePolicy(n.t, "app"))
	before := n.root().read("clanmeeting/roles/support")
	n.run(five[1])
	require.Empty(n.t, n.link(app))
	n.run(five[2])
	require.NotEmpty(n.t, n.link(app))
	require.Equal(n.t, before, n.root().read("clanmeeting/roles/support"))
}

func (n night) keyStolen() {
	old := n.read("clanmeeting/config")["public_key_sha256"].(string)
	require.Contains(n.t, n.run(indented(n.sections["The key is stolen"])), old)
	// It links to the steps of docs/keys.md.
	keys := sections(n.t, "../../docs/keys.md")
	n.requireNewKey(n.run(indented(keys["The steps"])))
	require.NotEqual(n.t, old, n.read("clanmeeting/config")["public_key_sha256"])
	require.Contains(n.t, n.run(indented(keys["Scheduled links end with their key"])), `{"role":"support",`)
}

// A key that was sent as a form is in the audit log, and is found and removed there.
func (n night) keyInLog() {
	n.run("openssl genrsa -out cm-api-key.pem 2048\n" +
		`curl -s -H "X-Vault-Token: $VAULT_TOKEN" --data-binary @cm-api-key.pem "$VAULT_ADDR/v1/clanmeeting/config"`)
	commands := blocks(n.sections["A key reached the audit log"])
	require.Len(n.t, commands, 2)
	require.Regexp(n.t, `audit\.log\n.*\tclanmeeting/config\t127\.0\.0\.1\t`, n.run(commands[0].fenced))

	log := filepath.Join(n.dir, "audit.log")
	before := document(n.t, log)
	inode, err := os.Stat(log)
	require.NoError(n.t, err)
	// A developer's machine may have other Vaults, which a test must not signal.
	n.run("pidof() { :; }; kill() { :; }\n" + commands[1].fenced)
	after := document(n.t, log+".1")
	require.Equal(n.t, strings.Count(before, "\n"), strings.Count(after, "\n"))
	require.Contains(n.t, after, `"removed":"a private key"`)
	require.NotContains(n.t, after, "PRIVATE KEY")
	info, err := os.Stat(log + ".1")
	require.NoError(n.t, err)
	require.True(n.t, os.SameFile(inode, info), "so it has the owner and the mode that the log had")
	require.NoFileExists(n.t, filepath.Join(n.dir, "clean"))
}

// The policy allows each way out of a corrupt entry. (Unit tests make entries corrupt.)
func (n night) corrupt() {
	section := n.sections["An entry is corrupt"]
	for _, command := range []string{
		"vault delete clanmeeting/roles/<name>", "vault write clanmeeting/config private_key=@cm-api-key.pem",
		"vault delete clanmeeting/keys/<version>", "vault delete clanmeeting/config",
	} {
		require.Contains(n.t, section, "`"+command+"`")
		n.run(strings.NewReplacer("<name>", "support", "<version>", "2").Replace(command))
	}
	n.run(indented(section))
	require.NotZero(n.t, n.read("clanmeeting/config")["active_key"])
}
