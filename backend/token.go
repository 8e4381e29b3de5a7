// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

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

// tokenRequest is what a caller asks of a role. A zero field was not asked for.
type tokenRequest struct {
	room      string
	ttl       time.Duration
	notBefore *time.Time // in whole seconds
}

// A grant is what a role allows of a request.
type grant struct {
	room       room
	rule       string // the rule that allows the room
	notBefore  int64  // seconds since the epoch
	expiration int64  // seconds since the epoch
	warnings   []string
}

// grant decides what becomes of a caller's request at the time now. A refusal is
// the caller's mistake.
func (r *role) grant(req tokenRequest, c *caller, now time.Time) (*grant, error) {
	granted, rule, err := r.grantRoom(req.room, c)
	if err != nil {
		return nil, err
	}
	mount := logical.StaticSystemView{MaxLeaseTTLVal: c.maxTTL, DefaultLeaseTTLVal: c.maxTTL}
	ttl, warnings, err := framework.CalculateTTL(mount, req.ttl, r.TTL, 0, r.MaxTTL, 0, time.Time{})
	if err != nil {
		return nil, err
	}
	now = now.Truncate(time.Second)
	g := &grant{
		room:       granted,
		rule:       rule,
		notBefore:  now.Add(-r.NotBeforeDuration).Unix(),
		expiration: now.Add(ttl).Unix(),
		warnings:   warnings,
	}
	if req.notBefore == nil {
		return g, nil
	}
	if err := r.checkStart(*req.notBefore, now); err != nil {
		return nil, err
	}
	g.notBefore, g.expiration = req.notBefore.Unix(), req.notBefore.Add(ttl).Unix()
	switch life := g.expiration - now.Unix(); {
	case life <= 0:
		return nil, invalid("%s lies so far back that the token would have expired already; leave it out for a token for now", fieldNotBefore)
	case r.GenerateLease && life > int64(c.maxTTL.Seconds()):
		// Vault would cut the lease, which then ends before the token.
		return nil, invalid("%s is so far ahead that a lease to the token's end would be over the mount's maximum; ask nearer to the time, or use a role without %s", fieldNotBefore, fieldGenerateLease)
	}
	return g, nil
}

// checkStart holds a scheduled start against the role's limits on either side of
// now. All times are in whole seconds.
func (r *role) checkStart(start, now time.Time) error {
	switch {
	case start.After(now) && r.MaxNotBefore == 0:
		return invalid("%s is in the future, and this role does not schedule; leave it out, or have %s set on the role", fieldNotBefore, fieldMaxNotBefore)
	case start.After(now.Add(r.MaxNotBefore)):
		return invalid("%s is further ahead than the %s of this role's %s; ask nearer to the time, and give a number in seconds, not milliseconds", fieldNotBefore, r.MaxNotBefore, fieldMaxNotBefore)
	case start.Before(now.Add(-r.NotBeforeDuration)):
		return invalid("%s is more than %s in the past; leave it out for a token for now", fieldNotBefore, r.NotBeforeDuration)
	}
	return nil
}
