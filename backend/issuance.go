// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
)

// An issuance has everything that the tokens of one request depend on: the role, the
// signer, the caller, and the time. creds and check both use it, so they can't disagree.
// It is for one goroutine, except mint.
type issuance struct {
	role    *role
	signer  *signer
	caller  *caller
	matcher *room.Matcher
	now     time.Time
	logger  hclog.Logger
}

// A tokenRequest is what a caller asks for. A zero field was not given.
type tokenRequest struct {
	room      string
	ttl       time.Duration
	notBefore *time.Time // in whole seconds
}

// A grant is what a request gets from a role.
type grant struct {
	room       room.Name
	rule       string // the rule that allows the room
	notBefore  int64  // seconds since the epoch
	expiration int64  // seconds since the epoch
	warnings   []string
}

// newIssuance collects what tokens of the role depend on. It is the caller's mistake if
// the mount is not ready.
func (b *backend) newIssuance(ctx context.Context, req *logical.Request, r *role) (*issuance, error) {
	s, err := b.signer(ctx, req.Storage, req.MountPoint)
	if err != nil {
		return nil, err
	}
	c := &caller{system: b.System(), entityID: req.EntityID, maxTTL: b.maxTTL(r)}
	return &issuance{role: r, signer: s, caller: c, matcher: r.rules.Matcher(c.value), now: b.now(), logger: b.Logger()}, nil
}

// requestedRole returns the role in the path. It is the caller's mistake if there is none.
func (b *backend) requestedRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*role, error) {
	return b.namedRole(ctx, req, d.Get(fieldName).(string))
}

func (b *backend) namedRole(ctx context.Context, req *logical.Request, name string) (*role, error) {
	r, err := b.roles.get(ctx, req.Storage, name)
	if err == nil && r == nil {
		err = invalid("role %q not found", room.Shorten(name))
	}
	return r, err
}

// parseTokenRequest reads the parameters of one token.
func parseTokenRequest(d *framework.FieldData) tokenRequest {
	wanted := tokenRequest{room: d.Get(fieldRoom).(string)}
	if ttl, ok := secondsField(d, fieldTTL); ok {
		wanted.ttl = ttl
	}
	if v, ok := d.GetOk(fieldNotBefore); ok {
		start := v.(time.Time)
		wanted.notBefore = &start
	}
	return wanted
}

// grant decides a request. A refusal is the caller's mistake.
func (i *issuance) grant(ctx context.Context, wanted tokenRequest) (*grant, error) {
	name, rule, err := i.grantRoom(ctx, wanted.room)
	if err != nil {
		return nil, err
	}
	mount := logical.StaticSystemView{MaxLeaseTTLVal: i.caller.maxTTL, DefaultLeaseTTLVal: i.caller.maxTTL}
	ttl, warnings, err := framework.CalculateTTL(mount, wanted.ttl, i.role.ttl, 0, i.role.MaxTTL, 0, time.Time{})
	if err != nil {
		return nil, err
	}
	g := &grant{room: name, rule: rule, warnings: warnings}
	return g, i.grantTimes(g, wanted.notBefore, ttl)
}

// grantRoom returns the room of a token, and the rule that allows it. The name is that of
// the request, empty if it names none.
func (i *issuance) grantRoom(ctx context.Context, name string) (granted room.Name, rule string, err error) {
	if name == "" {
		if name, err = i.defaultRoom(); err != nil {
			return "", "", err
		}
	}
	wanted, err := room.ParseName(name)
	if err != nil {
		return "", "", errNoRoomName(fieldRoom)
	}
	rule, err = i.role.match(ctx, wanted, i.matcher)
	unmet := new(room.UnmetError)
	switch {
	case rule != "":
		return wanted, rule, nil
	case errors.As(err, &unmet):
		return "", "", invalid("%s %q is not allowed by this role; %s", fieldRoom, room.Shorten(string(wanted)), unmet)
	case err != nil:
		return "", "", err
	case wanted == room.Every:
		return "", "", invalid("%s \"*\" is not allowed: this role does not have %s; name one room", fieldRoom, fieldAllowWildcardRoom)
	default:
		return "", "", invalid("%s %q is not allowed by this role; ask for one that matches its %s", fieldRoom, room.Shorten(string(wanted)), fieldAllowedRooms)
	}
}

// defaultRoom returns the room for a request that names none.
func (i *issuance) defaultRoom() (string, error) {
	if i.role.DefaultRoom == "" {
		return "", invalid("%s is required: this role has no %s", fieldRoom, fieldDefaultRoom)
	}
	name, err := i.role.defaultRule.Render(i.caller.value)
	if missing := new(room.NoValueError); errors.As(err, &missing) {
		return "", invalid("%s is required: this role's %s is %s, and %s", fieldRoom, fieldDefaultRoom, room.Shorten(i.role.DefaultRoom), missing)
	}
	return name, err
}

// grantTimes sets when the token begins and ends. All times are in whole seconds.
func (i *issuance) grantTimes(g *grant, start *time.Time, ttl time.Duration) error {
	r, now := i.role, i.now.Truncate(time.Second)
	if r.ended(now) {
		return invalid("this role ended at %s, its %s; ask for a later one, or use another role", formatTime(r.ValidUntil), fieldValidUntil)
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
		return invalid("%s is so far in the past that the token would have expired already; leave it out for a token for now", fieldNotBefore)
	case r.GenerateLease && life > i.caller.maxTTL:
		// Vault would cut the lease, which would then end before the token.
		return invalid("the token would begin so far ahead that its lease would be over the mount's maximum; ask closer to the time, or use a role without %s", fieldGenerateLease)
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
		return invalid("%s is not before this role's %s, %s", fieldNotBefore, fieldValidUntil, formatTime(r.ValidUntil))
	case start.Before(now.Add(-r.NotBeforeDuration)):
		return invalid("%s is more than %s in the past; leave it out for a token for now", fieldNotBefore, r.NotBeforeDuration)
	case r.hasWindow():
		return nil
	case start.After(now) && r.MaxNotBefore == 0:
		return invalid("%s is in the future, and this role does not schedule; leave it out, or ask for %s to be set on the role", fieldNotBefore, fieldMaxNotBefore)
	case start.After(now.Add(r.MaxNotBefore)):
		return invalid("%s is further ahead than the %s of this role's %s; ask closer to the time, and give a number in seconds, not milliseconds", fieldNotBefore, r.MaxNotBefore, fieldMaxNotBefore)
	}
	return nil
}

// life is how many seconds a granted token has from now.
func (i *issuance) life(g *grant) int64 { return g.expiration - i.now.Unix() }

// mint signs a granted token, and returns the data of its answer. The error is
// errChanged if the signer has been replaced.
func (i *issuance) mint(ctx context.Context, g *grant) (map[string]any, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	token, err := i.signer.token(ctx, g)
	if err != nil {
		return nil, err
	}
	data := map[string]any{
		fieldToken:      token,
		fieldRoom:       string(g.room),
		fieldConsumerID: i.signer.consumer.ID,
		fieldNotBefore:  g.notBefore,
		fieldExpiration: g.expiration,
		fieldTTL:        i.life(g),
		fieldKeyVersion: i.signer.keyVersion,
	}
	if i.signer.domain != "" {
		data[fieldDomain] = i.signer.domain
	}
	if url := i.signer.meetingURL(g.room, token); url != "" {
		data[fieldMeetingURL] = url
	}
	return data, nil
}
