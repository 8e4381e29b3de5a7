// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	fieldAllowed     = "allowed"
	fieldReason      = "reason"
	fieldMatchedRule = "matched_rule"
	fieldClaims      = "claims"
)

func (b *backend) pathCheck() *framework.Path {
	check := func(suffix string) *framework.PathOperation {
		return &framework.PathOperation{
			Callback:     b.pathCheckRead, // not refusing: a refusal is what it answers
			Summary:      "Say whether creds would give a token.",
			Responses:    ok(checkResponse()),
			DisplayAttrs: named("check", suffix),
		}
	}
	return &framework.Path{
		Pattern:         "check/" + framework.GenericNameRegex(fieldName),
		Fields:          withName(withBatch(requestFields())),
		Operations:      operationMap{logical.ReadOperation: check(""), logical.UpdateOperation: check("request-with-parameters")},
		HelpSynopsis:    "Say whether a role would give a token, and why not, without making one.",
		HelpDescription: checkHelpDescription,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "request"},
	}
}

func checkResponse() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		fieldAllowed:     {Type: framework.TypeBool, Required: true, Description: "Whether creds would give a token for this request, or tokens for the whole batch."},
		fieldReason:      {Type: framework.TypeString, Description: "The reason of a refusal: the message that creds would give."},
		fieldMatchedRule: {Type: framework.TypeString, Description: "The entry of allowed_rooms that allows the room; allow_wildcard_room for every room. Not for a batch."},
		fieldClaims:      {Type: framework.TypeMap, Description: "The claims that would be signed. Not for a batch."},
	}
}

func (b *backend) pathCheckRead(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get(fieldName).(string)
	_, err := b.currentRole(ctx, req.Storage, name)
	switch {
	case isInvalid(err):
		return refusal(err), nil
	case err != nil:
		return nil, err
	}
	resp, err := b.check(ctx, req, name, d)
	if isInvalid(err) {
		return &logical.Response{Data: map[string]any{fieldAllowed: false, fieldReason: oneLine(err)}}, nil
	}
	return resp, err
}

// check decides as creds does, and signs nothing.
func (b *backend) check(ctx context.Context, req *logical.Request, name string, d *framework.FieldData) (*logical.Response, error) {
	if err := mistakeIn(ctx); err != nil {
		return nil, err
	}
	if _, ok := d.GetOk(fieldBatchInput); ok {
		return b.checkBatch(ctx, req, name, d)
	}
	return b.compute(ctx, func() (*logical.Response, error) {
		i, g, err := b.decideOne(ctx, req, name, d)
		if err != nil {
			return nil, err
		}
		claims := i.snapshot.consumer().Claims(g.room, g.notBefore, g.expiration)
		return &logical.Response{
			Data:     map[string]any{fieldAllowed: true, fieldMatchedRule: g.rule, fieldClaims: claims},
			Warnings: g.warnings,
		}, nil
	})
}

func (b *backend) checkBatch(ctx context.Context, req *logical.Request, name string, d *framework.FieldData) (*logical.Response, error) {
	return b.withBatchItems(ctx, req, name, d, func(ctx context.Context, items []batchItem) (*logical.Response, error) {
		i, err := b.newIssuance(ctx, req, name)
		if err != nil {
			return nil, err
		}
		_, warnings, err := i.decideAll(ctx, items)
		if err != nil {
			return nil, err
		}
		return &logical.Response{Data: map[string]any{fieldAllowed: true}, Warnings: warnings}, nil
	})
}

const checkHelpDescription = `
Takes what creds/<name> takes, makes the same decision for the same caller, and
signs nothing. If creds would give a token, the answer has allowed=true, the
claims that would be signed, and as matched_rule the entry of allowed_rooms that
matches. If not, it has allowed=false, and as reason the message that creds
would give. For a batch, the answer is about all of it, and has only allowed,
and the reason of a refusal. A role that does not exist is refused, as in creds.

    vault read clanmeeting/check/support room=support-4711
    vault read clanmeeting/check/support room=billing
`
