// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const fieldValid = "valid"

func (b *backend) pathVerify() *framework.Path {
	return &framework.Path{
		Pattern: "verify",
		Fields: map[string]*framework.FieldSchema{
			fieldToken: {
				Type:     framework.TypeString,
				Required: true,
				Description: `The token that was presented: the JWT alone, which in a meeting's link
follows jwt=. White space around it is skipped. Required.`,
				DisplayAttrs: &framework.DisplayAttributes{Name: "Token", Sensitive: true},
			},
			fieldRoom: {
				Type: framework.TypeString,
				Description: `The room that it was presented for, 1 to 255 of a-z, 0-9, "_" and "-".
Default: none, and the room is not compared.`,
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback: b.pathVerifyWrite,
				Summary:  "Tell why the meeting server would turn a token away.",
				Responses: map[int][]framework.Response{
					http.StatusOK: {{Description: "OK", Fields: map[string]*framework.FieldSchema{
						fieldValid:      {Type: framework.TypeBool, Required: true, Description: "Whether the meeting server would take the token now."},
						fieldReason:     {Type: framework.TypeString, Description: "Why it would not."},
						fieldClaims:     {Type: framework.TypeMap, Description: "The claims of the token, believed or not. A number that a float64 does not hold is given as text."},
						fieldKeyVersion: {Type: framework.TypeInt, Description: "The key version that signed the token; if one did."},
					}}},
				},
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "verify", OperationSuffix: "token"},
			},
		},
		HelpSynopsis:    verifyHelpSynopsis,
		HelpDescription: verifyHelpDescription,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix},
	}
}

func (b *backend) pathVerifyWrite(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	token, _, err := stringField(d, fieldToken)
	if err != nil {
		return refuse(err)
	}
	token = strings.TrimSpace(token) // a file's last line end
	if token == "" {
		return refuse(invalid("%s is required: the token that was presented, as in %s=@token.txt", fieldToken, fieldToken))
	}
	name, _, err := stringField(d, fieldRoom)
	if err != nil {
		return refuse(err)
	}
	var wanted room
	if name != "" {
		if wanted, err = parseRoom(fieldRoom, name); err != nil {
			return refuse(err)
		}
	}
	cfg, keys, err := b.verificationKeys(ctx, req)
	if err != nil {
		return refuse(err)
	}
	return b.verify(token, wanted, cfg, keys), nil
}

func (b *backend) verify(token string, wanted room, cfg *config, keys []versionedKey) *logical.Response {
	presented, err := decodeToken(token)
	if err != nil {
		return &logical.Response{Data: map[string]any{fieldValid: false, fieldReason: err.Error()}}
	}
	data := map[string]any{fieldClaims: sendable(presented.claims)}
	resp := &logical.Response{Data: data, Warnings: presented.remarks()}
	version, reason := presented.checkSignature(cfg.ConsumerID, keys)
	if reason == "" {
		data[fieldKeyVersion] = version
		reason = strings.Join(presented.checkClaims(cfg, wanted, b.now()), "; ")
	}
	data[fieldValid] = reason == ""
	if reason != "" {
		data[fieldReason] = reason
	}
	return resp
}

// verificationKeys are the public halves of all stored keys, the active one first,
// then the newest, and the configuration that goes with them.
func (b *backend) verificationKeys(ctx context.Context, req *logical.Request) (*config, []versionedKey, error) {
	b.configLock.RLock()
	defer b.configLock.RUnlock()
	cfg, err := loadConfig(ctx, req.Storage)
	if err != nil {
		return nil, nil, err
	}
	if !cfg.configured() {
		return nil, nil, errNotConfigured(req.MountPoint)
	}
	versions, err := listKeys(ctx, req.Storage)
	if err != nil {
		return nil, nil, err
	}
	slices.Reverse(versions)
	if i := slices.Index(versions, cfg.ActiveKey); i > 0 {
		versions = slices.Insert(slices.Delete(versions, i, i+1), 0, cfg.ActiveKey)
	}
	var keys []versionedKey
	for _, version := range versions {
		entry, err := loadKey(ctx, req.Storage, version)
		if err != nil {
			return nil, nil, err
		}
		if entry != nil { // deleted by another node meanwhile
			keys = append(keys, versionedKey{version, &entry.key.PublicKey})
		}
	}
	return cfg, keys, nil
}

const verifyHelpSynopsis = `Tell why a host with a token was turned away.`

const verifyHelpDescription = `
Looks at a token as the meeting server does, and says as valid whether the
server would take it now and, if not, as reason why: it is malformed, signed by
another key, expired, not valid yet, for another room, of the wrong audience,
issuer or consumer. All key versions of this mount are tried. No algorithm but
RS256 is accepted, whatever the token says of itself, and there is no leeway in
time, as there is none on the server.

The claims are returned also of a token that is not valid. Refused: no token,
and a mount that is not configured.

    vault read -field=token clanmeeting/creds/support room=support-1 > token.txt
    vault write clanmeeting/verify token=@token.txt room=support-1
`
