// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/hosttoken"
)

const configStoragePath = "config"

const (
	fieldConsumerID            = "consumer_id"
	fieldPrivateKey            = "private_key"
	fieldActiveKey             = "active_key"
	fieldAudience              = "audience"
	fieldIssuer                = "issuer"
	fieldDomain                = "domain"
	fieldDeleteEndedRolesAfter = "delete_ended_roles_after"
)

const (
	defaultAudience = "clanmeeting"
	defaultIssuer   = "production"
)

// configFields are the fields of the configuration.
var configFields = []field[config]{
	required(newField(fieldConsumerID, framework.TypeString, "Consumer ID", nil, func(c *config) *string { return &c.ConsumerID },
		`The consumer ID that Clan Meeting gave you with the key: 1 to 128
letters, digits, underscores and hyphens. It becomes kid and sub of
every token. Required when the configuration is created; no default.`)),
	{name: fieldPrivateKey, schema: privateKeySchema(`The private key, cm-api-key.pem: an RSA key of 2048 to 8192 bits as a
PEM, in PKCS#1, PKCS#8 or OpenSSH form, not encrypted. It becomes the
next key version, unless it is stored already, and signs from then on.
It is never returned. No default.`)},
	newField(fieldActiveKey, framework.TypeInt, "Active key version", nil, func(c *config) *int { return &c.ActiveKey },
		`The key version that signs, a number from 1. Set it to switch to a
version that is stored already, or back. Default: the last version
written as private_key. Not together with private_key. A read returns 0
if no key is active; 0 is accepted only then.`),
	newField(fieldAudience, framework.TypeString, "Audience", defaultAudience, func(c *config) *string { return &c.Audience },
		`The aud claim of every token, 1 to 255 visible characters. Default:
clanmeeting, which an empty value restores.`),
	newField(fieldIssuer, framework.TypeString, "Issuer", defaultIssuer, func(c *config) *string { return &c.Issuer },
		`The iss claim of every token, 1 to 255 visible characters. Default:
production, which an empty value restores.`),
	newField(fieldDomain, framework.TypeString, "Domain", nil, func(c *config) *string { return &c.Domain },
		`The host name of the meetings, like meet.example.com, without scheme,
port or path. With it, creds also returns meeting_url. Default: none. An
empty value removes it.`),
	durationField(fieldDeleteEndedRolesAfter, "Delete ended roles after", 0, func(c *config) *time.Duration { return &c.DeleteEndedRolesAfter },
		`Deletes a role this long after its valid_until, in seconds or like 24h,
30d; at most 3650d. The engine does it by itself, within a few minutes.
Default: 0, which keeps ended roles.`),
}

func privateKeySchema(description string) framework.FieldSchema {
	return framework.FieldSchema{
		Type: framework.TypeString, Description: description,
		DisplayAttrs: &framework.DisplayAttributes{Name: "Private key", Sensitive: true, EditType: "file"},
	}
}

// settings are what all tokens of a mount share.
type settings struct {
	ConsumerID string `json:"consumer_id,omitempty"`
	Audience   string `json:"audience,omitempty"`
	Issuer     string `json:"issuer,omitempty"`
	Domain     string `json:"domain,omitempty"`

	// ActiveKey is the version that signs, 0 for none.
	ActiveKey int `json:"active_key,omitempty"`
}

// consumer is how the meeting server knows the customer.
func (s *settings) consumer() hosttoken.Consumer {
	return hosttoken.Consumer{ID: s.ConsumerID, Audience: s.Audience, Issuer: s.Issuer}
}

// config is the configuration of a mount. After it is deleted, an entry without a consumer
// ID stays, to keep LastKey.
type config struct {
	settings

	DeleteEndedRolesAfter time.Duration `json:"delete_ended_roles_after,omitempty"` // 0: never

	// LastKey is the highest version that a key ever had. It never decreases, so
	// that no version is used twice.
	LastKey int `json:"last_key"`
}

// configured reports whether an operator has written the configuration and not
// deleted it since.
func (c *config) configured() bool { return c.ConsumerID != "" }

// loadConfig returns an empty configuration if none was ever written.
func loadConfig(ctx context.Context, s logical.Storage) (*config, error) {
	c, err := load[config](ctx, s, configStoragePath)
	if err == nil && c == nil {
		c = new(config)
	}
	return c, err
}

// compile implements stored. A configuration that passes its check is used as it is.
func (c config) compile() (*config, error) {
	if c.LastKey < 0 || c.ActiveKey < 0 || c.ActiveKey > c.LastKey {
		return nil, fmt.Errorf("%s %d is not one of the versions up to %d", fieldActiveKey, c.ActiveKey, c.LastKey)
	}
	if !c.configured() {
		return &c, nil
	}
	return &c, c.check()
}

// A consumer ID is the tenant in a meeting's URL. The server finds no tenant with a
// dot in its name.
var consumerIDPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)

// RFC 1123, section 2.1: labels of up to 63 letters, digits and inner hyphens.
var domainPattern = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

const (
	maxDomainLength = 253
	maxClaimLength  = 255
)

// check reports all problems at once.
func (c *config) check() error {
	var problems []error
	if !consumerIDPattern.MatchString(c.ConsumerID) {
		problems = append(problems, invalid("%s must be 1 to 128 letters, digits, underscores and hyphens%s", fieldConsumerID, lineEnd(c.ConsumerID)))
	}
	for _, claim := range []struct{ field, value string }{{fieldAudience, c.Audience}, {fieldIssuer, c.Issuer}} {
		if !isVisible(claim.value) || utf8.RuneCountInString(claim.value) > maxClaimLength {
			problems = append(problems, invalid("%s must be 1 to %d characters, all of them visible, without white space around them%s", claim.field, maxClaimLength, lineEnd(claim.value)))
		}
	}
	if c.Domain != "" && (len(c.Domain) > maxDomainLength || !domainPattern.MatchString(c.Domain)) {
		problems = append(problems, invalid("%s must be a host name alone, like meet.example.com: no scheme, port or path%s", fieldDomain, lineEnd(c.Domain)))
	}
	problems = append(problems, checkDuration(fieldDeleteEndedRolesAfter, c.DeleteEndedRolesAfter, 0, maxLife))
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

// lineEnd names the line end of a text that came from a file, which nobody sees.
func lineEnd(text string) string {
	if !strings.HasSuffix(text, "\n") && !strings.HasSuffix(text, "\r") {
		return ""
	}
	return "; the value ends with a line end, as a file does: remove that, or give the value itself instead of @file"
}
