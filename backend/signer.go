// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/hosttoken"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

// SignatureLibrary names the library that makes the signatures, with its version.
func SignatureLibrary() string { return rsakey.Library() }

// A signer is the configuration and its active key at one moment. It does not
// change, so a token is wholly of one configuration.
type signer struct {
	consumer   hosttoken.Consumer
	domain     string
	keyVersion int
	key        *rsakey.PrivateKey

	// fence is raised when the configuration or the key has been replaced.
	fence fence
}

// signer returns the signer in use. A mount that is not configured, or has no
// active key, is the caller's mistake, and the error names what to write to mount.
func (b *backend) signer(ctx context.Context, s logical.Storage, mount string) (*signer, error) {
	if cached := b.cached.Load(); cached != nil {
		return cached, nil
	}
	// One request loads it for all that wait. So there is one signer at a time, and its
	// fence holds up every signature.
	if err := b.loading.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer b.loading.Release(1)
	b.configLock.RLock()
	defer b.configLock.RUnlock()
	if cached := b.cached.Load(); cached != nil {
		return cached, nil
	}
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
	active, err := loadActiveKey(ctx, s, cfg)
	if err != nil {
		return nil, err
	}
	return &signer{consumer: cfg.consumer(), domain: cfg.Domain, keyVersion: cfg.ActiveKey, key: active.private}, nil
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

// token returns a token for what the role granted, unless the signer has been replaced.
// After replacing it was acknowledged, no token is signed with its key.
func (s *signer) token(ctx context.Context, g *grant) (token string, err error) {
	// Before the fence, so that a change does not wait for those who wait here.
	if err := signing().Acquire(ctx, 1); err != nil {
		return "", err
	}
	defer signing().Release(1)
	err = s.fence.pass(func() error {
		token, err = s.consumer.Sign(s.key, g.room, g.notBefore, g.expiration)
		return err
	})
	if err != nil && !errors.Is(err, errChanged) {
		err = fmt.Errorf("signing with key version %d: %w", s.keyVersion, err)
	}
	return token, err
}

// meetingURL is the link that opens the room as its host, as Clan Meeting's SDK
// builds it; empty without a domain, and for a token that is for every room.
func (s *signer) meetingURL(name room.Name, token string) string {
	if s.domain == "" || name == room.Every {
		return ""
	}
	return "https://" + s.domain + "/" + s.consumer.ID + "/" + string(name) + "?jwt=" + token
}
