// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package hosttoken

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
)

// CheckHeader returns an error if the server would refuse the token before it checks the
// signature. Errors of this and of CheckClaims may repeat parts of the token, shortened.
func (t *Token) CheckHeader(c Consumer) error {
	switch {
	case t.header["alg"] != rs256{}.Alg():
		return fmt.Errorf("signed with alg %s, not RS256", shown(t.header, "alg"))
	case t.header["typ"] != "JWT":
		return fmt.Errorf(`typ is %s, not "JWT"`, shown(t.header, "typ"))
	case t.header["kid"] != c.ID:
		return fmt.Errorf("kid is %s, not the consumer ID %q", shown(t.header, "kid"), c.ID)
	}
	return nil
}

// CheckClaims returns an error that joins every reason why the server would refuse the claims
// at the time now. If wanted is empty, the room is not checked.
func (t *Token) CheckClaims(c Consumer, wanted room.Name, now time.Time) error {
	return errors.Join(
		t.checkTimes(float64(now.Unix())),
		t.checkText("aud", "audience", c.Audience),
		t.checkText("iss", "issuer", c.Issuer),
		t.checkConsumer(c.ID),
		t.checkRoom(wanted),
		t.checkContext(),
	)
}

// checkTimes allows no leeway, like the server: a token is not valid if now >= exp or
// now < nbf.
func (t *Token) checkTimes(now float64) error {
	for _, claim := range []string{"exp", "nbf"} {
		at, given, err := t.seconds(claim)
		switch {
		case err != nil:
			return err
		case !given:
		case claim == "exp" && now >= at:
			return fmt.Errorf("expired %s ago", distance(at, now))
		case claim == "nbf" && now < at:
			return fmt.Errorf("not valid for another %s", distance(now, at))
		}
	}
	return nil
}

// seconds returns exp or nbf as the server reads it: in whole seconds, rounded up, and not
// given if it is false. A number may be beyond the range of a float64; it is then infinite,
// as on the server.
func (t *Token) seconds(claim string) (at float64, given bool, err error) {
	value, ok := t.Claims[claim]
	if !ok || value == false {
		return 0, false, nil
	}
	number, ok := value.(json.Number)
	if !ok {
		return 0, false, fmt.Errorf("%s is %s, not a number of seconds", claim, shown(t.Claims, claim))
	}
	at, _ = number.Float64()
	return math.Ceil(at), true, nil
}

// distance returns the time between two times in seconds, in words.
func distance(from, to float64) string {
	const century = 100 * 365 * 24 * 60 * 60
	if to-from > century {
		return "100 years or more"
	}
	return (time.Duration(to-from) * time.Second).String()
}

func (t *Token) checkText(claim, what, want string) error {
	if t.Claims[claim] == want {
		return nil
	}
	return fmt.Errorf("wrong %s: %s is %s, not %q", what, claim, shown(t.Claims, claim), want)
}

// checkConsumer ignores the case of ASCII letters, like the server. Other letters that fold
// to one of ASCII have more bytes.
func (t *Token) checkConsumer(id string) error {
	if sub, _ := t.Claims["sub"].(string); len(sub) == len(id) && strings.EqualFold(sub, id) {
		return nil
	}
	return t.checkText("sub", "consumer", id)
}

func (t *Token) checkRoom(wanted room.Name) error {
	name, ok := t.Claims["room"].(string)
	switch {
	case !ok:
		return fmt.Errorf("room is %s, not a name", shown(t.Claims, "room"))
	case wanted == "" || name == string(room.Every):
		return nil
	}
	// The server lowers ASCII letters only, and no other letter becomes one of a room's.
	if claimed, err := room.ParseName(name); err == nil && claimed == wanted {
		return nil
	}
	return fmt.Errorf("for room %q, not %q", room.Shorten(name), room.Shorten(string(wanted)))
}

// checkContext refuses what crashes the server's session: a null, also for what it looks up
// in an object, and a number or a boolean. It looks nothing up in a text or a list.
func (t *Token) checkContext() error {
	value, given := t.Claims["context"]
	switch context := value.(type) {
	case string, []any:
	case map[string]any:
		for _, name := range []string{"tenant", "room"} {
			if member, ok := context[name]; ok && member == nil {
				return fmt.Errorf("%s in context is null, which ends the server's session", name)
			}
		}
	default:
		if given {
			return fmt.Errorf("context is %s, not an object, which ends the server's session", shown(t.Claims, "context"))
		}
	}
	return nil
}

// shown returns a member of an object as JSON, shortened for a message.
func shown(object map[string]any, name string) string {
	value, ok := object[name]
	if !ok {
		return "missing"
	}
	raw, _ := json.Marshal(value) // it was decoded from JSON
	return room.Shorten(string(raw))
}
