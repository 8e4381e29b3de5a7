// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
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
	// AllowedRooms are the rules that a room must match one of, in lower case.
	AllowedRooms []string `json:"allowed_rooms"`

	// AllowedRoomsTemplate lets AllowedRooms and DefaultRoom hold directives.
	AllowedRoomsTemplate bool `json:"allowed_rooms_template"`

	// DefaultRoom is the room of a request that names none; empty for no such.
	DefaultRoom string `json:"default_room"`

	// AllowWildcardRoom lets a request ask for everyRoom; no rule does.
	AllowWildcardRoom bool `json:"allow_wildcard_room"`

	TTL    time.Duration `json:"ttl"`
	MaxTTL time.Duration `json:"max_ttl"`

	// NotBeforeDuration is how far nbf lies back on a token for use now.
	NotBeforeDuration time.Duration `json:"not_before_duration"`

	// MaxNotBefore is how far ahead a request may schedule; 0 for not at all.
	MaxNotBefore time.Duration `json:"max_not_before"`

	GenerateLease bool `json:"generate_lease"`

	// What check makes of AllowedRooms and DefaultRoom: rules that are one name are
	// looked up, the others tried one after the other.
	names       map[string]struct{}
	rules       []roomRule
	defaultRule roomRule
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

// check parses the rules and names every problem at once.
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
	r.names, r.rules = map[string]struct{}{}, nil
	for i, text := range r.AllowedRooms {
		rule, err := parseRule(text, r.AllowedRoomsTemplate)
		if err != nil {
			return badRule(err, fmt.Sprintf("entry %d of %s", i+1, fieldAllowedRooms))
		}
		r.AllowedRooms[i] = rule.text
		if roomPattern.MatchString(rule.text) {
			r.names[rule.text] = struct{}{}
		} else {
			r.rules = append(r.rules, rule)
		}
	}
	return r.checkDefaultRoom()
}

// checkDefaultRoom makes sure that the default is allowed, as far as that does not
// depend on the caller; the rest is for grantRoom.
func (r *role) checkDefaultRoom() error {
	if r.DefaultRoom == "" {
		return nil
	}
	rule, err := parseRule(r.DefaultRoom, r.AllowedRoomsTemplate)
	if errors.Is(err, errRuleSyntax) {
		return errNoRoomName(fieldDefaultRoom)
	}
	if err != nil {
		return badRule(err, fieldDefaultRoom)
	}
	r.defaultRule, r.DefaultRoom = rule, rule.text
	if rule.templated() {
		if slices.ContainsFunc(rule.pieces, func(p rulePiece) bool { return strings.Contains(p.literal, "*") }) {
			return errNoRoomName(fieldDefaultRoom)
		}
		return nil
	}
	wanted, err := parseRoom(fieldDefaultRoom, r.DefaultRoom)
	if err != nil {
		return err
	}
	if wanted != everyRoom && slices.ContainsFunc(r.rules, roomRule.templated) {
		return nil
	}
	if matched, _, err := r.match(wanted, nil); err != nil || matched == "" {
		return invalid("%s must itself be allowed, by %s or, if it is \"*\", by %s", fieldDefaultRoom, fieldAllowedRooms, fieldAllowWildcardRoom)
	}
	return nil
}

// badRule tells what is wrong with the text of a rule.
func badRule(err error, what string) error {
	switch {
	case errors.Is(err, errRuleDirective):
		return invalid("%s has a template that is unknown or not closed by }}; use one like {{identity.entity.id}} or {{identity.entity.metadata.team}}", what)
	case errors.Is(err, errRuleTemplate):
		return invalid("%s is a template; set %s=true too", what, fieldAllowedRoomsTemplate)
	}
	return invalid("%s must be a room name or a glob: %s, with \"*\" for any part of a name", what, roomSyntax)
}

// match returns the rule by which a token for the room may be signed, empty if
// there is none. A room is compared whole with each rule, and everyRoom with none
// of them. Rules that the caller has no values for match nothing; unmet tells of
// the first. The error is a fault.
func (r *role) match(wanted room, c *caller) (matched string, unmet, err error) {
	if wanted == everyRoom {
		if r.AllowWildcardRoom {
			matched = fieldAllowWildcardRoom
		}
		return matched, nil, nil
	}
	if _, ok := r.names[string(wanted)]; ok {
		return string(wanted), nil, nil
	}
	for _, rule := range r.rules {
		rendered, err := rule.render(c)
		if err == nil {
			if matches(rendered, wanted) {
				return rule.text, nil, nil
			}
			continue
		}
		mistake := new(invalidError)
		if !errors.As(err, &mistake) {
			return "", nil, err
		}
		if unmet == nil {
			unmet = invalid("the template %s matches nothing: %s", rule.text, mistake)
		}
	}
	return "", unmet, nil
}

// grantRoom returns the room of a token, given what the request names (empty is
// nothing), and the rule that allows it.
func (r *role) grantRoom(name string, c *caller) (granted room, matched string, err error) {
	if name == "" {
		if name, err = r.defaultName(c); err != nil {
			return "", "", err
		}
	}
	wanted, err := parseRoom(fieldRoom, name)
	if err != nil {
		return "", "", err
	}
	matched, unmet, err := r.match(wanted, c)
	switch {
	case err != nil:
		return "", "", err
	case matched != "":
		return wanted, matched, nil
	case wanted == everyRoom:
		return "", "", invalid("%s \"*\" is not allowed: this role does not have %s; name one room", fieldRoom, fieldAllowWildcardRoom)
	case unmet != nil:
		return "", "", invalid("%s %q is not allowed by this role; %s", fieldRoom, wanted, unmet)
	default:
		return "", "", invalid("%s %q is not allowed by this role; ask for one that its %s match", fieldRoom, wanted, fieldAllowedRooms)
	}
}

// defaultName is the room of a request that names none.
func (r *role) defaultName(c *caller) (string, error) {
	if r.DefaultRoom == "" {
		return "", invalid("%s is required: this role has no %s", fieldRoom, fieldDefaultRoom)
	}
	name, err := r.defaultRule.render(c)
	if mistake := new(invalidError); errors.As(err, &mistake) {
		return "", invalid("%s is required: this role's %s is %s, and %s", fieldRoom, fieldDefaultRoom, r.DefaultRoom, mistake)
	}
	return name, err
}
