// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/ryanuber/go-glob"
)

const rolePrefix = "roles/"

// Defaults in minutes: what Vault's mounts inherit would be 768 hours.
const (
	defaultTTL               = 15 * time.Minute
	defaultMaxTTL            = time.Hour
	defaultNotBeforeDuration = 30 * time.Second
)

// longMaxTTL is the max_ttl over which writing a role answers with a warning.
const longMaxTTL = 24 * time.Hour

// role limits the tokens that its readers may ask for. All durations are in whole
// seconds.
type role struct {
	// AllowedRooms are names, and globs in which "*" stands for any part of a
	// name, in lower case.
	AllowedRooms []string `json:"allowed_rooms"`
	DefaultRoom  room     `json:"default_room"`

	// AllowWildcardRoom lets a request ask for everyRoom; no glob does.
	AllowWildcardRoom bool `json:"allow_wildcard_room"`

	TTL    time.Duration `json:"ttl"`
	MaxTTL time.Duration `json:"max_ttl"`

	// NotBeforeDuration is how far nbf lies back on a token for use now.
	NotBeforeDuration time.Duration `json:"not_before_duration"`

	// MaxNotBefore is how far ahead a request may schedule; 0 for not at all.
	MaxNotBefore time.Duration `json:"max_not_before"`

	GenerateLease bool `json:"generate_lease"`
}

func newRole() *role {
	return &role{
		AllowedRooms:      []string{},
		TTL:               defaultTTL,
		MaxTTL:            defaultMaxTTL,
		NotBeforeDuration: defaultNotBeforeDuration,
	}
}

func rolePath(name string) string { return rolePrefix + name }

// loadRole returns nil where there is no such role.
func loadRole(ctx context.Context, s logical.Storage, name string) (*role, error) {
	return load[role](ctx, s, rolePath(name))
}

// check names every problem at once.
func (r *role) check() error {
	problems := []error{r.checkRooms()}
	if r.TTL > r.MaxTTL {
		problems = append(problems, invalid("%s of %s is over %s of %s; lower the one or raise the other", fieldTTL, r.TTL, fieldMaxTTL, r.MaxTTL))
	}
	for _, d := range []struct {
		field string
		value time.Duration
		least time.Duration
	}{
		{fieldTTL, r.TTL, time.Second},
		{fieldMaxTTL, r.MaxTTL, time.Second},
		{fieldNotBeforeDuration, r.NotBeforeDuration, 0},
		{fieldMaxNotBefore, r.MaxNotBefore, 0},
	} {
		if d.value < d.least || d.value%time.Second != 0 {
			problems = append(problems, invalid("%s must be in whole seconds, and not negative", d.field))
		}
	}
	return errors.Join(problems...)
}

func (r *role) checkRooms() error {
	if len(r.AllowedRooms) == 0 && !r.AllowWildcardRoom {
		return invalid("a role must allow something: set %s, like support-*, or %s", fieldAllowedRooms, fieldAllowWildcardRoom)
	}
	for i, entry := range r.AllowedRooms {
		if !globPattern.MatchString(entry) {
			return invalid("entry %d of %s must be a room name or a glob of %s, and \"*\" for any part of a name", i+1, fieldAllowedRooms, roomSyntax)
		}
	}
	if r.DefaultRoom == "" {
		return nil
	}
	if parsed, err := parseRoom(fieldDefaultRoom, string(r.DefaultRoom)); err != nil {
		return err
	} else if !r.allows(parsed) {
		return invalid("%s must itself be allowed, by %s or, if it is \"*\", by %s", fieldDefaultRoom, fieldAllowedRooms, fieldAllowWildcardRoom)
	}
	return nil
}

// allows tells whether a token for the room may be signed. The room is compared
// whole with each entry, and everyRoom with none of them.
func (r *role) allows(wanted room) bool {
	if wanted == everyRoom {
		return r.AllowWildcardRoom
	}
	for _, entry := range r.AllowedRooms {
		if glob.Glob(entry, string(wanted)) {
			return true
		}
	}
	return false
}

// grantRoom returns the room of a token, given what the request names; empty is
// nothing.
func (r *role) grantRoom(name string) (room, error) {
	if name == "" {
		if r.DefaultRoom == "" {
			return "", invalid("%s is required: this role has no %s", fieldRoom, fieldDefaultRoom)
		}
		name = string(r.DefaultRoom)
	}
	wanted, err := parseRoom(fieldRoom, name)
	if err != nil {
		return "", err
	}
	switch {
	case r.allows(wanted):
		return wanted, nil
	case wanted == everyRoom:
		return "", invalid("%s \"*\" is not allowed: this role does not have %s; name one room", fieldRoom, fieldAllowWildcardRoom)
	default:
		return "", invalid("%s %q is not allowed by this role; ask for one that its %s match", fieldRoom, wanted, fieldAllowedRooms)
	}
}
