// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Package hosttoken creates and checks host tokens: the JWTs that let somebody host a room
// on Clan Meeting's server. A [Creator] creates them. [Decode] parses one, and the methods
// of [Token] say why the server would refuse it.
package hosttoken

import (
	"encoding/base64"
	"encoding/json"
	"fmt"

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

// header is the JOSE header that the server requires. It rejects a token without typ, and
// finds the public key by kid.
type header struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	Type      string `json:"typ"`
}

// Claims are all claims of a token, with the types that the server requires: aud and room
// are one string each (it rejects an array), times are whole seconds since the epoch, and
// context is an object, never null.
type Claims struct {
	Audience   string    `json:"aud"`
	Context    struct{}  `json:"context"`
	Expiration int64     `json:"exp"`
	Issuer     string    `json:"iss"`
	NotBefore  int64     `json:"nbf"`
	Room       room.Name `json:"room"`
	Subject    string    `json:"sub"`
}

// Claims returns the claims of a token for the room. It is valid from notBefore until
// expiration, both in seconds since the epoch.
func (c Consumer) Claims(name room.Name, notBefore, expiration int64) Claims {
	return Claims{
		Audience:   c.Audience,
		Expiration: expiration,
		Issuer:     c.Issuer,
		NotBefore:  notBefore,
		Room:       name,
		Subject:    c.ID,
	}
}

// Map returns the claims by their names in the token.
func (c Claims) Map() map[string]any {
	return map[string]any{
		"aud":     c.Audience,
		"context": map[string]any{},
		"exp":     c.Expiration,
		"iss":     c.Issuer,
		"nbf":     c.NotBefore,
		"room":    string(c.Room),
		"sub":     c.Subject,
	}
}

// A Creator creates the tokens of one consumer with one key. It is immutable, and several
// goroutines may use it.
type Creator struct {
	consumer Consumer
	key      *rsakey.Signer

	// header is the first segment, which is the same in every token.
	header string
}

// NewCreator returns a Creator. The error is that of encoding the header.
func NewCreator(c Consumer, key *rsakey.Signer) (*Creator, error) {
	first, err := encodeSegment(header{Algorithm: jwt.SigningMethodRS256.Alg(), KeyID: c.ID, Type: "JWT"})
	if err != nil {
		return nil, err
	}
	return &Creator{consumer: c, key: key, header: first}, nil
}

// Create returns a token for the room: RFC 7515, section 7.1. It is valid from notBefore
// until expiration, both in seconds since the epoch.
func (c *Creator) Create(name room.Name, notBefore, expiration int64) (string, error) {
	claims, err := encodeSegment(c.consumer.Claims(name, notBefore, expiration))
	if err != nil {
		return "", err
	}
	signed := c.header + "." + claims
	signature, err := c.key.Sign([]byte(signed))
	if err != nil {
		return "", err
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// encodeSegment returns the base64url of the JSON of a header or of claims.
func encodeSegment(v any) (string, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encoding the token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw), nil
}
