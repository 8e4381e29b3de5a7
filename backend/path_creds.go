// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
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

// secretTypeToken is the type of a token's lease.
const secretTypeToken = "clanmeeting_token"

func (b *backend) pathCreds() *framework.Path {
	return &framework.Path{
		Pattern: "creds/" + framework.GenericNameRegex(fieldName),
		Fields:  withName(withBatch(requestFields())),
		Operations: operationMap{
			logical.ReadOperation: onAnyNode(b.pathCredsRead, "Get a host token.", ok(credsResponse()), named("generate", "")),
			logical.UpdateOperation: onAnyNode(b.pathCredsRead, "Get a host token, or a batch of them.", ok(credsOrBatchResponse()),
				named("generate", "credentials-with-parameters")),
		},
		HelpSynopsis:    "Get a token that makes its holder the host of a meeting.",
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
the role has allow_wildcard_room. An empty one is refused. Default: the
role's default_room.`,
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

func credsResponse() map[string]*framework.FieldSchema {
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

// credsOrBatchResponse are those of one token, or of a batch.
func credsOrBatchResponse() map[string]*framework.FieldSchema {
	fields := credsResponse()
	for _, field := range fields {
		field.Required = false
	}
	fields[fieldBatchResults] = &framework.FieldSchema{
		Type:        framework.TypeSlice,
		Description: "The results of a batch, in the order of its items: for each one the data of a single answer, and its reference.",
	}
	return fields
}

// secretToken describes the lease that comes with a token. It has no Renew, so the lease can't
// be renewed.
func (b *backend) secretToken() *framework.Secret {
	return &framework.Secret{
		Type:   secretTypeToken,
		Fields: credsResponse(),
		// A signed token can't be recalled: the lease ends, but the token works until
		// it expires.
		Revoke: func(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
			return nil, nil
		},
	}
}

func (b *backend) pathCredsRead(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get(fieldName).(string)
	if _, ok := d.GetOk(fieldBatchInput); ok {
		return b.credsBatch(ctx, req, name, d)
	}
	return retryIfChanged(func() (*logical.Response, error) {
		return b.compute(ctx, func() (*logical.Response, error) { return b.creds(ctx, req, name, d) })
	})
}

// creds answers with one token. It decides after the wait in the line, which may be longer
// than a token's life.
func (b *backend) creds(ctx context.Context, req *logical.Request, name string, d *framework.FieldData) (*logical.Response, error) {
	i, g, err := b.decideOne(ctx, req, name, d)
	if err != nil {
		return nil, err
	}
	if i.role.GenerateLease && b.system.onPerformanceStandby() {
		// Only the active node can register a lease; this makes Vault forward.
		return nil, logical.ErrReadOnly
	}
	data, err := i.sign(ctx, g)
	if err != nil {
		return nil, err
	}
	resp := &logical.Response{Data: data}
	if i.role.GenerateLease {
		resp = b.Secret(secretTypeToken).Response(data, nil)
		resp.Secret.TTL = time.Duration(data[fieldTTL].(int64)) * time.Second
		resp.Secret.MaxTTL = resp.Secret.TTL
	}
	resp.Warnings = g.warnings
	return resp, nil
}

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
