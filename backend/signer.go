// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/golang-jwt/jwt/v5"
	"github.com/hashicorp/vault/sdk/logical"
)

// A signer is the configuration and its active key at one moment. It does not
// change, so a token is wholly of one configuration.
type signer struct {
	consumerID string
	audience   string
	issuer     string
	domain     string
	keyVersion int
	key        *rsa.PrivateKey

	// header is the token's first segment, which depends on the consumer alone.
	header string
}

// signer returns the signer in use. A mount that is not configured, or has no
// active key, is the caller's mistake; mount is named in what it should write.
func (b *backend) signer(ctx context.Context, s logical.Storage, mount string) (*signer, error) {
	if cached := b.cached.Load(); cached != nil {
		return cached, nil
	}
	b.configLock.RLock()
	defer b.configLock.RUnlock()
	loaded, err := loadSigner(ctx, s, mount)
	if err != nil {
		return nil, err
	}
	b.cached.Store(loaded)
	return loaded, nil
}

func loadSigner(ctx context.Context, s logical.Storage, mount string) (*signer, error) {
	cfg, err := loadConfig(ctx, s)
	if err != nil {
		return nil, err
	}
	if !cfg.configured() {
		return nil, errNotConfigured(mount)
	}
	if cfg.ActiveKey == 0 {
		return nil, invalid("this mount has no active key; write %s to %sconfig, or %s to choose one that is stored", fieldPrivateKey, mount, fieldActiveKey)
	}
	key, err := loadActiveKey(ctx, s, cfg)
	if err != nil {
		return nil, err
	}
	return newSigner(cfg, key)
}

func errNotConfigured(mount string) error {
	return invalid("this mount is not configured; write %s and %s to %sconfig", fieldConsumerID, fieldPrivateKey, mount)
}

// loadActiveKey returns the key that signs; a configuration that names a version
// which is not stored is a fault.
func loadActiveKey(ctx context.Context, s logical.Storage, cfg *config) (*rsa.PrivateKey, error) {
	entry, err := loadKey(ctx, s, cfg.ActiveKey)
	if err != nil {
		return nil, err
	}
	if entry == nil {
		return nil, fmt.Errorf("the active key %q is missing from storage", keyPath(cfg.ActiveKey))
	}
	return entry.key, nil
}

func newSigner(cfg *config, key *rsa.PrivateKey) (*signer, error) {
	header, err := segment(tokenHeader{
		Algorithm: jwt.SigningMethodRS256.Alg(),
		KeyID:     cfg.ConsumerID,
		Type:      "JWT",
	})
	if err != nil {
		return nil, err
	}
	return &signer{
		consumerID: cfg.ConsumerID,
		audience:   cfg.Audience,
		issuer:     cfg.Issuer,
		domain:     cfg.Domain,
		keyVersion: cfg.ActiveKey,
		key:        key,
		header:     header,
	}, nil
}

// claims are those of a token for what the role granted.
func (s *signer) claims(g *grant) claims {
	return claims{
		Audience:   s.audience,
		Expiration: g.expiration,
		Issuer:     s.issuer,
		NotBefore:  g.notBefore,
		Room:       string(g.room),
		Subject:    s.consumerID,
	}
}

// sign makes a token of the claims: RFC 7515, section 7.1.
func (s *signer) sign(c claims) (string, error) {
	payload, err := segment(c)
	if err != nil {
		return "", err
	}
	signed := s.header + "." + payload
	signature, err := jwt.SigningMethodRS256.Sign(signed, s.key)
	if err != nil {
		return "", fmt.Errorf("signing with key version %d: %w", s.keyVersion, err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// meetingURL is the link that opens the room as its host, as Clan Meeting's SDK
// builds it; empty without a domain, and for a token that is for every room.
func (s *signer) meetingURL(r room, token string) string {
	if s.domain == "" || r == everyRoom {
		return ""
	}
	return "https://" + s.domain + "/" + s.consumerID + "/" + string(r) + "?jwt=" + token
}

// segment is the base64url of the JSON of a header or of claims.
func segment(v any) (string, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encoding the token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw), nil
}
