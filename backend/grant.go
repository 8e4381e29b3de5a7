// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
)

// A tokenRequest is what a caller asks for. A zero field was not given.
type tokenRequest struct {
	room      string
	ttl       time.Duration
	notBefore *time.Time // in whole seconds
}

// parseTokenRequest reads the parameters of one token.
func parseTokenRequest(d *framework.FieldData) (tokenRequest, error) {
	var wanted tokenRequest
	if v, ok := d.GetOk(fieldRoom); ok {
		if wanted.room = v.(string); wanted.room == "" {
			// Such as room=$ROOM, with a variable that is not set.
			return wanted, invalid("%s is empty; name a room, or leave %[1]s out to get the role's %s", fieldRoom, fieldDefaultRoom)
		}
	}
	if v, ok := d.GetOk(fieldTTL); ok {
		wanted.ttl = time.Duration(v.(int)) * time.Second
	}
	if v, ok := d.GetOk(fieldNotBefore); ok {
		start := v.(time.Time)
		wanted.notBefore = &start
	}
	return wanted, nil
}

// terms decide requests: the role, and what else counts for its caller. creds and check both
// use them, so they can't disagree. They are for one goroutine.
//
// Deciding needs no storage and no clock. It is not a package of its own, because a refusal
// names fields of the API, and because it needs the whole role.
type terms struct {
	role    *role
	values  room.Values // of the caller
	matcher *room.Matcher
	maxTTL  time.Duration // of the mount
	now     time.Time
}

// A grant is what a request gets from a role.
type grant struct {
	room       room.Name
	rule       string // the rule that allows the room
	notBefore  int64  // seconds since the epoch
	expiration int64  // seconds since the epoch
	warnings   []string
}

// decide decides a request. A refusal is the caller's mistake.
func (t *terms) decide(wanted tokenRequest) (*grant, error) {
	name, rule, err := t.grantRoom(wanted.room)
	if err != nil {
		return nil, err
	}
	mount := logical.StaticSystemView{MaxLeaseTTLVal: t.maxTTL, DefaultLeaseTTLVal: t.maxTTL}
	ttl, warnings, err := framework.CalculateTTL(mount, wanted.ttl, t.role.effectiveTTL(), 0, t.role.MaxTTL, 0, time.Time{})
	if err != nil {
		return nil, err
	}
	g := &grant{room: name, rule: rule, warnings: warnings}
	return g, t.grantTimes(g, wanted.notBefore, ttl)
}

// grantRoom returns the room of a token, and the rule that allows it. The name is that of
// the request, empty if it names none.
func (t *terms) grantRoom(name string) (granted room.Name, rule string, err error) {
	if name == "" {
		if name, err = t.defaultRoom(); err != nil {
			return "", "", err
		}
	}
	wanted, err := room.ParseName(name)
	if err != nil {
		return "", "", errNoRoomName(fieldRoom, name)
	}
	rule, err = t.role.match(wanted, t.matcher)
	switch {
	case rule != "":
		return wanted, rule, nil
	case errors.As(err, new(*room.NoValueError)):
		return "", "", invalid("%s %q is not allowed by this role; %s", fieldRoom, room.Shorten(string(wanted)), err)
	case err != nil:
		return "", "", err
	case wanted == room.Every:
		return "", "", invalid("%s \"*\" is not allowed: this role does not have %s; name one room", fieldRoom, fieldAllowWildcardRoom)
	default:
		return "", "", invalid("%s %q is not allowed by this role; ask for one that matches its %s", fieldRoom, room.Shorten(string(wanted)), fieldAllowedRooms)
	}
}

// defaultRoom returns the room for a request that names none.
func (t *terms) defaultRoom() (string, error) {
	if t.role.DefaultRoom == "" {
		return "", invalid("%s is required: this role has no %s", fieldRoom, fieldDefaultRoom)
	}
	name, err := t.role.defaultRule.Render(t.values)
	if missing := new(room.NoValueError); errors.As(err, &missing) {
		return "", invalid("%s is required: this role's %s is %s, and %s", fieldRoom, fieldDefaultRoom, room.Shorten(t.role.DefaultRoom), missing)
	}
	return name, err
}

// grantTimes sets when the token begins and ends. All times are in whole seconds.
func (t *terms) grantTimes(g *grant, start *time.Time, ttl time.Duration) error {
	r, now := t.role, t.now.Truncate(time.Second)
	if r.ended(now) {
		return invalid("this role ended at its %s, %s; have it moved, or use another role", fieldValidUntil, formatTime(r.ValidUntil))
	}
	begin, counted := now.Add(-r.NotBeforeDuration), now
	switch {
	case start != nil:
		if err := r.checkStart(*start, now); err != nil {
			return err
		}
		begin, counted = *start, *start
	case now.Before(r.ValidFrom): // the role's writer chose the time
		begin, counted = r.ValidFrom, r.ValidFrom
	case begin.Before(r.ValidFrom):
		begin = r.ValidFrom
	}
	end := counted.Add(ttl)
	if !r.ValidUntil.IsZero() && end.After(r.ValidUntil) {
		end = r.ValidUntil
		g.warnings = append(g.warnings, "the token ends with this role, at "+formatTime(end)+", which is earlier than its TTL")
	}
	g.notBefore, g.expiration = begin.Unix(), end.Unix()
	switch life := end.Sub(now); {
	case life <= 0:
		return invalid("%s is so far in the past that the token would already have expired; leave it out to get a token for now", fieldNotBefore)
	case r.GenerateLease && life > t.maxTTL:
		// Vault would cut the lease, which would then end before the token.
		return invalid("the token would begin so late that its lease would exceed the mount's maximum TTL; ask closer to the time, or use a role without %s", fieldGenerateLease)
	}
	return nil
}

// checkStart checks a scheduled start against the role's window, and against its
// limits on either side of now. All times are in whole seconds.
func (r *role) checkStart(start, now time.Time) error {
	switch {
	case !r.ValidFrom.IsZero() && start.Before(r.ValidFrom):
		return invalid("%s is before this role's %s, %s", fieldNotBefore, fieldValidFrom, formatTime(r.ValidFrom))
	case r.ended(start):
		return invalid("%s is at or after this role's %s, %s", fieldNotBefore, fieldValidUntil, formatTime(r.ValidUntil))
	case start.Before(now.Add(-r.NotBeforeDuration)):
		return invalid("%s is more than %s in the past; leave it out to get a token for now", fieldNotBefore, r.NotBeforeDuration)
	case r.hasWindow():
		return nil
	case start.After(now) && r.MaxNotBefore == 0:
		return invalid("%s is in the future, but this role has no %s; leave it out, or have %[2]s set", fieldNotBefore, fieldMaxNotBefore)
	case start.After(now.Add(r.MaxNotBefore)):
		return invalid("%s is further ahead than the %s of this role's %s; ask closer to the time", fieldNotBefore, r.MaxNotBefore, fieldMaxNotBefore)
	}
	return nil
}
