// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/golang-jwt/jwt/v5"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

// A signer is the configuration and its active key at one moment. It does not
// change, so a token is wholly of one configuration.
type signer struct {
	consumerID string
	audience   string
	issuer     string
	domain     string
	keyVersion int
	private    *rsakey.PrivateKey

	// header is the token's first segment, which depends on the consumer alone.
	header string

	// fence is raised when the configuration or the key has been replaced.
	fence fence
}

// signer returns the signer in use. A mount that is not configured, or has no
// active key, is the caller's mistake, and the error names what to write to mount.
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
	// There is one signer at a time, so that its fence holds up every signature.
	if !b.cached.CompareAndSwap(nil, loaded) {
		loaded = b.cached.Load()
	}
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
	active, err := loadActiveKey(ctx, s, cfg)
	if err != nil {
		return nil, err
	}
	return newSigner(cfg, active.private)
}

func errNotConfigured(mount string) error {
	return invalid("this mount is not configured; write %s and %s to %sconfig", fieldConsumerID, fieldPrivateKey, mount)
}

// loadActiveKey returns the key that signs; a configuration that names a version
// which is not stored is a fault.
func loadActiveKey(ctx context.Context, s logical.Storage, cfg *config) (*key, error) {
	active, err := loadKey(ctx, s, cfg.ActiveKey)
	if err == nil && active == nil {
		err = fmt.Errorf("the active key %q is missing from storage", keyPath(cfg.ActiveKey))
	}
	return active, err
}

func newSigner(cfg *config, private *rsakey.PrivateKey) (*signer, error) {
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
		private:    private,
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

// token signs the claims, unless the signer has been replaced: RFC 7515, section 7.1.
// After replacing it was acknowledged, no token is signed with its key.
func (s *signer) token(c claims) (token string, err error) {
	err = s.fence.pass(func() error {
		token, err = s.sign(c)
		return err
	})
	return token, err
}

func (s *signer) sign(c claims) (string, error) {
	payload, err := segment(c)
	if err != nil {
		return "", err
	}
	signed := s.header + "." + payload
	signature, err := s.private.Sign([]byte(signed))
	if err != nil {
		return "", fmt.Errorf("signing with key version %d: %w", s.keyVersion, err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// meetingURL is the link that opens the room as its host, as Clan Meeting's SDK
// builds it; empty without a domain, and for a token that is for every room.
func (s *signer) meetingURL(name room.Name, token string) string {
	if s.domain == "" || name == room.Every {
		return ""
	}
	return "https://" + s.domain + "/" + s.consumerID + "/" + string(name) + "?jwt=" + token
}

// segment is the base64url of the JSON of a header or of claims.
func segment(v any) (string, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encoding the token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw), nil
}
