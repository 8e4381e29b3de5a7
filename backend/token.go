// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

// tokenHeader is the JOSE header that the meeting server asks for: it rejects a
// token without typ, and finds the public key by kid.
type tokenHeader struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	Type      string `json:"typ"`
}

// claims are all the claims of a token, in the types that the meeting server
// asks for: aud and room one string each (an array is rejected), times in whole
// seconds since the epoch, context an object, never null.
type claims struct {
	Audience   string   `json:"aud"`
	Context    struct{} `json:"context"`
	Expiration int64    `json:"exp"`
	Issuer     string   `json:"iss"`
	NotBefore  int64    `json:"nbf"`
	Room       string   `json:"room"`
	Subject    string   `json:"sub"`
}

// asMap is the claims under their names in the token.
func (c claims) asMap() map[string]any {
	return map[string]any{
		"aud":     c.Audience,
		"context": map[string]any{},
		"exp":     c.Expiration,
		"iss":     c.Issuer,
		"nbf":     c.NotBefore,
		"room":    c.Room,
		"sub":     c.Subject,
	}
}
