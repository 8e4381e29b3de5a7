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

// What config and keys send is in TestConfigAndKeys. A request succeeds even if its event
// can't be sent, and the log says so. OpenBao has no events: writes there must not log it
// each time.
func TestEventsOfRoles(t *testing.T) {
	m := configured(t)
	m.events.take()
	m.mustWrite("roles/a", map[string]any{fieldAllowedRooms: "a"})
	m.mustRead("creds/a", map[string]any{fieldRoom: "a"})
	m.refused(logical.UpdateOperation, "roles/b", map[string]any{fieldTTL: "2h"})
	m.events.fail = status.Error(codes.Unimplemented, "unknown service pb.Events")
	m.mustDelete("roles/a")
	require.Equal(t, []string{
		"clanmeeting/role-write modified=true name=a operation=role-write path=roles/a",
		"clanmeeting/role-delete modified=true name=a operation=role-delete path=roles/a",
	}, m.events.take())
	require.NotContains(t, m.log.String(), "event not sent")
	m.events.fail = errors.New("no answer")
	m.mustDelete("roles/a")
	require.Contains(t, m.log.String(), "event not sent")
}
