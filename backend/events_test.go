// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What config and keys send is in TestConfigAndKeys.
func TestEventsOfRoles(t *testing.T) {
	m := configured(t)
	m.events.take()
	m.mustWrite("roles/a", map[string]any{fieldAllowedRooms: "a"})
	m.mustRead("creds/a", map[string]any{fieldRoom: "a"})
	m.refused(logical.UpdateOperation, "roles/b", map[string]any{fieldTTL: "2h"})
	m.mustDelete("roles/a")
	require.Equal(t, []string{
		"clanmeeting/role-write modified=true name=a operation=role-write path=roles/a",
		"clanmeeting/role-delete modified=true name=a operation=role-delete path=roles/a",
	}, m.events.take())
}

// A request succeeds even if its event can't be sent, and a warning says so. OpenBao has no
// events: writes there must not log it each time.
func TestEventsThatFail(t *testing.T) {
	for fault, logged := range map[error]bool{
		errors.New("no events here"): true, status.Error(codes.Unimplemented, "unknown service pb.Events"): false,
	} {
		m := newTestMount(t)
		m.events.fail = fault
		m.mustWrite("roles/a", map[string]any{fieldAllowedRooms: "a"})
		m.mustRead("roles/a", nil)
		require.Equal(t, logged, strings.Contains(m.log.String(), "event not sent"), "%v", fault)
	}
}
