// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// night is a cluster with an application, in which something is stolen. Whoever follows the
// incident sections has only the policy incident.hcl.
type night struct {
	*guide
	log              string // of the audit device
	roleID, secretID string // of the application
}

func newNight(t *testing.T) night {
	t.Helper()
	n := night{guide: newGuide(t)}
	file := filepath.Join(n.plugins, devvault.PluginName)
	require.NoError(t, buildPlugin(file, testVersion))
	n.startCluster(devvault.StartFirstNode)
	require.NoError(t, n.cluster.Register(t.Context(), devvault.PluginName, "", file))
	n.log = filepath.Join(n.dir, "audit.log")
	n.root().write("sys/audit/file", map[string]any{"type": "file", "options": map[string]any{"file_path": n.log}})
	n.root().configure(n.root().enable("clanmeeting"))
	n.root().write("clanmeeting/roles/support", map[string]any{"ttl": "10m", "valid_from": "2020-01-01T00:00:00Z"})
	n.root().write("sys/policies/acl/app", map[string]any{"policy": examplePolicy(t, "app")})
	n.root().write("sys/auth/approle", map[string]any{"type": "approle"})
	app := "auth/approle/role/support-app"
	n.root().write(app, map[string]any{"token_policies": "app", "token_no_default_policy": true, "token_ttl": "20m", "token_max_ttl": "4h"})
	n.roleID = n.root().read(app + "/role-id")["role_id"].(string)
	n.secretID = n.root().write(app+"/secret-id", nil).Data()["secret_id"].(string)
	n.token = n.root().as(examplePolicy(t, "incident")).token
	return n
}

// login is the application's, with a secret ID.
func (n night) login(secretID string) (int, client) {
	n.t.Helper()
	status, answer := n.root().post("auth/approle/login", map[string]any{"role_id": n.roleID, "secret_id": secretID})
	if status != http.StatusOK {
		return status, client{}
	}
	return status, n.root().with(answer["auth"].(map[string]any)["client_token"])
}

// link asks for a link as an application would.
func (n night) link(app client) (int, string) {
	n.t.Helper()
	status, answer := app.get("clanmeeting/creds/support", "room", "support-4711")
	link, _ := answer.Data()["meeting_url"].(string)
	return status, link
}

func (n night) may(app client) bool {
	n.t.Helper()
	status, _ := n.link(app)
	return status == http.StatusOK
}

// step returns the blocks of commands of a step, after a token was stolen.
func (n night) step(number int) []string {
	n.t.Helper()
	text := step(n.t, n.section("A token is stolen"), number)
	return indentedBlocks(strings.ReplaceAll(text, "/var/log/vault/", n.dir+"/"))
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
	_, thief := n.login(n.secretID)
	_, link := n.link(thief)
	// As it arrives at night: a link, with a byte-order mark and a DOS line end.
	n.reader().file("stolen.txt", "\ufeff "+link+"\r\n")
	one := n.step(1)
	require.Len(n.t, one, 1)
	require.Regexp(n.t, `(?s)"valid": true,.*"room": "support-4711",\n +"until": "20`, n.run(one[0]))

	found := n.search()
	require.Equal(n.t, "support-app", found.Metadata["role_name"])
	require.Equal(n.t, "127.0.0.1", found.Address)
	require.NotEmpty(n.t, found.EntityID)

	four := n.step(4)
	require.Len(n.t, four, 4)
	four[0] = strings.Replace(four[0], "<entity_id>", found.EntityID, 1)
	n.run(four[0])
	require.False(n.t, n.may(thief))
	n.run(four[1])
	status, _ := n.login(n.secretID)
	require.GreaterOrEqual(n.t, status, http.StatusBadRequest, "with the old secret ID")
	secretID, err := os.ReadFile(filepath.Join(n.dir, "secret-id"))
	require.NoError(n.t, err)
	n.run(four[2])
	n.run(strings.Split(four[0], "\n")[0] + "\n" + four[3])
	require.False(n.t, n.may(thief), "a login outlives its secret ID, unless it is revoked")
	_, app := n.login(string(secretID))
	require.True(n.t, n.may(app))
	require.NoFileExists(n.t, filepath.Join(n.dir, "secret-id"))

	seven := n.step(7)
	require.Len(n.t, seven, 1)
	n.run(seven[0])
	require.EqualValues(n.t, "120", fmt.Sprint(n.root().read("clanmeeting/roles/support")["ttl"]))

	// No other field of an entity, and no metadata of a secret ID.
	oncall := n.root().with(n.token)
	status, _ = oncall.post("identity/entity/id/"+found.EntityID, map[string]any{"policies": "app"})
	require.Equal(n.t, http.StatusForbidden, status)
	status, _ = oncall.post("auth/approle/role/support-app/secret-id", map[string]any{"metadata": `{"room":"board"}`})
	require.Equal(n.t, http.StatusForbidden, status)
	require.False(n.t, n.may(oncall))
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
	one, two := n.step(1), n.step(2)
	require.Len(n.t, two, 3)
	n.run(one[0])
	out := n.run(two[0] + two[1])
	_, out, found := strings.Cut(out, "\n")
	require.True(n.t, found)
	var last asker
	for decoder := json.NewDecoder(strings.NewReader(out)); decoder.More(); {
		last = asker{}
		require.NoError(n.t, decoder.Decode(&last), out)
	}
	return last
}

func (n night) noEntity() {
	five := n.step(5)
	require.Len(n.t, five, 3)
	thief := n.root().as(`path "clanmeeting/creds/support" { capabilities = ["read"] }`)
	_, link := n.link(thief)
	n.reader().file("stolen.txt", strings.SplitN(link, "jwt=", 2)[1])
	found := n.search()
	require.Empty(n.t, found.EntityID)

	// The same caller, by a wrapped answer.
	n.token, thief.token = thief.token, n.token
	n.reader().file("wrapping", n.run("vault read -wrap-ttl=1m -field=wrapping_token clanmeeting/creds/support room=support-1"))
	n.token, thief.token = thief.token, n.token
	n.reader().file("stolen.txt", n.run("export VAULT_TOKEN=\"$(cat wrapping)\"\nvault unwrap -field=token"))
	unwrapped := n.search()
	require.Equal(n.t, []string{"response-wrapping"}, unwrapped.Policies)
	wrapped := strings.Replace(n.step(2)[2], "<accessor>", unwrapped.Accessor, 1)
	require.Contains(n.t, n.run(wrapped), `"accessor": "`+found.Accessor+`"`)
	require.Contains(n.t, n.run(strings.Replace(five[0], "<accessor>", found.Accessor, 1)), "Success!")
	require.False(n.t, n.may(thief))

	_, app := n.login(n.newSecretID())
	before := n.root().read("clanmeeting/roles/support")
	n.run(five[1])
	require.False(n.t, n.may(app))
	n.run(five[2])
	require.True(n.t, n.may(app))
	require.Equal(n.t, before, n.root().read("clanmeeting/roles/support"))
}

func (n night) newSecretID() string {
	return n.root().write("auth/approle/role/support-app/secret-id", nil).Data()["secret_id"].(string)
}

func (n night) keyStolen() {
	// It links to the steps of docs/keys.md. Step 5 of those is for a refused token.
	keys := sections(n.t, "../../docs/keys.md")
	old := n.root().read("clanmeeting/config")["public_key_sha256"].(string)
	require.Contains(n.t, n.follow("The key is stolen"), old)
	steps := indented(keys["The steps"])
	out := n.run(strings.Replace(steps, indented(step(n.t, keys["The steps"], 5)), "", 1))
	sum := n.root().read("clanmeeting/config")["public_key_sha256"]
	require.NotEqual(n.t, old, sum)
	n.reader().requireNewKey(out)

	scheduled := indented(keys["Scheduled links end with their key"])
	require.Contains(n.t, n.run(scheduled), `{"role":"support",`)

	// After a 403 the file is empty. The check notices.
	check := regexp.MustCompile(`(?m)^openssl.*$`).FindString(steps)
	n.reader().file("cm-public-key.pem", "")
	require.NotContains(n.t, n.run(check), sum)
}

// A key that was sent as a form is in the audit log, and is found and removed there.
func (n night) keyInLog() {
	_, private := newKey(n.t)
	n.reader().file("cm-api-key.pem", private)
	n.run(`curl -s -H "X-Vault-Token: $VAULT_TOKEN" --data-binary @cm-api-key.pem "$VAULT_ADDR/v1/clanmeeting/config"`)

	section := strings.ReplaceAll(n.section("A key reached the audit log"), "/var/log/vault/", n.dir+"/")
	fenced := regexp.MustCompile("(?ms)^```sh\n(.*?)^```").FindAllStringSubmatch(section, -1)
	require.Len(n.t, fenced, 2)
	find, remove := fenced[0][1], fenced[1][1]
	require.Regexp(n.t, `audit\.log\n.*\tclanmeeting/config\t127\.0\.0\.1\t`, n.run(find))

	before, err := os.ReadFile(n.log)
	require.NoError(n.t, err)
	inode, err := os.Stat(n.log)
	require.NoError(n.t, err)
	// A developer's machine may have other Vaults, which a test must not signal.
	n.run("pidof() { :; }; kill() { :; }\n" + remove)
	after, err := os.ReadFile(n.log + ".1")
	require.NoError(n.t, err)
	require.Equal(n.t, strings.Count(string(before), "\n"), strings.Count(string(after), "\n"))
	require.Contains(n.t, string(after), `"removed":"a private key"`)
	require.NotContains(n.t, string(after), "PRIVATE KEY")
	info, err := os.Stat(n.log + ".1")
	require.NoError(n.t, err)
	require.True(n.t, os.SameFile(inode, info), "so it has the owner and the mode that the log had")
	require.NoFileExists(n.t, filepath.Join(n.dir, "clean"))
}

// The policy allows each way out of a corrupt entry. (Unit tests make entries corrupt.)
func (n night) corrupt() {
	section := n.section("An entry is corrupt")
	for _, command := range []string{
		"vault delete clanmeeting/roles/<name>", "vault write clanmeeting/config private_key=@cm-api-key.pem",
		"vault delete clanmeeting/keys/<version>", "vault delete clanmeeting/config",
	} {
		require.Contains(n.t, section, "`"+command+"`")
		n.run(strings.NewReplacer("<name>", "support", "<version>", "2").Replace(command))
	}
	status, _ := n.root().get("clanmeeting/config")
	require.Equal(n.t, http.StatusNotFound, status)
	commands := n.commands("An entry is corrupt")
	require.Contains(n.t, commands, "keys/generate")
	n.run(commands)
	require.NotZero(n.t, n.root().read("clanmeeting/config")["active_key"])
	n.run("vault write clanmeeting/roles/support allowed_rooms='support-*'")
}
