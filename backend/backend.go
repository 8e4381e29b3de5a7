// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Package backend is a Vault secrets engine for Clan Meeting. It keeps the consumer's
// private key, and signs short-lived RS256 tokens with it, within the limits of a role.
// A token makes its holder the host of a room.
//
// A read of creds/<role> goes straight down: path_creds.go asks for an [issuance], which has
// the [terms] (the role, the caller's values and the mount's limit) and the [snapshot] of
// configuration and key. The terms decide the request, which yields a [grant], and the
// snapshot's key signs a token for it. state.go says what is cached, and what waits for what.
//
// What does not need Vault is in packages of its own: rsakey has the private key and its
// signatures, hosttoken the token, and room the names of rooms and the rules for them.
package backend

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

// operationPrefix begins the OpenAPI operation IDs of this engine.
const operationPrefix = "clan-meeting"

// backend is one mount of the engine.
type backend struct {
	*framework.Backend

	now     func() time.Time // the clock, which tests set
	system  *systemView
	process *process
	state   *state

	// swept is how many roles periodic has looked at in this round.
	swept int
}

// SignatureLibrary names the library that makes the signatures, with its version.
func SignatureLibrary() string { return rsakey.Library() }

// Factory returns the constructor that Vault calls for every mount. The engine reports
// the version as its own. It must be a semantic version with a leading "v". Call it once
// in a process: the mounts share what it makes.
func Factory(version string) logical.Factory {
	return factory(version, time.Now) //nolint:forbidigo // the one place that names the real clock
}

func factory(version string, now func() time.Time) logical.Factory {
	shared := newProcess()
	return func(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
		if conf == nil {
			return nil, errors.New("the backend's configuration is nil")
		}
		b := &backend{now: now, system: newSystemView(conf.System, now), process: shared, state: newState(shared.mounts.Add(1))}
		b.Backend = b.framework(version)
		viewed := *conf
		viewed.System = b.system
		if err := b.Setup(ctx, &viewed); err != nil {
			return nil, fmt.Errorf("setting up the backend: %w", err)
		}
		return b, nil
	}
}

func (b *backend) framework(version string) *framework.Backend {
	return &framework.Backend{
		BackendType:    logical.TypeLogical,
		Help:           strings.TrimSpace(backendHelp),
		RunningVersion: version,
		Invalidate:     b.invalidate,
		PeriodicFunc:   b.periodic,
		Clean:          func(context.Context) { b.process.roles.dropMount(b.state.mount) },
		Paths: framework.PathAppend(
			[]*framework.Path{b.pathConfig()},
			b.pathKeys(),
			b.pathRoles(),
			[]*framework.Path{b.pathCreds(), b.pathCheck(), b.pathVerify()},
		),
		PathsSpecial: &logical.Paths{
			// The slash at the end makes it a prefix. Vault compares any other
			// entry with the whole storage path.
			SealWrapStorage: []string{keyPrefix},
		},
		Secrets: []*framework.Secret{b.secretToken()},
	}
}

// HandleRequest implements logical.Backend. In addition to the framework, it refuses
// names and values that could be misunderstood, logs faults, and turns a panic into a
// fault of one request.
func (b *backend) HandleRequest(ctx context.Context, req *logical.Request) (resp *logical.Response, err error) {
	defer func() {
		b.logFault(ctx, "request failed", err, "operation", req.Operation, "path", room.Shorten(req.Path))
	}()
	defer recovered(b.Logger(), &err)
	if err := checkPath(req.Path); err != nil {
		return refusal(err), nil
	}
	if path := b.pathOf(req); path != nil {
		if err := checkNames(req.Data, path.Fields); err != nil {
			return refusal(err), nil
		}
		if err := takeValues(req.Data, path.Fields); err != nil {
			// The framework must not see the values. The handler answers, because check
			// answers with the reason.
			ctx, req.Data = context.WithValue(ctx, mistakeKey{}, err), nil
		}
	}
	resp, err = b.Backend.HandleRequest(ctx, req)
	if errors.Is(err, logical.ErrUnsupportedOperation) && b.Route(req.Path) != nil {
		// The error makes it a 405, the response is its text.
		resp = logical.ErrorResponse(b.unsupported(req))
	}
	if isEmpty(resp) {
		// Handlers return an empty response, not nil, so that the framework can
		// add its warning about unknown fields. If there is no warning, nil
		// becomes the 204 that Vault's clients expect.
		return nil, err
	}
	return resp, err
}

// pathOf returns the path whose fields describe the data of the request; nil if there
// is none. Vault's own requests, such as revoking a lease, carry other data.
func (b *backend) pathOf(req *logical.Request) *framework.Path {
	switch req.Operation {
	case logical.RenewOperation, logical.RevokeOperation, logical.RollbackOperation, logical.RotationOperation, logical.HelpOperation:
		return nil
	}
	if len(req.Data) == 0 {
		return nil
	}
	return b.Route(req.Path)
}

// HandleExistenceCheck implements logical.Backend. Whether an entry exists depends only
// on the path. The framework does not get the data: its error would repeat a field's
// value, and Vault logs that error.
func (b *backend) HandleExistenceCheck(ctx context.Context, req *logical.Request) (checkFound, exists bool, err error) {
	defer recovered(b.Logger(), &err)
	if checkPath(req.Path) != nil {
		return false, false, nil // HandleRequest refuses it
	}
	bare := *req
	bare.Data = nil
	checkFound, exists, err = b.Backend.HandleExistenceCheck(ctx, &bare)
	if errors.Is(err, errCorrupt) {
		return true, true, nil // the handler says what is wrong with the entry
	}
	b.logFault(ctx, "existence check failed", err, "path", room.Shorten(req.Path))
	return checkFound, exists, err
}

// maxRoleName is the maximum length of a role's name, in characters. Storage has limits
// of its own, above which it fails.
const maxRoleName = 255

// longName matches a path with the name of a role, and a name that is too long.
var longName = regexp.MustCompile(fmt.Sprintf(`^(?:roles|creds|check)/([\w.-]{%d,})$`, maxRoleName+1))

// checkPath refuses what storage would reject.
func checkPath(path string) error {
	if strings.Contains(path, "..") {
		return invalid("a name in the path must not have two dots in a row")
	}
	if long := longName.FindStringSubmatch(path); long != nil {
		return invalid("the name of a role must have at most %d characters; this one begins with %q", maxRoleName, room.Shorten(long[1]))
	}
	return nil
}

// unsupported says which operations the path of a request has.
func (b *backend) unsupported(req *logical.Request) string {
	var commands []string
	for op := range b.Route(req.Path).Operations {
		commands = append(commands, command(op))
	}
	slices.Sort(commands)
	asked := command(req.Operation)
	if asked == "" { // such as OPTIONS, which is not an operation of Vault
		asked = "such operation"
	}
	return fmt.Sprintf("this path has no %s; it has %s", asked, strings.Join(slices.Compact(commands), ", "))
}

// command is what Vault's CLI calls an operation.
func command(op logical.Operation) string {
	if op == logical.CreateOperation || op == logical.UpdateOperation {
		return "write"
	}
	return string(op)
}

func isEmpty(resp *logical.Response) bool {
	return resp != nil && resp.Data == nil && resp.Secret == nil && len(resp.Warnings) == 0
}

const backendHelp = `
The Clan Meeting secrets engine keeps the private key that Clan Meeting gave
you, and signs tokens with it. A token makes its holder the host of one room for
a few minutes. The key never leaves Vault.

The security team configures the key and writes roles. A role says which rooms a
token may be for, and how long it lives. Applications read tokens within the
limits of a role:

    vault write clanmeeting/config consumer_id=acme domain=meet.example.com \
      private_key=@cm-api-key.pem
    vault write clanmeeting/roles/support allowed_rooms='support-*' \
      ttl=5m max_ttl=5m
    vault read clanmeeting/creds/support room=support-4711

Each path below has its own help. In all examples the engine is mounted at
clanmeeting/.

    vault path-help clanmeeting/creds/support
`
