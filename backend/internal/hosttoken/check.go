// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package hosttoken

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
)

// A Problem is a reason why the server would refuse a token.
type Problem int

// The problems that a token can have.
const (
	Malformed      Problem = iota + 1 // not a JWT
	WrongAlgorithm                    // any but RS256
	WrongType                         // any but JWT
	WrongKeyID                        // not the consumer's ID
	Expired
	NotYetValid
	WrongTime // not a whole number of seconds
	WrongAudience
	WrongIssuer
	WrongSubject
	WrongRoom
	WrongContext // not an object
)

// A RefusalError says why the server would refuse a token. It may repeat parts of the
// token, shortened.
type RefusalError struct {
	Problem Problem

	text string
}

func (e *RefusalError) Error() string { return e.text }

func refusal(p Problem, format string, args ...any) error {
	return &RefusalError{p, fmt.Sprintf(format, args...)}
}

func malformed(format string, args ...any) error {
	return refusal(Malformed, "malformed: "+format, args...)
}

// CheckHeader returns an error if the server would refuse the token before it checks the
// signature. The error is a [*RefusalError].
func (t *Token) CheckHeader(c Consumer) error {
	switch {
	case t.header["alg"] != jwt.SigningMethodRS256.Alg():
		return refusal(WrongAlgorithm, "signed with alg %s, not RS256", shown(t.header, "alg"))
	case t.header["typ"] != "JWT":
		return refusal(WrongType, `typ is %s, not "JWT"`, shown(t.header, "typ"))
	case t.header["kid"] != c.ID:
		return refusal(WrongKeyID, "kid is %s, not the consumer ID %q", shown(t.header, "kid"), c.ID)
	}
	return nil
}

// CheckClaims returns every reason why the server would refuse the claims at the time now.
// If wanted is empty, the room is not checked. The errors are [*RefusalError]s.
func (t *Token) CheckClaims(c Consumer, wanted room.Name, now time.Time) []error {
	var problems []error
	for _, err := range []error{
		t.checkTimes(now.Unix()),
		t.checkText(WrongAudience, "aud", "audience", c.Audience),
		t.checkText(WrongIssuer, "iss", "issuer", c.Issuer),
		t.checkText(WrongSubject, "sub", "consumer", c.ID),
		t.checkRoom(wanted),
		t.checkContext(),
	} {
		if err != nil {
			problems = append(problems, err)
		}
	}
	return problems
}

// checkTimes allows no leeway, like the server: a token is not valid if now >= exp or
// now < nbf. Like the server, it accepts a token without exp or nbf.
func (t *Token) checkTimes(now int64) error {
	for _, name := range []string{"exp", "nbf"} {
		value, ok := t.Claims[name]
		if !ok {
			continue
		}
		at, err := numericDate(value)
		switch {
		case err != nil:
			return refusal(WrongTime, "%s is %s, not a whole number of seconds", name, shown(t.Claims, name))
		case name == "exp" && now >= at:
			return refusal(Expired, "expired %s ago", distance(at, now))
		case name == "nbf" && now < at:
			return refusal(NotYetValid, "not valid for another %s", distance(now, at))
		}
	}
	return nil
}

// distance returns the time between two times, in words. It may be more than an int64 or a
// time.Duration can hold.
func distance(from, to int64) string {
	const century = 100 * 365 * 24 * 60 * 60
	if to-century > from || to-century > to {
		return "100 years or more"
	}
	return (time.Duration(to-from) * time.Second).String()
}

func (t *Token) checkText(p Problem, claim, what, want string) error {
	if t.Claims[claim] == want {
		return nil
	}
	return refusal(p, "wrong %s: %s is %s, not %q", what, claim, shown(t.Claims, claim), want)
}

func (t *Token) checkRoom(wanted room.Name) error {
	name, ok := t.Claims["room"].(string)
	switch {
	case !ok:
		return refusal(WrongRoom, "room is %s, not a name", shown(t.Claims, "room"))
	case wanted == "" || name == string(room.Every):
		return nil
	}
	// The server lowers ASCII letters only, and no other letter becomes one of a room's.
	if claimed, err := room.ParseName(name); err == nil && claimed == wanted {
		return nil
	}
	return refusal(WrongRoom, "for room %q, not %q", shorten(name), shorten(string(wanted)))
}

func (t *Token) checkContext() error {
	context, ok := t.Claims["context"]
	if _, isObject := context.(map[string]any); ok && !isObject {
		return refusal(WrongContext, "context is %s, not an object", shown(t.Claims, "context"))
	}
	return nil
}

// manyDigits is a time in milliseconds: in seconds it would lie in the year 5138.
const manyDigits = 100_000_000_000

// Remarks returns what the server accepts but a support engineer should know.
func (t *Token) Remarks() []string {
	var remarks []string
	if _, ok := t.Claims["exp"]; !ok {
		remarks = append(remarks, "the token has no exp: it never expires")
	}
	for _, name := range []string{"exp", "nbf"} {
		if at, err := numericDate(t.Claims[name]); err == nil && at >= manyDigits {
			remarks = append(remarks, name+" seems to be in milliseconds; it must be in seconds")
		}
	}
	return remarks
}

var errNoNumber = errors.New("not a number")

func numericDate(value any) (int64, error) {
	number, ok := value.(json.Number)
	if !ok {
		return 0, errNoNumber
	}
	return number.Int64()
}

// shown returns a member of an object as JSON, shortened for an error.
func shown(object map[string]any, name string) string {
	value, ok := object[name]
	if !ok {
		return "missing"
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return "unreadable"
	}
	return shorten(string(raw))
}

const shownLength = 80

func shorten(s string) string {
	if len(s) <= shownLength {
		return s
	}
	return strings.ToValidUTF8(s[:shownLength], "") + "…"
}
