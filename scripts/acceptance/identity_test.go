// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

// A person is an entity of Vault with an alias at an auth method.
type person struct {
	client
	entityID string
}

// people returns persons who log in at one auth method, and the method's accessor.
func people(t testing.TB, mount string, names ...string) (map[string]person, string) {
	t.Helper()
	auth := unique(t)
	root(t).write("sys/auth/"+auth, map[string]any{"type": "userpass"})
	t.Cleanup(func() { root(t).call(http.MethodDelete, "sys/auth/"+auth, nil) })
	accessor := root(t).read("sys/auth/" + auth)["accessor"].(string)
	policy := "people-" + auth
	// Each may edit the metadata of their own entity. This is the hostile case.
	root(t).write("sys/policies/acl/"+policy, map[string]any{"policy": `
path "` + mount + `/creds/*" { capabilities = ["read", "update"] }
path "` + mount + `/check/*" { capabilities = ["read"] }
path "identity/entity/id/{{identity.entity.id}}" { capabilities = ["update"] }`})

	all := map[string]person{}
	for _, name := range names {
		root(t).write("auth/"+auth+"/users/"+name, map[string]any{"password": "correct horse", "token_policies": policy})
		_, answer := root(t).post("identity/entity", map[string]any{"name": name + "-" + auth})
		id := answer.Data()["id"].(string)
		root(t).write("identity/entity-alias", map[string]any{"name": name, "canonical_id": id, "mount_accessor": accessor})
		status, answer := root(t).post("auth/"+auth+"/login/"+name, map[string]any{"password": "correct horse"})
		require.Equal(t, http.StatusOK, status, answer.Errors())
		all[name] = person{root(t).with(answer["auth"].(map[string]any)["client_token"]), id}
	}
	return all, accessor
}

// Everybody uses the same path, and gets only their own room.
func TestPersonalRooms(t *testing.T) {
	t.Parallel()
	mount, key := configured(t)
	all, accessor := people(t, mount, "alice", "bob")
	root(t).write("identity/group", map[string]any{"name": "desk-" + mount, "member_entity_ids": all["bob"].entityID, "metadata": map[string]string{"room": "helpdesk"}})
	root(t).write(mount+"/roles/me", map[string]any{
		"allowed_rooms_template": true, "allowed_rooms": "{{identity.entity.id}}", "default_room": "{{identity.entity.id}}",
	})
	root(t).write(mount+"/roles/named", map[string]any{
		"allowed_rooms_template": true, "allowed_rooms": "u-{{identity.entity.aliases." + accessor + ".name}}-*,lobby",
	})
	root(t).write(mount+"/roles/group", map[string]any{
		"allowed_rooms_template": true, "allowed_rooms": "{{identity.groups.names.desk-" + mount + ".metadata.room}}",
	})
	for name, p := range all {
		data := p.read(mount + "/creds/me")
		require.Equal(t, p.entityID, data["room"])
		require.Equal(t, p.entityID, verify(t, data["token"].(string), key)["room"])
		require.Equal(t, "u-"+name+"-7", p.read(mount+"/creds/named", "room", "U-"+name+"-7")["room"])
		require.Equal(t, "lobby", p.read(mount+"/creds/named", "room", "lobby")["room"])
	}
	for _, room := range []string{all["bob"].entityID, "*", "{{identity.entity.id}}", all["alice"].entityID + "x"} {
		status, answer := all["alice"].get(mount+"/creds/me", "room", room)
		require.Equal(t, http.StatusBadRequest, status, "%s: %v", room, answer)
	}
	status, _ := all["alice"].get(mount+"/creds/named", "room", "u-bob-7")
	require.Equal(t, http.StatusBadRequest, status)
	require.Equal(t, "helpdesk", all["bob"].read(mount+"/creds/group", "room", "helpdesk")["room"])
	status, answer := all["alice"].get(mount+"/creds/group", "room", "helpdesk")
	require.Equal(t, http.StatusBadRequest, status)
	require.Contains(t, answer.Errors(), "your identity has no value for it")

	// A token without an entity has no room of its own.
	status, answer = root(t).get(mount + "/creds/me")
	require.Equal(t, http.StatusBadRequest, status)
	require.Contains(t, answer.Errors(), "your token has no identity entity")
}

// Somebody who can edit their own metadata can get a literal name from it, never a pattern.
func TestHostileMetadata(t *testing.T) {
	t.Parallel()
	mount, _ := configured(t)
	all, _ := people(t, mount, "eve")
	eve := all["eve"]
	root(t).write(mount+"/roles/team", map[string]any{
		"allowed_rooms_template": true, "allowed_rooms": "team-{{identity.entity.metadata.team}},{{identity.entity.metadata.team}}-*,lobby",
	})
	set := func(value string) {
		eve.write("identity/entity/id/"+eve.entityID, map[string]any{"metadata": map[string]string{"team": value}})
	}
	set("red")
	require.Equal(t, "team-red", eve.read(mount+"/creds/team", "room", "team-red")["room"])
	for _, value := range []string{"*", "blue,*", "{{identity.entity.name}}", ""} {
		set(value)
		for _, room := range []string{"team-red", "team-*", "*", "red-1", "-1", "x"} {
			eve.send(http.MethodGet, mount+"/creds/team?room="+url.QueryEscape(room), "", "").refused(t, "room", value, room)
		}
		require.Equal(t, "lobby", eve.read(mount+"/creds/team", "room", "lobby")["room"])
	}
}
