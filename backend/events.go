// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"strconv"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The operations that are reported to Vault's event system. The type of an event is
// clanmeeting/<operation>.
const (
	eventConfigWrite  = "config-write"
	eventConfigDelete = "config-delete"
	eventKeyImport    = "key-import"
	eventKeyGenerate  = "key-generate"
	eventKeyActivate  = "key-activate"
	eventKeyDelete    = "key-delete"
	eventRoleWrite    = "role-write"
	eventRoleDelete   = "role-delete"
)

const eventTypePrefix = "clanmeeting/"

// sendEvent tells subscribers what was done, with the same metadata as the database and
// ldap engines: the path of the request, and whether it changed data. The pairs are
// further metadata. A request succeeds even if its event can't be sent.
func (b *backend) sendEvent(ctx context.Context, req *logical.Request, operation string, modified bool, pairs ...string) {
	metadata := append([]string{
		logical.EventMetadataOperation, operation,
		logical.EventMetadataPath, req.Path,
		logical.EventMetadataModified, strconv.FormatBool(modified),
	}, pairs...)
	err := logical.SendEvent(ctx, b, eventTypePrefix+operation, metadata...)
	// OpenBao has no events, and returns these errors.
	if err != nil && !errors.Is(err, framework.ErrNoEvents) && status.Code(err) != codes.Unimplemented {
		b.Logger().Warn("event not sent", "operation", operation, "path", req.Path, "error", err)
	}
}
