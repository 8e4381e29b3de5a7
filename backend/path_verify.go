// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strings"
	"unicode"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/hosttoken"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
)

const fieldValid = "valid"

func (b *backend) pathVerify() *framework.Path {
	return &framework.Path{
		Pattern: "verify",
		Fields: map[string]*framework.FieldSchema{
			fieldToken: {
				Type:     framework.TypeString,
				Required: true,
				Description: `The token that was presented: the JWT, or the whole link of the meeting,
which has it after jwt=. White space and a byte-order mark around it are
ignored. Required.`,
				DisplayAttrs: &framework.DisplayAttributes{Name: "Token", Sensitive: true},
			},
			fieldRoom: {
				Type: framework.TypeString,
				Description: `The room that it was presented for, 1 to 255 of a-z, 0-9, "_" and "-".
Default: none; the room is then not compared.`,
			},
		},
		Operations: operationMap{
			logical.UpdateOperation: onAnyNode(b.pathVerifyWrite, "Say why the meeting server would refuse a token.", ok(verifyResponse()), named("verify", "token")),
		},
		HelpSynopsis:    "Say why a host with a token was refused.",
		HelpDescription: verifyHelpDescription,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix},
	}
}

func verifyResponse() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		fieldValid:      {Type: framework.TypeBool, Required: true, Description: "Whether the meeting server would accept the token now."},
		fieldReason:     {Type: framework.TypeString, Description: "Every reason why it would not."},
		fieldClaims:     {Type: framework.TypeMap, Description: "The claims of the token, whether it is valid or not. A whole number of 2^53 or more is returned as text."},
		fieldKeyVersion: {Type: framework.TypeInt, Description: "The key version that signed the token, if one did."},
	}
}

func (b *backend) pathVerifyWrite(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	token := presentedToken(d.Get(fieldToken).(string))
	if token == "" {
		return nil, invalid("%s is required: the JWT that was presented, or the link that has it after jwt=; from a file as %s=@token.txt", fieldToken, fieldToken)
	}
	var wanted room.Name
	if name, ok := d.GetOk(fieldRoom); ok {
		var err error
		if wanted, err = room.ParseName(name.(string)); err != nil {
			return nil, errNoRoomName(fieldRoom, name.(string))
		}
	}
	ring, err := b.currentKeyring(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	if !ring.config.configured() {
		return nil, errNotConfigured(req.MountPoint)
	}
	return b.compute(ctx, func() (*logical.Response, error) { return b.verify(token, wanted, ring), nil })
}

// presentedToken returns the token of a request, empty if there is none. Around it may be
// white space and a byte-order mark, which come from a file, and the link of a meeting. A
// token has no "?", so what follows one is the query of a link.
func presentedToken(text string) string {
	text = strings.TrimFunc(text, func(r rune) bool { return unicode.IsSpace(r) || r == '\ufeff' })
	_, query, isLink := strings.Cut(text, "?")
	if !isLink {
		return text
	}
	query, _, _ = strings.Cut(query, "#")
	parameters, _ := url.ParseQuery(query) // what else is in the link may be wrong
	return parameters.Get("jwt")
}

// verify judges a token.
func (b *backend) verify(token string, wanted room.Name, ring *keyring) *logical.Response {
	consumer, active := ring.config.consumer(), ring.config.ActiveKey
	presented, err := hosttoken.Decode(token)
	if err != nil {
		return &logical.Response{Data: map[string]any{fieldValid: false, fieldReason: err.Error()}}
	}
	data := map[string]any{fieldClaims: sendable(presented.Claims)}
	resp := &logical.Response{Data: data, Warnings: presented.Remarks(consumer)}
	version := 0
	refused := presented.CheckHeader(consumer)
	if refused == nil {
		if version = ring.signerOf(presented); version == 0 {
			refused = errNoSigner
		}
	}
	if refused == nil {
		data[fieldKeyVersion] = version
		refused = presented.CheckClaims(consumer, wanted, b.now())
	}
	data[fieldValid] = refused == nil
	switch {
	case refused != nil:
		data[fieldReason] = oneLine(refused)
	case version != active:
		resp.AddWarning(fmt.Sprintf("key version %d, which is not the active one, signed this token; it works only while Clan Meeting has the public half of that version", version))
	}
	for _, k := range ring.versions {
		if k.err != nil {
			resp.AddWarning(fmt.Sprintf("key version %d can't be read from storage and was not tried", k.version))
		}
	}
	return resp
}

// sendable prepares decoded JSON for the plugin protocol, which turns every number into
// a float64. Numbers that a float64 can't represent become strings. Objects and lists are
// copied.
func sendable(value any) any {
	switch v := value.(type) {
	case json.Number:
		if f, err := v.Float64(); err != nil || math.Abs(f) >= maxExact {
			return v.String()
		}
	case []any:
		items := make([]any, len(v))
		for i := range v {
			items[i] = sendable(v[i])
		}
		return items
	case map[string]any:
		members := make(map[string]any, len(v))
		for name := range v {
			members[name] = sendable(v[name])
		}
		return members
	}
	return value
}

var errNoSigner = errors.New("signed by another key, or changed since: no key version of this mount verifies it")

const verifyHelpDescription = `
Checks a token as the meeting server does. In the answer, valid says whether the
server would accept the token now. If not, reason says why: the token is
malformed, too long, signed by another key, expired, not valid yet, for another
room, or has a wrong audience, issuer, consumer or context. There is no leeway
in time, as there is none on the server. All key versions of this mount are
tried. No algorithm but RS256 is accepted, whatever the token says. The claims
are returned even if the token is not valid.

Warnings name mistakes that the server tolerates, such as a token that never
expires. A warning says if an inactive key version signed the token, because
Vault can't know whether Clan Meeting still has its public half. Another names
each version that can't be read from storage.

verify is stricter than the server on purpose with what no library makes: it
calls invalid a token with one character changed even if that changes nothing, a
number as room, and claims that are nested more than 100 levels deep.

Refused: no token, a room that is empty or not a name, and a mount that is not
configured.

    vault write clanmeeting/verify token=@token.txt room=support-1
    vault write clanmeeting/verify \
      token='https://meet.example.com/acme/support-1?jwt=eyJhbGci...'
`
