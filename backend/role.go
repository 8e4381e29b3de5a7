// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"reflect"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
)

const rolePrefix = "roles/"

func rolePath(name string) string { return rolePrefix + name }

const (
	fieldAllowedRooms         = "allowed_rooms"
	fieldAllowedRoomsTemplate = "allowed_rooms_template"
	fieldDefaultRoom          = "default_room"
	fieldAllowWildcardRoom    = "allow_wildcard_room"
	fieldTTL                  = "ttl"
	fieldMaxTTL               = "max_ttl"
	fieldNotBeforeDuration    = "not_before_duration"
	fieldMaxNotBefore         = "max_not_before"
	fieldValidFrom            = "valid_from"
	fieldValidUntil           = "valid_until"
	fieldGenerateLease        = "generate_lease"
)

// Minutes, because the default that mounts inherit from Vault is 768 hours.
const (
	defaultTTL               = 15 * time.Minute
	defaultMaxTTL            = time.Hour
	defaultNotBeforeDuration = 30 * time.Second
)

const day = 24 * time.Hour

// Upper limits of a role's durations.
const (
	maxLife              = 3650 * day // for ttl, max_ttl and max_not_before
	maxNotBeforeDuration = day
)

// Above these, a write of a role returns a warning.
const (
	longMaxTTL       = day
	longMaxNotBefore = 90 * day
)

// roleFields are the fields of a role.
var roleFields = []field[storedRole]{
	newField(fieldAllowedRooms, framework.TypeCommaStringSlice, "Allowed rooms", nil, func(r *storedRole) *[]string { return &r.AllowedRooms },
		`The rooms that a token may be for, separated by commas: names, and globs
in which "*" stands for any part of a name, like support-*. "*" alone is
any named room. Each has 1 to 255 of a-z, 0-9, "_", "-" and "*"; upper
case becomes lower case. At most 2,000 entries, 128 KiB. Default: none.`),
	newField(fieldAllowedRoomsTemplate, framework.TypeBool, "Allowed rooms are templates", false, func(r *storedRole) *bool { return &r.AllowedRoomsTemplate },
		`Lets allowed_rooms and default_room contain identity templates, which
stand for values of the caller's entity, like {{identity.entity.id}} or
team-{{identity.entity.metadata.team}}-*. At most 100 entries may be
templates. Default: false.`),
	newField(fieldDefaultRoom, framework.TypeString, "Default room", nil, func(r *storedRole) *string { return &r.DefaultRoom },
		`The room for a request that names none: one room name that the role
allows. Default: none; a request must then name a room. An empty value
removes it.`),
	newField(fieldAllowWildcardRoom, framework.TypeBool, "Allow tokens for every room", false, func(r *storedRole) *bool { return &r.AllowWildcardRoom },
		`Lets a request ask for room=*, a token that makes its holder the host of
every room of the consumer. Default: false.`),
	ttlField(),
	durationField(fieldMaxTTL, "Maximum TTL", defaultMaxTTL, func(r *storedRole) *time.Duration { return &r.MaxTTL },
		`The longest life that a request can get, in seconds or like 90s, 15m,
1h; at most 3650d. The mount's maximum applies, too. Default: 1h; 0
restores it.`),
	durationField(fieldNotBeforeDuration, "Not-before duration", defaultNotBeforeDuration, func(r *storedRole) *time.Duration { return &r.NotBeforeDuration },
		`How far nbf is backdated on a token for use now, in case the meeting
server's clock is behind, in seconds or like 90s, 15m; at most 24h.
Default: 30s.`),
	durationField(fieldMaxNotBefore, "Maximum not-before", 0, func(r *storedRole) *time.Duration { return &r.MaxNotBefore },
		`How far ahead a request's not_before may be, in seconds or like 15m,
24h, 7d; at most 3650d. Default: 0, which refuses scheduling.`),
	dateField(fieldValidFrom, "Valid from", func(r *storedRole) *time.Time { return &r.ValidFrom },
		`No token of this role is valid earlier, whatever a request asks for. An
earlier request gets a token that begins then. As RFC 3339, like
2030-01-31T09:00:00Z, or in seconds since the epoch. Default: none. An
empty value removes it.`),
	dateField(fieldValidUntil, "Valid until", func(r *storedRole) *time.Time { return &r.ValidUntil },
		`No token of this role is valid later, and the role then gives no more.
As RFC 3339, like 2030-01-31T18:00:00Z, or in seconds since the epoch.
Default: none. An empty value removes it.`),
	newField(fieldGenerateLease, framework.TypeBool, "Generate lease", false, func(r *storedRole) *bool { return &r.GenerateLease },
		`Adds a lease that ends with the token, for clients that refresh by
lease. It costs a write to Vault's storage per token, and revoking it
does not end the token. Default: false.`),
}

// ttlField reads as the TTL that applies, even if nobody set one.
func ttlField() field[storedRole] {
	f := durationField(fieldTTL, "TTL", defaultTTL, func(r *storedRole) *time.Duration { return &r.TTL },
		`The life of a token if the request names none, in seconds or like 90s,
15m, 1h; at most max_ttl. Default: 15m, or max_ttl if that is less; 0
restores it.`)
	f.read = func(r *storedRole) any { return int64(r.effectiveTTL().Seconds()) }
	return f
}

// storedRole is a role as somebody wrote it; roleFields say what its fields do. Times and
// durations are in whole seconds.
type storedRole struct {
	AllowedRooms         []string      `json:"allowed_rooms"` // rules
	AllowedRoomsTemplate bool          `json:"allowed_rooms_template"`
	DefaultRoom          string        `json:"default_room"` // empty: none
	AllowWildcardRoom    bool          `json:"allow_wildcard_room"`
	TTL                  time.Duration `json:"ttl"` // 0: nobody set it
	MaxTTL               time.Duration `json:"max_ttl"`
	NotBeforeDuration    time.Duration `json:"not_before_duration"`
	MaxNotBefore         time.Duration `json:"max_not_before"`      // 0: no scheduling
	ValidFrom            time.Time     `json:"valid_from,omitzero"` // zero: this end is open
	ValidUntil           time.Time     `json:"valid_until,omitzero"`
	GenerateLease        bool          `json:"generate_lease"`
}

// A role is a storedRole with valid values and parsed rules. It is immutable.
type role struct {
	storedRole // with all text in lower case

	rules       *room.Rules
	defaultRule room.Rule // if there is a DefaultRoom
}

func newRole() storedRole {
	return storedRole{
		AllowedRooms:      []string{},
		MaxTTL:            defaultMaxTTL,
		NotBeforeDuration: defaultNotBeforeDuration,
	}
}

// loadRole returns the compiled role; nil if there is none.
func loadRole(ctx context.Context, s logical.Storage, name string) (*role, error) {
	return load[storedRole](ctx, s, rolePath(name))
}

// effectiveTTL is the life of a token for a request that names none.
func (s *storedRole) effectiveTTL() time.Duration {
	if s.TTL == 0 {
		return min(defaultTTL, s.MaxTTL)
	}
	return s.TTL
}

// compile parses the rules, and reports all problems at once.
func (s storedRole) compile() (*role, error) {
	r := &role{storedRole: s}
	ttl := r.effectiveTTL()
	problems := []error{
		r.compileRooms(),
		checkDuration(fieldTTL, ttl, time.Second, maxLife),
		checkDuration(fieldMaxTTL, r.MaxTTL, time.Second, maxLife),
		checkDuration(fieldNotBeforeDuration, r.NotBeforeDuration, 0, maxNotBeforeDuration),
		checkDuration(fieldMaxNotBefore, r.MaxNotBefore, 0, maxLife),
	}
	if ttl > r.MaxTTL {
		problems = append(problems, invalid("%s of %s is over %s of %s; lower %[1]s or raise %[3]s", fieldTTL, ttl, fieldMaxTTL, r.MaxTTL))
	}
	if r.hasWindow() && !r.ValidFrom.Before(r.ValidUntil) {
		problems = append(problems, invalid("%s must be after %s", fieldValidUntil, fieldValidFrom))
	}
	return r, errors.Join(problems...)
}

// checkDuration checks a duration that is stored.
func checkDuration(field string, d, least, most time.Duration) error {
	switch {
	case d < least, d%time.Second != 0:
		return invalid("%s must be in whole seconds, and not negative", field)
	case d > most:
		return invalid("%s is too large: the maximum is %s", field, inDays(most))
	}
	return nil
}

// inDays formats a whole number of days.
func inDays(d time.Duration) string {
	if d == day {
		return "1 day"
	}
	return strconv.Itoa(int(d/day)) + " days"
}

func (r *role) compileRooms() error {
	if len(r.AllowedRooms) == 0 && !r.AllowWildcardRoom {
		return invalid("a role must allow something: set %s, like support-*, or %s", fieldAllowedRooms, fieldAllowWildcardRoom)
	}
	rules, err := room.NewRules(fieldAllowedRooms, r.AllowedRooms, r.AllowedRoomsTemplate)
	if err != nil {
		return invalid("%s", err)
	}
	r.rules, r.AllowedRooms = rules, rules.Texts()
	return r.compileDefaultRoom()
}

// compileDefaultRoom checks that the default room is allowed. If that depends on the
// caller, grantRoom checks it later.
func (r *role) compileDefaultRoom() error {
	if r.DefaultRoom == "" {
		return nil
	}
	rule, err := room.ParseRule(r.DefaultRoom, r.AllowedRoomsTemplate)
	switch {
	case errors.Is(err, room.ErrNotARule), rule.IsGlob() && rule.String() != string(room.Every):
		return errNoRoomName(fieldDefaultRoom, r.DefaultRoom)
	case err != nil:
		return invalid("%s %s", fieldDefaultRoom, err)
	}
	r.defaultRule, r.DefaultRoom = rule, rule.String()
	name := room.Name(r.DefaultRoom)
	if rule.Templated() || r.rules.Templated() && name != room.Every {
		return nil
	}
	if matched, err := r.match(name, r.rules.Matcher(nil)); err != nil || matched == "" {
		return invalid("%s must itself be allowed, by %s or, if it is \"*\", by %s", fieldDefaultRoom, fieldAllowedRooms, fieldAllowWildcardRoom)
	}
	return nil
}

func errNoRoomName(field, text string) error {
	return invalid("%s must be one room name, %s, or \"*\" for every room%s", field, room.Syntax, lineEnd(text))
}

// match returns the rule that allows the room, or an empty string. For room.Every it is the
// field that allows it, whatever AllowedRooms says. The errors are those of room.Matcher.
func (r *role) match(name room.Name, matcher *room.Matcher) (string, error) {
	if name == room.Every {
		if r.AllowWildcardRoom {
			return fieldAllowWildcardRoom, nil
		}
		return "", nil
	}
	return matcher.Match(name)
}

// size estimates how many bytes of memory the role takes.
func (r *role) size() int {
	const fixed = 1 << 10
	// The text, its rule, and the pieces of that.
	return fixed + 4*len(r.DefaultRoom) + r.rules.Size()
}

// ended reports whether the role's window has closed.
func (r *role) ended(now time.Time) bool { return !r.ValidUntil.IsZero() && !now.Before(r.ValidUntil) }

// hasWindow reports whether both ends of the role's window are set. A request may then
// name any time in it.
func (r *role) hasWindow() bool { return !r.ValidFrom.IsZero() && !r.ValidUntil.IsZero() }

// formatTime formats a time as RFC 3339, and the zero time as an empty string.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// same reports whether two roles allow the same; nil is no role.
func (r *role) same(other *role) bool {
	if r == nil || other == nil {
		return r == other
	}
	return reflect.DeepEqual(r.storedRole, other.storedRole)
}
