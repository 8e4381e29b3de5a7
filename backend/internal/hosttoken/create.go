// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Package hosttoken makes and judges host tokens: the JWTs with which Clan Meeting's
// server lets somebody host a room. A [Creator] makes them, [Decode] reads one that
// somebody presents, and the [Token] then says what the server would find wrong with it.
package hosttoken

import (
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/golang-jwt/jwt/v5"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

// A Consumer is what the server knows a customer by. All its tokens share it.
type Consumer struct {
	ID       string // the kid of the header, and the sub of the claims
	Audience string
	Issuer   string
}

// header is the JOSE header that the server asks for: it rejects a token without
// typ, and finds the public key by kid.
type header struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	Type      string `json:"typ"`
}

// Claims are all the claims of a token, in the types that the server asks for: aud and
// room one string each (it rejects an array), times in whole seconds since the epoch,
// context an object, never null.
type Claims struct {
	Audience   string    `json:"aud"`
	Context    struct{}  `json:"context"`
	Expiration int64     `json:"exp"`
	Issuer     string    `json:"iss"`
	NotBefore  int64     `json:"nbf"`
	Room       room.Name `json:"room"`
	Subject    string    `json:"sub"`
}

// Claims returns those of a token for the room, which is valid from notBefore until
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

// A Creator makes the tokens of one consumer with one key. It never changes, and may be
// used by several goroutines.
type Creator struct {
	consumer Consumer
	key      *rsakey.Signer

	// header is the first segment, which is the same in every token.
	header string
}

// NewCreator returns the creator of a consumer's tokens.
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
