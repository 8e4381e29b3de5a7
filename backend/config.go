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

// A consumer ID is the tenant in a meeting's URL. The server finds no tenant with a
// dot in its name.
var consumerIDPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)

// RFC 1123, section 2.1: labels of up to 63 letters, digits and inner hyphens.
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

	// LastKey is the highest version that a key ever had. It never decreases, so
	// that no version is used twice.
	LastKey int `json:"last_key"`
}

// compile implements entry. A configuration that passes its check is used as it is.
func (c config) compile() (*config, error) { return &c, c.check() }

// configured reports whether an operator has written the configuration and not
// deleted it since.
func (c *config) configured() bool { return c.ConsumerID != "" }

// consumer is what all tokens share.
func (c *config) consumer() hosttoken.Consumer {
	return hosttoken.Consumer{ID: c.ConsumerID, Audience: c.Audience, Issuer: c.Issuer}
}

// check reports all problems at once.
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

// isVisible reports whether a text has only visible characters, and no white space
// around them. The server compares claims exactly: a line break or a byte-order mark
// that came from a file would make every token invalid.
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

// addKey stores a key as the next version, and returns the version. It stores the
// configuration with the new LastKey first: if writing the key then fails, the number
// is skipped, and no two keys get the same one.
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

// publicData describes the public half of a key in a response.
func publicData(public *rsakey.PublicKey) map[string]any {
	return map[string]any{
		fieldPublicKey:       public.PEM,
		fieldPublicKeySHA256: public.SHA256,
		fieldKeyBits:         public.Bits,
	}
}
