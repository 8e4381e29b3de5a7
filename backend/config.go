// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/hosttoken"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

const configStoragePath = "config"

const (
	defaultAudience = "clanmeeting"
	defaultIssuer   = "production"
)

// A consumer ID is the tenant in a meeting's URL; the server finds no tenant
// whose name has a dot.
var consumerIDPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)

// RFC 1123, section 2.1: letters, digits and inner hyphens, 63 to a label.
var domainPattern = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

const (
	maxDomainLength = 253
	maxClaimLength  = 255
)

// config is what all roles of a mount share. After the configuration is deleted, an
// entry without a consumer ID stays, to keep LastKey.
type config struct {
	ConsumerID string `json:"consumer_id,omitempty"`
	Audience   string `json:"audience,omitempty"`
	Issuer     string `json:"issuer,omitempty"`
	Domain     string `json:"domain,omitempty"`

	// ActiveKey is the version that signs, 0 for none.
	ActiveKey int `json:"active_key,omitempty"`

	// LastKey is the highest version ever given to a key. It never falls, so
	// that a version names one key for the life of the mount.
	LastKey int `json:"last_key"`
}

// compile is the entry's: a configuration that passes its check is used as it is.
func (c config) compile() (*config, error) { return &c, c.check() }

// configured reports whether an operator has written the configuration and not
// deleted it since.
func (c *config) configured() bool { return c.ConsumerID != "" }

// consumer is what all tokens share.
func (c *config) consumer() hosttoken.Consumer {
	return hosttoken.Consumer{ID: c.ConsumerID, Audience: c.Audience, Issuer: c.Issuer}
}

// check names every problem at once.
func (c *config) check() error {
	var problems []error
	if c.LastKey < 0 || c.ActiveKey < 0 || c.ActiveKey > c.LastKey {
		problems = append(problems, errNoSuchKey(c.ActiveKey))
	}
	if c.configured() {
		problems = append(problems, c.checkSettings())
	}
	return errors.Join(problems...)
}

func (c *config) checkSettings() error {
	var problems []error
	if !consumerIDPattern.MatchString(c.ConsumerID) {
		problems = append(problems, invalid("%s must be 1 to 128 letters, digits, underscores and hyphens", fieldConsumerID))
	}
	for _, claim := range []struct{ field, value string }{{fieldAudience, c.Audience}, {fieldIssuer, c.Issuer}} {
		if !isVisible(claim.value) || utf8.RuneCountInString(claim.value) > maxClaimLength {
			problems = append(problems, invalid("%s must be 1 to %d characters, all of them visible, without white space around them", claim.field, maxClaimLength))
		}
	}
	if c.Domain != "" && (len(c.Domain) > maxDomainLength || !domainPattern.MatchString(c.Domain)) {
		problems = append(problems, invalid("%s must be a host name alone, like meet.example.com: no scheme, port or path", fieldDomain))
	}
	return errors.Join(problems...)
}

// isVisible reports whether somebody who reads a text sees all of it. The server
// compares claims exactly, so a line break or a byte-order mark that came along from a
// file would make every token invalid.
func isVisible(text string) bool {
	invisible := func(r rune) bool {
		return !unicode.IsPrint(r) || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
	}
	return text != "" && strings.TrimSpace(text) == text && utf8.ValidString(text) && !strings.ContainsFunc(text, invisible)
}

// loadConfig returns an empty configuration if none was ever written.
func loadConfig(ctx context.Context, s logical.Storage) (*config, error) {
	c, err := load[config](ctx, s, configStoragePath)
	if err == nil && c == nil {
		c = new(config)
	}
	return c, err
}

// addKey stores a key under the next version, which it returns and notes in the
// configuration in storage; nothing else of that changes. The number is taken
// before the key is written: the other way round, a fault between the two would
// give one number to two keys.
func (c *config) addKey(ctx context.Context, s logical.Storage, ring keyring, k *key) (int, error) {
	if err := ring.checkCapacity(c.ActiveKey); err != nil {
		return 0, err
	}
	entry, err := k.stored()
	if err != nil {
		return 0, err
	}
	c.LastKey = max(c.LastKey, ring.highest()) + 1
	if err := store(ctx, s, configStoragePath, *c); err != nil {
		return 0, err
	}
	return c.LastKey, store(ctx, s, keyPath(c.LastKey), entry)
}

// publicData names a key by its public half, in an answer.
func publicData(public *rsakey.PublicKey) map[string]any {
	return map[string]any{
		fieldPublicKey:       public.PEM,
		fieldPublicKeySHA256: public.SHA256,
		fieldKeyBits:         public.Bits,
	}
}
