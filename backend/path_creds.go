// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	fieldRoom       = "room"
	fieldNotBefore  = "not_before"
	fieldToken      = "token"
	fieldExpiration = "expiration"
	fieldKeyVersion = "key_version"
	fieldMeetingURL = "meeting_url"
)

// secretTypeToken is the type of the lease on a token.
const secretTypeToken = "clanmeeting_token"

func (b *backend) pathCreds() *framework.Path {
	fields := withName(requestFields())
	fields[fieldBatchInput] = &framework.FieldSchema{
		Type: framework.TypeSlice,
		Description: `On a write, instead of room, ttl and not_before: a list of 1 to 1,000
objects. Each may have these fields, and a reference, a text that is
returned with its result. Either all get a token or none does. Not for a
role with generate_lease. Default: none, for a single token.`,
	}
	return &framework.Path{
		Pattern: "creds/" + framework.GenericNameRegex(fieldName),
		Fields:  fields,
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:     b.pathCredsRead,
				Summary:      "Get a host token.",
				Responses:    map[int][]framework.Response{http.StatusOK: {{Description: "OK", Fields: credsResponseFields()}}},
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "generate"},
			},
			logical.UpdateOperation: &framework.PathOperation{
				Callback:     b.pathCredsRead,
				Summary:      "Get a host token, or a batch of them.",
				Responses:    map[int][]framework.Response{http.StatusOK: {{Description: "OK", Fields: credsOrBatchResponseFields()}}},
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "generate", OperationSuffix: "credentials-with-parameters"},
			},
		},
		HelpSynopsis:    credsHelpSynopsis,
		HelpDescription: credsHelpDescription,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "credentials"},
	}
}

func requestFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		fieldRoom: {
			Type:  framework.TypeString,
			Query: true,
			Description: `The room that the token is for: 1 to 255 of a-z, 0-9, "_" and "-"; upper
case becomes lower case. The role must allow it. "*" is every room, if
the role has allow_wildcard_room. Default: the role's default_room.`,
		},
		fieldTTL: {
			Type:  framework.TypeDurationSecond,
			Query: true,
			Description: `The life of the token, in seconds or like 90s, 15m, 1h. If it is over
the role's max_ttl or the mount's maximum, it is cut, with a warning.
Default: the role's ttl.`,
		},
		fieldNotBefore: {
			Type:  framework.TypeTime,
			Query: true,
			Description: `For a scheduled meeting: when the token becomes valid, as RFC 3339 like
2030-01-31T09:00:00Z, or in seconds since the epoch. Its life counts
from then. At most max_not_before of the role ahead, or any time in the
role's window. Default: now, or the role's valid_from.`,
		},
	}
}

func credsResponseFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		fieldToken:      {Type: framework.TypeString, Required: true, Description: "The host token, a JWT."},
		fieldRoom:       {Type: framework.TypeString, Required: true, Description: "The room that the token is for."},
		fieldConsumerID: {Type: framework.TypeString, Required: true, Description: "The consumer that the room belongs to."},
		fieldDomain:     {Type: framework.TypeString, Description: "The host name of the meetings, if the configuration has one."},
		fieldNotBefore:  {Type: framework.TypeInt64, Required: true, Description: "When the token becomes valid, in seconds since the epoch."},
		fieldExpiration: {Type: framework.TypeInt64, Required: true, Description: "When the token expires, in seconds since the epoch."},
		fieldTTL:        {Type: framework.TypeInt64, Required: true, Description: "Seconds from now until the token expires."},
		fieldKeyVersion: {Type: framework.TypeInt, Required: true, Description: "The key version that signed the token."},
		fieldMeetingURL: {Type: framework.TypeString, Description: "The link that opens the room as its host, if the configuration has a domain and the token is for one room."},
	}
}

// credsOrBatchResponseFields are those of one token, or of a batch.
func credsOrBatchResponseFields() map[string]*framework.FieldSchema {
	fields := credsResponseFields()
	for _, field := range fields {
		field.Required = false
	}
	fields[fieldBatchResults] = &framework.FieldSchema{
		Type:        framework.TypeSlice,
		Description: "The results of a batch, in the order of its items: for each one the data of a single answer, and its reference.",
	}
	return fields
}

// secretToken is the lease on a token. Without a Renew it is not renewable.
func (b *backend) secretToken() *framework.Secret {
	return &framework.Secret{
		Type:   secretTypeToken,
		Fields: credsResponseFields(),
		// A signed token can't be recalled: the lease ends, but the token works until
		// it expires.
		Revoke: func(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
			return nil, nil
		},
	}
}

func (b *backend) pathCredsRead(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	for {
		resp, err := b.creds(ctx, req, d)
		if errors.Is(err, errChanged) {
			continue // decide again, with what is stored now
		}
		if err == nil {
			// Last of all: the process may have been suspended at any moment before.
			err = b.watch.check(b.Logger())
		}
		if err != nil {
			return refuse(err)
		}
		return resp, nil
	}
}

// creds answers with a token, or with a batch of them.
func (b *backend) creds(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	if err := b.watch.check(b.Logger()); err != nil {
		return nil, err
	}
	r, err := b.requestedRole(ctx, req, d)
	if err != nil {
		return nil, err
	}
	if r.GenerateLease && b.onPerformanceStandby() {
		// Only the active node can register a lease; this makes Vault forward.
		return nil, logical.ErrReadOnly
	}
	i, err := b.newIssuance(ctx, req, r)
	if err != nil {
		return nil, err
	}
	if _, ok := d.GetOk(fieldBatchInput); ok {
		many := &batch{issuance: i, unchanged: b.unchanged(req, d, r), schema: batchItemFields()}
		return many.answer(ctx, req, d)
	}
	g, err := i.grant(ctx, parseTokenRequest(d))
	if err != nil {
		return nil, err
	}
	data, err := i.mint(ctx, g)
	if err != nil {
		return nil, err
	}
	resp := &logical.Response{Data: data}
	if r.GenerateLease {
		resp = b.Secret(secretTypeToken).Response(data, nil)
		resp.Secret.TTL = time.Duration(i.life(g)) * time.Second
		resp.Secret.MaxTTL = resp.Secret.TTL
	}
	resp.Warnings = g.warnings
	return resp, nil
}

// unchanged returns a function that returns errChanged once the role has changed, and
// errSuspended after a suspension. A batch takes seconds, and meanwhile somebody may
// restrict the role.
func (b *backend) unchanged(req *logical.Request, d *framework.FieldData, r *role) func(context.Context) error {
	name := d.Get(fieldName).(string)
	return func(ctx context.Context) error {
		if err := b.watch.check(b.Logger()); err != nil {
			return err
		}
		current, err := b.roles.get(ctx, req.Storage, name)
		if err != nil || current == r {
			return err
		}
		// The cache may have dropped the role and loaded it again.
		if current != nil && reflect.DeepEqual(current.storedRole, r.storedRole) {
			return nil
		}
		return errChanged
	}
}

const credsHelpSynopsis = `Get a token that makes its holder the host of a meeting.`

//nolint:gosec // G101: a help text is no credential, though its name has "creds" in it
const credsHelpDescription = `
Signs a token for one room, with the active key and within the limits of the
role. A read takes room, ttl and not_before as query parameters, a write takes
them as fields; the answer is the same. With batch_input, a write asks for up to
1,000 tokens, as JSON from standard input or a file.

Nothing is stored, and a token can't be recalled. It works until it expires, so
ask for one when it is needed. The meeting server checks it when the host
connects, not during the meeting.

Refused: a role that does not exist or has ended; a room that the role does not
allow; no room, if the role has no default_room; a not_before further ahead than
the role's max_not_before, outside its window, or in the past. A ttl over the
role's max_ttl or the mount's maximum is cut, with a warning. To see why a
request is refused, or which rule allows it, send the same request to
check/<name>.

A batch is all or nothing: if an item is refused, no token is made. The message
names the refused items, up to 20.

    vault read clanmeeting/creds/support room=support-4711
    vault read -field=token clanmeeting/creds/support room=support-4711 ttl=2m

A token for a meeting in an hour, if the role has max_not_before; and two tokens
at once:

    vault read clanmeeting/creds/webinar room=launch \
      not_before=$(($(date +%s) + 3600))
    echo '{"batch_input":[{"room":"support-1"},{"room":"support-2"}]}' |
      vault write -format=json clanmeeting/creds/support -
`
