// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Package hosttoken signs and checks host tokens: the JWTs that let somebody host a room
// on Clan Meeting's server. [Consumer.Sign] makes one. [Decode] parses one, and the methods
// of [Token] say why the server would refuse it.
package hosttoken

import (
	"github.com/golang-jwt/jwt/v5"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

// A Consumer is how the server knows a customer. All tokens of a customer have these
// values.
type Consumer struct {
	ID       string // the kid of the header, and the sub of the claims
	Audience string
	Issuer   string
}

// Claims returns all claims of a token for the room. It is valid from notBefore until
// expiration, both in seconds since the epoch. The types are those that the server
// requires: aud and room are one string each (it rejects an array), times are integers, and
// context is an object, never null.
func (c Consumer) Claims(name room.Name, notBefore, expiration int64) map[string]any {
	return map[string]any{
		"aud":     c.Audience,
		"context": map[string]any{},
		"exp":     expiration,
		"iss":     c.Issuer,
		"nbf":     notBefore,
		"room":    string(name),
		"sub":     c.ID,
	}
}

// Sign returns a token with those claims. The server finds the public key by kid. The error
// is a [*rsakey.SignError].
func (c Consumer) Sign(key *rsakey.PrivateKey, name room.Name, notBefore, expiration int64) (string, error) {
	token := jwt.NewWithClaims(rs256{}, jwt.MapClaims(c.Claims(name, notBefore, expiration)))
	token.Header["kid"] = c.ID
	return token.SignedString(key)
}

// rs256 is the algorithm RS256 with keys of package rsakey, which may sign with OpenSSL.
type rs256 struct{}

func (rs256) Alg() string { return jwt.SigningMethodRS256.Alg() }

// Sign takes a [*rsakey.PrivateKey].
func (rs256) Sign(signed string, key any) ([]byte, error) {
	return key.(*rsakey.PrivateKey).Sign([]byte(signed))
}

// Verify takes a [*rsakey.PublicKey].
func (rs256) Verify(signed string, signature []byte, key any) error {
	return key.(*rsakey.PublicKey).Verify([]byte(signed), signature)
}
