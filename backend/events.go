// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The operations that are reported to Vault's event system. The type of an event is
// clanmeeting/<operation>.
const (
	eventConfigWrite      = "config-write"
	eventConfigDelete     = "config-delete"
	eventKeyImport        = "key-import"
	eventKeyGenerate      = "key-generate"
	eventKeyActivate      = "key-activate"
	eventKeyDelete        = "key-delete"
	eventRoleWrite        = "role-write"
	eventRoleDelete       = "role-delete"
	eventRolesDeleteEnded = "roles-delete-ended"
)

const eventTypePrefix = "clanmeeting/"

// An event is an operation that was done.
type event struct {
	operation string
	unchanged bool     // whether it left the data as they were
	metadata  []string // pairs, beside those that every event has
}

func keyEvent(operation string, version int) event {
	return event{operation: operation, metadata: []string{fieldVersion, strconv.Itoa(version)}}
}

// eventTimeout is how long the events of a request may take.
const eventTimeout = 10 * time.Second

// sendEvents tells subscribers what was done, with the same metadata as the database and
// ldap engines: the path of the request, and whether it changed data. It is called
// without a lock, because each event is a call to Vault. A request succeeds even if its
// events can't be sent, and they are sent even if its caller has given up.
func (b *backend) sendEvents(ctx context.Context, req *logical.Request, events []event) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), eventTimeout)
	defer cancel()
	for _, e := range events {
		metadata := append([]string{
			logical.EventMetadataOperation, e.operation,
			logical.EventMetadataPath, req.Path,
			logical.EventMetadataModified, strconv.FormatBool(!e.unchanged),
		}, e.metadata...)
		err := logical.SendEvent(ctx, b, eventTypePrefix+e.operation, metadata...)
		// OpenBao has no events, and returns these errors.
		if err != nil && !errors.Is(err, framework.ErrNoEvents) && status.Code(err) != codes.Unimplemented {
			b.Logger().Warn("event not sent", "operation", e.operation, "path", req.Path, "error", err)
		}
	}
}
