// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestEvents(t *testing.T) {
	m := newTestMount(t)
	pkcs1 := readTestdata(t, "rsa2048.pkcs1.pem")
	for _, step := range []struct {
		op   logical.Operation
		path string
		data map[string]any
		want []string
	}{
		{logical.UpdateOperation, "config", map[string]any{fieldConsumerID: testConsumer, fieldPrivateKey: pkcs1}, []string{
			"clanmeeting/key-import modified=true operation=key-import path=config version=1",
			"clanmeeting/config-write modified=true operation=config-write path=config",
			"clanmeeting/key-activate modified=true operation=key-activate path=config version=1",
		}},
		{logical.UpdateOperation, "config", map[string]any{fieldIssuer: "x"}, []string{"clanmeeting/config-write modified=true operation=config-write path=config"}},
		{logical.UpdateOperation, "keys/import", map[string]any{fieldPrivateKey: readTestdata(t, "rsa2048.openssh.pem")}, []string{
			"clanmeeting/key-import modified=true operation=key-import path=keys/import version=2",
		}},
		{logical.UpdateOperation, "keys/import", map[string]any{fieldPrivateKey: pkcs1}, nil},
		{logical.UpdateOperation, "keys/generate", nil, []string{"clanmeeting/key-generate modified=true operation=key-generate path=keys/generate version=3"}},
		{logical.UpdateOperation, "config", map[string]any{fieldActiveKey: 2}, []string{
			"clanmeeting/config-write modified=true operation=config-write path=config",
			"clanmeeting/key-activate modified=true operation=key-activate path=config version=2",
		}},
		{logical.DeleteOperation, "keys/3", nil, []string{"clanmeeting/key-delete modified=true operation=key-delete path=keys/3 version=3"}},
		{logical.DeleteOperation, "keys/3", nil, nil},
		{logical.UpdateOperation, "roles/a", map[string]any{fieldAllowedRooms: "a"}, []string{"clanmeeting/role-write modified=true name=a operation=role-write path=roles/a"}},
		{logical.ReadOperation, "creds/a", map[string]any{fieldRoom: "a"}, nil},
		{logical.ReadOperation, "roles/a", nil, nil},
		{logical.DeleteOperation, "roles/a", nil, []string{"clanmeeting/role-delete modified=true name=a operation=role-delete path=roles/a"}},
		{logical.DeleteOperation, "config", nil, []string{"clanmeeting/config-delete modified=true operation=config-delete path=config"}},
		{logical.DeleteOperation, "config", nil, []string{"clanmeeting/config-delete modified=false operation=config-delete path=config"}},
	} {
		m.must(m.call(step.op, step.path, step.data))
		require.Equal(t, step.want, m.events.take(), "%s %s", step.op, step.path)
	}
	m.refused(logical.UpdateOperation, "roles/b", map[string]any{fieldTTL: "2h"})
	m.refused(logical.UpdateOperation, "keys/import", map[string]any{fieldPrivateKey: "x"})
	require.Empty(t, m.events.take(), "a refused write is no event")
}

// OpenBao has no events. Writes there must not log a warning each time.
func TestServerWithoutEvents(t *testing.T) {
	m := newTestMount(t)
	m.events.fail = status.Error(codes.Unimplemented, "unknown service pb.Events")
	m.mustWrite("roles/a", map[string]any{fieldAllowedRooms: "a"})
	m.mustDelete("roles/a")
	require.NotContains(t, m.log.String(), "event not sent")
}

// A request succeeds even if its event can't be sent.
func TestEventsThatFail(t *testing.T) {
	m := newTestMount(t)
	m.events.fail = errors.New("no events here")
	m.mustWrite("roles/a", map[string]any{fieldAllowedRooms: "a"})
	m.mustRead("roles/a", nil)
	require.Contains(t, m.log.String(), "no events here")
}
