// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Package backend is a Vault secrets engine that makes somebody the host of a
// Clan Meeting room: it keeps the consumer's private key and signs short-lived
// RS256 tokens with it, within the limits of a role.
//
// A read of creds/<role> goes straight down: path_creds.go loads the role, and
// decision.go holds the request against it: the role makes a [grant] of it, and
// beside it comes the [signer]. The two make [claims], and the claims a token.
package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// operationPrefix begins the OpenAPI operation IDs of this engine.
const operationPrefix = "clan-meeting"

// backend is one mount of the engine.
type backend struct {
	*framework.Backend

	// now is the clock, in the engine's tests a fixed one.
	now func() time.Time

	// vault is the system view as Vault gave it; System remembers some of it.
	vault logical.SystemView

	// configLock is held for writing while the configuration or a key changes,
	// and for reading while a signer is loaded from them. So a signer that was
	// loaded before a change can never be kept after it.
	configLock sync.RWMutex

	// cached is the signer in use, nil when it must be loaded. It is set under
	// configLock; reading it needs no lock.
	cached atomic.Pointer[signer]

	roles *roleCache
}

// Factory returns the constructor that Vault calls for every mount. The version
// is what the engine reports of itself: a semantic version with a leading "v".
func Factory(version string) logical.Factory {
	return factory(version, time.Now) //nolint:forbidigo // the one place that names the real clock
}

func factory(version string, now func() time.Time) logical.Factory {
	return func(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
		if conf == nil {
			return nil, errors.New("the backend's configuration is nil")
		}
		b := newBackend(version, now)
		b.vault = conf.System
		viewed := *conf
		viewed.System = &systemView{SystemView: conf.System, now: now}
		if err := b.Setup(ctx, &viewed); err != nil {
			return nil, fmt.Errorf("setting up the backend: %w", err)
		}
		return b, nil
	}
}

func newBackend(version string, now func() time.Time) *backend {
	b := &backend{now: now, roles: newRoleCache()}
	b.Backend = &framework.Backend{
		BackendType:    logical.TypeLogical,
		Help:           strings.TrimSpace(backendHelp),
		RunningVersion: version,
		Invalidate:     b.invalidate,
		Paths: framework.PathAppend(
			[]*framework.Path{b.pathConfig()},
			b.pathKeys(),
			b.pathRoles(),
			[]*framework.Path{b.pathCreds(), b.pathCheck(), b.pathVerify()},
		),
		PathsSpecial: &logical.Paths{
			// A prefix only because it ends in a slash: Vault compares any
			// other entry with the whole storage path.
			SealWrapStorage: []string{keyPrefix},
		},
		Secrets: []*framework.Secret{b.secretToken()},
	}
	return b
}

// HandleRequest is the logical.Backend implementation. Around the framework's
// own it mends what the plugin protocol does to values, keeps values out of error
// messages, and logs faults.
func (b *backend) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	if hasRelativePath(req) {
		return logical.ErrorResponse("a name in the path must not have two dots in a row"), nil
	}
	restoreData(req.Data)
	resp, err := b.Backend.HandleRequest(ctx, req)
	if isFieldError(resp) {
		resp = logical.ErrorResponse(b.fieldErrors(req))
	}
	if errors.Is(err, logical.ErrUnsupportedOperation) && b.Route(req.Path) != nil {
		// The error makes it a 405, the response is its text.
		resp = logical.ErrorResponse(b.unsupported(req))
	}
	if isFault(err) {
		b.Logger().Error("request failed", "operation", req.Operation, "path", req.Path, "error", err)
	}
	if isEmpty(resp) {
		// Handlers answer with an empty response, not with nil, so that the
		// framework can hang its warning about unknown fields on it. Without
		// one, nil makes it the 204 that Vault's clients expect.
		return nil, err
	}
	return resp, err
}

// HandleExistenceCheck is the logical.Backend implementation. Whether an entry
// exists depends on the path alone. The data stay out of it, because Vault logs
// why a check failed and the framework's reason repeats a field's value.
func (b *backend) HandleExistenceCheck(ctx context.Context, req *logical.Request) (checkFound, exists bool, err error) {
	if hasRelativePath(req) {
		return false, false, nil // HandleRequest refuses it
	}
	bare := *req
	bare.Data = nil
	checkFound, exists, err = b.Backend.HandleExistenceCheck(ctx, &bare)
	if isFault(err) {
		b.Logger().Error("existence check failed", "path", req.Path, "error", err)
	}
	return checkFound, exists, err
}

// hasRelativePath tells of a path that Vault's storage would call a fault.
func hasRelativePath(req *logical.Request) bool { return strings.Contains(req.Path, "..") }

// invalidate is called where another node changed an entry of the storage; key
// is its path below the mount.
func (b *backend) invalidate(_ context.Context, key string) {
	if key == configStoragePath || strings.HasPrefix(key, keyPrefix) {
		b.configLock.Lock()
		defer b.configLock.Unlock()
		b.cached.Store(nil)
	}
	if name, ok := strings.CutPrefix(key, rolePrefix); ok {
		b.roles.forget(name)
	}
}

// unsupported tells which operations the path of a request has.
func (b *backend) unsupported(req *logical.Request) string {
	var commands []string
	for op := range b.Route(req.Path).Operations {
		commands = append(commands, command(op))
	}
	slices.Sort(commands)
	return fmt.Sprintf("this path has no %s; it has %s", command(req.Operation), strings.Join(slices.Compact(commands), ", "))
}

// command is what Vault's CLI calls an operation.
func command(op logical.Operation) string {
	if op == logical.CreateOperation || op == logical.UpdateOperation {
		return "write"
	}
	return string(op)
}

// isFault tells an error of the engine or its storage from those by which a
// backend answers that it has no such path or that another node must serve it, and
// from a request that was given up.
func isFault(err error) bool {
	return err != nil &&
		!errors.Is(err, logical.ErrUnsupportedPath) &&
		!errors.Is(err, logical.ErrUnsupportedOperation) &&
		!errors.Is(err, logical.ErrReadOnly) &&
		!errors.Is(err, context.Canceled)
}

func isEmpty(resp *logical.Response) bool {
	return resp != nil && resp.Data == nil && resp.Secret == nil && len(resp.Warnings) == 0
}

const backendHelp = `
The Clan Meeting secrets engine makes an application the host of a meeting room.
It keeps the private key that Clan Meeting gave you, and signs tokens with it
that live for minutes and open one room each. The key never leaves Vault.

The security team configures the key, and writes roles, which say which rooms a
token may be for and how long it lives. An application reads its tokens within
the limits of a role:

    vault write clanmeeting/config consumer_id=acme domain=meet.example.com \
      private_key=@cm-api-key.pem
    vault write clanmeeting/roles/support allowed_rooms='support-*' ttl=5m
    vault read clanmeeting/creds/support room=support-4711

Each path below has help of its own. In all examples the engine is mounted at
clanmeeting/.

    vault path-help clanmeeting/creds/support
`
