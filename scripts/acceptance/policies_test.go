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

// attempt is a request, and the names of the policies that allow it.
type attempt struct {
	method, path string
	body         any
	may          []string
}

// try sends the request with each policy's token. Those that allow it come last.
func (a attempt) try(t *testing.T, holders map[string]client) {
	t.Helper()
	for name, holder := range holders {
		if !slices.Contains(a.may, name) {
			status, _ := holder.call(a.method, a.path, a.body)
			require.Equal(t, http.StatusForbidden, status, "%s %s by %s", a.method, a.path, name)
		}
	}
	for _, name := range a.may {
		status, answer := holders[name].call(a.method, a.path, a.body)
		require.Less(t, status, http.StatusBadRequest, "%s %s by %s: %s", a.method, a.path, name, answer.Errors())
	}
}

// The policies of examples/policies, unchanged: what each allows, and that no other allows
// it.
func TestPolicies(t *testing.T) {
	t.Parallel()
	mount, _ := configured(t)
	holders := map[string]client{}
	files, err := filepath.Glob("../../examples/policies/*.hcl")
	require.NoError(t, err)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".hcl")
		own := strings.NewReplacer(`"clanmeeting/`, `"`+mount+`/`, `"sys/mounts/clanmeeting`, `"sys/mounts/`+mount)
		holders[name] = root(t).as(own.Replace(examplePolicy(t, name)))
	}
	require.Len(t, holders, 8)
	// The device that the auditor's policy names.
	root(t).write("sys/audit/file", map[string]any{"type": "file", "options": map[string]any{"file_path": filepath.Join(t.TempDir(), "audit.log")}})
	t.Cleanup(func() { root(t).call(http.MethodDelete, "sys/audit/file", nil) })

	token := root(t).read(mount+"/creds/support", "room", "support-1")["token"]
	tune, catalog := "sys/mounts/"+mount+"/tune", "sys/plugins/catalog/secret/"+devvault.PluginName
	for _, request := range []attempt{
		{http.MethodGet, mount + "/creds/support?room=support-1", nil, []string{"app"}},
		{http.MethodPost, mount + "/creds/support", map[string]any{"room": "support-1"}, nil},
		{http.MethodGet, mount + "/creds/other?room=support-1", nil, nil},
		{http.MethodGet, mount + "/check/support?room=support-1", nil, []string{"role-manager"}},
		{http.MethodGet, mount + "/roles?list=true", nil, []string{"role-manager", "auditor", "incident", "key-custodian"}},
		{http.MethodGet, mount + "/roles/support", nil, []string{"role-manager", "auditor", "incident", "key-custodian"}},
		{http.MethodPost, mount + "/roles/support", map[string]any{"ttl": "1m"}, []string{"role-manager", "incident"}},
		{http.MethodPost, mount + "/roles/other", map[string]any{"allowed_rooms": "x"}, []string{"role-manager", "incident"}},
		{http.MethodDelete, mount + "/roles/other", nil, []string{"role-manager", "incident"}},
		{http.MethodPost, mount + "/roles/event-7", map[string]any{"allowed_rooms": "x", "valid_from": 2_000_000_000}, []string{"role-manager", "event-manager", "incident"}},
		{http.MethodGet, mount + "/roles/event-7", nil, []string{"role-manager", "event-manager", "auditor", "incident", "key-custodian"}},
		{http.MethodGet, mount + "/check/event-7?room=x", nil, []string{"role-manager", "event-manager"}},
		{http.MethodGet, mount + "/creds/event-7?room=x", nil, nil},
		{http.MethodPost, mount + "/roles/eventual", map[string]any{"allowed_rooms": "x"}, []string{"role-manager", "incident"}},
		{http.MethodDelete, mount + "/roles/event-7", nil, []string{"role-manager", "event-manager", "incident"}},
		{http.MethodGet, mount + "/config", nil, []string{"key-custodian", "auditor", "incident"}},
		{http.MethodPost, mount + "/config", map[string]any{"issuer": "production"}, []string{"key-custodian", "incident"}},
		{http.MethodGet, mount + "/keys?list=true", nil, []string{"key-custodian", "auditor", "incident"}},
		{http.MethodGet, mount + "/keys/1", nil, []string{"key-custodian", "auditor", "incident"}},
		{http.MethodPost, mount + "/keys/generate", nil, []string{"key-custodian", "incident"}},
		{http.MethodDelete, mount + "/keys/2", nil, []string{"key-custodian", "incident"}},
		{http.MethodPost, mount + "/verify", map[string]any{"token": token}, []string{"support", "incident"}},
		{http.MethodDelete, mount + "/config", nil, []string{"key-custodian", "incident"}},
		{http.MethodPost, "sys/audit-hash/file", map[string]any{"input": "support-1"}, []string{"auditor", "incident"}},
		{http.MethodGet, "sys/mounts", nil, []string{"operator"}},
		{http.MethodGet, "sys/plugins/catalog", nil, []string{"operator"}},
		{http.MethodGet, "sys/audit", nil, []string{"key-custodian", "auditor"}},
		{http.MethodPost, "sys/audit/other", map[string]any{"type": "file"}, nil},
		{http.MethodGet, "auth/token/accessors?list=true", nil, []string{"incident"}},
		{http.MethodGet, tune, nil, []string{"operator", "key-custodian", "auditor"}},
		{http.MethodPost, tune, map[string]any{"max_lease_ttl": "24h"}, []string{"operator"}},
		// An administrator's, see docs/reliability.md.
		{http.MethodGet, "sys/storage/raft/configuration", nil, nil},
		// The mount could be enabled again, see below.
		{http.MethodDelete, "sys/mounts/" + mount, nil, nil},
		// The audit log would contain the key and every token.
		{http.MethodPost, tune, map[string]any{"audit_non_hmac_request_keys": "private_key"}, nil},
		{http.MethodPost, tune, map[string]any{"audit_non_hmac_response_keys": "token"}, nil},
		// Another program would run instead of the plugin.
		{http.MethodPost, catalog, map[string]any{"version": "v9.0.0", "oci_image": "other"}, nil},
		{http.MethodPost, catalog, map[string]any{"version": "v9.0.0", "command": "other", "runtime": "other"}, nil},
		{http.MethodPost, catalog, map[string]any{"version": "v9.0.0", "command": "other", "env": "A=b"}, nil},
	} {
		request.try(t, holders)
	}

	// Whoever enables the mount can do what no policy allows for an existing one. The key
	// custodian sees it.
	status, _ := root(t).call(http.MethodDelete, "sys/mounts/"+mount, nil)
	require.Equal(t, http.StatusNoContent, status)
	inClear := map[string]any{"audit_non_hmac_request_keys": []any{"private_key"}, "audit_non_hmac_response_keys": []any{"token"}}
	attempt{http.MethodPost, "sys/mounts/" + mount, map[string]any{"type": devvault.PluginName, "config": inClear}, []string{"operator"}}.try(t, holders)
	tuning := holders["key-custodian"].read(tune)
	for name, fields := range inClear {
		require.Equal(t, fields, tuning[name])
	}
}

// The traps of policy parameters that docs/security.md names.
func TestPolicyParameters(t *testing.T) {
	t.Parallel()
	mount, _ := configured(t)
	root(t).write(mount+"/roles/any", map[string]any{"allowed_rooms": "*", "default_room": "lobby"})
	path := `path "` + mount + `/creds/any" { capabilities = ["update"] `
	for _, test := range []struct {
		policy, room string
		want         int
	}{
		{`allowed_parameters = { "room" = ["a"] } }`, "a", http.StatusOK},
		{`allowed_parameters = { "room" = ["a"] } }`, "b", http.StatusForbidden},
		{`allowed_parameters = { "room" = ["a"] } }`, "", http.StatusOK}, // the lobby
		{`allowed_parameters = { "room" = ["a"] } required_parameters = ["room"] }`, "", http.StatusForbidden},
		{`denied_parameters = { "room" = ["board"] } }`, "board", http.StatusForbidden},
		{`denied_parameters = { "room" = ["board"] } }`, "Board", http.StatusOK}, // the room is board
	} {
		body := map[string]any{}
		if test.room != "" {
			body["room"] = test.room
		}
		status, answer := root(t).as(path+test.policy).post(mount+"/creds/any", body)
		require.Equal(t, test.want, status, "%s %q: %s", test.policy, test.room, answer.Errors())
	}
}
