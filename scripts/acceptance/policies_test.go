// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// The policies of examples/policies, unchanged: what each allows, and that no other allows
// it.
func TestPolicies(t *testing.T) {
	t.Parallel()
	mount := unique(t)
	t.Cleanup(func() { root(t).call(http.MethodDelete, "sys/mounts/"+mount, nil) })
	holders := map[string]client{}
	files, err := filepath.Glob("../../examples/policies/*.hcl")
	require.NoError(t, err)
	for _, file := range files {
		own := strings.NewReplacer(`"clanmeeting/`, `"`+mount+`/`, `"sys/mounts/clanmeeting`, `"sys/mounts/`+mount)
		holders[strings.TrimSuffix(filepath.Base(file), ".hcl")] = root(t).as(own.Replace(document(t, file)))
	}
	require.Len(t, holders, 8)
	// The device that the auditor's policy names.
	root(t).write("sys/audit/file", map[string]any{"type": "file", "options": map[string]any{"file_path": filepath.Join(t.TempDir(), "audit.log")}})
	t.Cleanup(func() { root(t).call(http.MethodDelete, "sys/audit/file", nil) })

	_, private := newKey(t)
	inClear := map[string]any{"audit_non_hmac_request_keys": []any{"private_key"}, "audit_non_hmac_response_keys": []any{"token"}}
	tune, catalog := "sys/mounts/"+mount+"/tune", "sys/plugins/catalog/secret/"+devvault.PluginName
	for _, request := range []struct {
		method, path string
		body         any
		may          string // the policies that allow it
	}{
		// Whoever enables the mount can do what no policy allows for an existing one.
		{http.MethodPost, "sys/mounts/" + mount, map[string]any{"type": devvault.PluginName, "config": inClear}, "operator"},
		{http.MethodPost, mount + "/config", map[string]any{"consumer_id": "acme", "private_key": private}, "key-custodian incident"},
		{http.MethodPost, mount + "/roles/support", map[string]any{"allowed_rooms": "support-*"}, "role-manager incident"},
		{http.MethodPost, mount + "/roles/support", map[string]any{"ttl": "1m"}, "role-manager incident"},
		{http.MethodGet, mount + "/creds/support?room=support-1", nil, "app"},
		{http.MethodPost, mount + "/creds/support", map[string]any{"room": "support-1"}, ""},
		{http.MethodGet, mount + "/check/support?room=support-1", nil, "role-manager"},
		{http.MethodGet, mount + "/roles?list=true", nil, "role-manager auditor incident key-custodian"},
		{http.MethodGet, mount + "/roles/support", nil, "role-manager auditor incident key-custodian"},
		{http.MethodDelete, mount + "/roles/other", nil, "role-manager incident"},
		{http.MethodPost, mount + "/roles/event-7", map[string]any{"allowed_rooms": "x"}, "role-manager event-manager incident"},
		{http.MethodGet, mount + "/roles/event-7", nil, "role-manager event-manager auditor incident key-custodian"},
		{http.MethodGet, mount + "/check/event-7?room=x", nil, "role-manager event-manager"},
		{http.MethodGet, mount + "/creds/event-7?room=x", nil, ""},
		{http.MethodPost, mount + "/roles/eventual", map[string]any{"allowed_rooms": "x"}, "role-manager incident"},
		{http.MethodDelete, mount + "/roles/event-7", nil, "role-manager event-manager incident"},
		{http.MethodGet, mount + "/config", nil, "key-custodian auditor incident"},
		{http.MethodGet, mount + "/keys?list=true", nil, "key-custodian auditor incident"},
		{http.MethodGet, mount + "/keys/1", nil, "key-custodian auditor incident"},
		{http.MethodPost, mount + "/keys/generate", nil, "key-custodian incident"},
		{http.MethodDelete, mount + "/keys/2", nil, "key-custodian incident"},
		{http.MethodPost, mount + "/verify", map[string]any{"token": "a.b.c"}, "support incident"},
		{http.MethodDelete, mount + "/config", nil, "key-custodian incident"},
		{http.MethodPost, "sys/audit-hash/file", map[string]any{"input": "support-1"}, "auditor incident"},
		{http.MethodGet, "sys/mounts", nil, "operator"},
		{http.MethodGet, "sys/plugins/catalog", nil, "operator"},
		{http.MethodGet, "sys/audit", nil, "key-custodian auditor"},
		{http.MethodPost, "sys/audit/other", map[string]any{"type": "file"}, ""},
		{http.MethodGet, "auth/token/accessors?list=true", nil, "incident"},
		{http.MethodGet, tune, nil, "operator key-custodian auditor"},
		{http.MethodPost, tune, map[string]any{"max_lease_ttl": "24h"}, "operator"},
		// The mount could be enabled again, see above.
		{http.MethodDelete, "sys/mounts/" + mount, nil, ""},
		// The audit log would contain the key and every token.
		{http.MethodPost, tune, map[string]any{"audit_non_hmac_request_keys": "private_key"}, ""},
		{http.MethodPost, tune, map[string]any{"audit_non_hmac_response_keys": "token"}, ""},
		// Somebody would get a policy, or the value of a template.
		{http.MethodPost, "identity/entity/id/x", map[string]any{"policies": "app"}, ""},
		{http.MethodPost, "auth/approle/role/support-app/secret-id", map[string]any{"metadata": `{"room":"board"}`}, ""},
		// Another program would run instead of the plugin.
		{http.MethodPost, catalog, map[string]any{"version": "v9.0.0", "oci_image": "other"}, ""},
		{http.MethodPost, catalog, map[string]any{"version": "v9.0.0", "command": "other", "runtime": "other"}, ""},
		{http.MethodPost, catalog, map[string]any{"version": "v9.0.0", "command": "other", "env": "A=b"}, ""},
	} {
		may := strings.Fields(request.may)
		for name, holder := range holders {
			if !slices.Contains(may, name) {
				status, _ := holder.call(request.method, request.path, request.body)
				require.Equal(t, http.StatusForbidden, status, "%s %s by %s", request.method, request.path, name)
			}
		}
		for _, name := range may { // in the end: they change what the others would ask for
			status, answer := holders[name].call(request.method, request.path, request.body)
			require.Less(t, status, http.StatusBadRequest, "%s %s by %s: %s", request.method, request.path, name, answer.Errors())
		}
	}
	require.Subset(t, holders["key-custodian"].read(tune), inClear, "so the key custodian must look")
}

// The traps of policy parameters that docs/security.md names.
func TestPolicyParameters(t *testing.T) {
	t.Parallel()
	mount, _ := configured(t)
	root(t).write(mount+"/roles/any", map[string]any{"allowed_rooms": "*", "default_room": "lobby"})
	for _, test := range []struct {
		parameters, body, room string
	}{
		{`allowed_parameters = { "room" = ["a"] }`, `{"room": "b"}`, "refused"},
		{`allowed_parameters = { "room" = ["a"] }`, `{}`, "lobby"},
		{`allowed_parameters = { "room" = ["a"] } required_parameters = ["room"]`, `{}`, "refused"},
		{`denied_parameters = { "room" = ["board"] }`, `{"room": "board"}`, "refused"},
		{`denied_parameters = { "room" = ["board"] }`, `{"room": "Board"}`, "board"},
	} {
		holder := root(t).as(`path "` + mount + `/creds/any" { capabilities = ["update"] ` + test.parameters + ` }`)
		status, answer := holder.post(mount+"/creds/any", test.body)
		if test.room == "refused" {
			require.Equal(t, http.StatusForbidden, status, "%s %s", test.parameters, test.body)
		} else {
			require.Equal(t, test.room, answer.Data()["room"], "%s %s: %s", test.parameters, test.body, answer.Errors())
		}
	}
}

// Vault says who calls: everybody uses the same path, and gets only their own rooms. What a
// template can name, and what a value may be, is tested in backend.
func TestPersonalRooms(t *testing.T) {
	t.Parallel()
	mount, key := configured(t)
	admin, auth := root(t), unique(t)
	admin.write("sys/auth/"+auth, map[string]any{"type": "userpass"})
	t.Cleanup(func() { admin.call(http.MethodDelete, "sys/auth/"+auth, nil) })
	accessor := admin.read("sys/auth/" + auth)["accessor"].(string)
	admin.write("sys/policies/acl/"+auth, map[string]any{"policy": `path "` + mount + `/creds/me" { capabilities = ["read"] }`})
	admin.write(mount+"/roles/me", map[string]any{
		"allowed_rooms_template": true, "default_room": "{{identity.entity.id}}",
		"allowed_rooms": "{{identity.entity.id}},u-{{identity.entity.aliases." + accessor + ".name}},{{identity.groups.names." + auth + ".metadata.room}}",
	})
	people, ids := map[string]client{}, map[string]string{}
	for _, name := range []string{"alice", "bob"} {
		admin.write("auth/"+auth+"/users/"+name, map[string]any{"password": "correct horse", "token_policies": auth})
		_, answer := admin.post("auth/"+auth+"/login/"+name, map[string]any{"password": "correct horse"})
		login := answer["auth"].(map[string]any)
		people[name], ids[name] = admin.with(login["client_token"]), login["entity_id"].(string)
	}
	admin.write("identity/group", map[string]any{"name": auth, "member_entity_ids": ids["bob"], "metadata": map[string]string{"room": "helpdesk"}})

	for name, person := range people {
		data := person.read(mount + "/creds/me")
		require.Equal(t, ids[name], data["room"])
		require.Equal(t, ids[name], verify(t, data["token"].(string), key)["room"])
		require.Equal(t, "u-"+name, person.read(mount+"/creds/me", "room", "U-"+name)["room"])
	}
	require.Equal(t, "helpdesk", people["bob"].read(mount+"/creds/me", "room", "helpdesk")["room"])
	for _, room := range []string{ids["bob"], "u-bob", "helpdesk"} {
		people["alice"].send(http.MethodGet, mount+"/creds/me?room="+room, "", "").refused(t, "not allowed", room)
	}
	admin.send(http.MethodGet, mount+"/creds/me", "", "").refused(t, "your token has no identity entity")
}
