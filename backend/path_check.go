// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	fieldAllowed     = "allowed"
	fieldReason      = "reason"
	fieldMatchedRule = "matched_rule"
	fieldClaims      = "claims"
)

const checkPrefix = "check/"

func (b *backend) pathCheck() *framework.Path {
	responses := map[int][]framework.Response{
		http.StatusOK: {{Description: "OK", Fields: checkResponseFields()}},
	}
	return &framework.Path{
		Pattern: checkPrefix + framework.GenericNameRegex(fieldName),
		Fields:  withName(requestFields()),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:     b.pathCheckRead,
				Summary:      "Say whether creds would give a token.",
				Responses:    responses,
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "check"},
			},
			logical.UpdateOperation: &framework.PathOperation{
				Callback:     b.pathCheckRead,
				Summary:      "Say whether creds would give a token.",
				Responses:    responses,
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "check", OperationSuffix: "request-with-parameters"},
			},
		},
		HelpSynopsis:    checkHelpSynopsis,
		HelpDescription: checkHelpDescription,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "request"},
	}
}

func checkResponseFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		fieldAllowed:     {Type: framework.TypeBool, Required: true, Description: "Whether creds would give a token for this request."},
		fieldReason:      {Type: framework.TypeString, Description: "The reason of a refusal: the message that creds would give."},
		fieldMatchedRule: {Type: framework.TypeString, Description: "The entry of allowed_rooms that allows the room; allow_wildcard_room for every room."},
		fieldClaims:      {Type: framework.TypeMap, Description: "The claims that would be signed."},
	}
}

func (b *backend) pathCheckRead(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	r, err := b.requestedRole(ctx, req, d)
	if err != nil {
		return refuse(err)
	}
	var g *grant
	i, err := b.newIssuance(ctx, req, r)
	if err == nil {
		g, err = i.grant(ctx, parseTokenRequest(d))
	}
	if isInvalid(err) {
		return checkRefused(err), nil
	}
	if err != nil {
		return nil, err
	}
	return &logical.Response{
		Data: map[string]any{
			fieldAllowed:     true,
			fieldMatchedRule: g.rule,
			fieldClaims:      i.signer.consumer.Claims(g.room, g.notBefore, g.expiration),
		},
		Warnings: g.warnings,
	}, nil
}

// refuseCheck answers a request with wrong values. As for any refusal, the message is the
// same as that of creds.
func (b *backend) refuseCheck(ctx context.Context, req *logical.Request, mistake error) (*logical.Response, error) {
	name := strings.TrimPrefix(req.Path, checkPrefix)
	if _, err := b.namedRole(ctx, req, name); err != nil {
		return refuse(err)
	}
	return checkRefused(mistake), nil
}

func checkRefused(mistake error) *logical.Response {
	return &logical.Response{Data: map[string]any{fieldAllowed: false, fieldReason: oneLine(mistake)}}
}

const checkHelpSynopsis = `Say whether a role would give a token, and why not, without making one.`

const checkHelpDescription = `
Takes room, ttl and not_before as creds/<name> does, makes the same decision for
the same caller, and signs nothing. If creds would give a token, the answer has
allowed=true, the claims that would be signed, and as matched_rule the entry of
allowed_rooms that matches. If not, it has allowed=false, and as reason the
message that creds would give. A role that does not exist is refused, as in
creds.

    vault read clanmeeting/check/support room=support-4711
    vault read clanmeeting/check/support room=billing
`
