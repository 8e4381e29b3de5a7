// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
)

// maxTokenLength is ten times that of a token of the largest key.
const maxTokenLength = 32 << 10

// maxNesting is far more than claims need, and far less than the plugin protocol's
// decoder would choke on.
const maxNesting = 100

// RFC 7515, section 7.1. The decoder of the standard library skips line breaks.
var compactPattern = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

// manyDigits is a time in milliseconds: in seconds it would lie in the year 5138.
const manyDigits = 100_000_000_000

// A presentedToken is a token that somebody presents: decoded, not verified.
type presentedToken struct {
	header    map[string]any
	claims    map[string]any
	signed    string
	signature []byte
}

var errMalformed = errors.New("malformed")

// decodeToken takes a token apart. Numbers are json.Number. The error says what is
// wrong with its form.
func decodeToken(token string) (*presentedToken, error) {
	if len(token) > maxTokenLength || !compactPattern.MatchString(token) {
		return nil, fmt.Errorf("%w: it must be three parts of base64url with dots between, like what follows jwt= in a meeting's link", errMalformed)
	}
	parts := strings.Split(token, ".")
	t := &presentedToken{signed: parts[0] + "." + parts[1]}
	var err error
	if t.header, err = decodeSegment(parts[0]); err != nil {
		return nil, fmt.Errorf("%w: its header is not a JSON object", errMalformed)
	}
	if t.claims, err = decodeSegment(parts[1]); err != nil {
		return nil, fmt.Errorf("%w: its claims are not a JSON object", errMalformed)
	}
	if nesting(t.claims) > maxNesting {
		return nil, fmt.Errorf("%w: its claims are nested more than %d deep", errMalformed, maxNesting)
	}
	// Strict, or the last character could be changed without changing a byte.
	if t.signature, err = base64.RawURLEncoding.Strict().DecodeString(parts[2]); err != nil {
		return nil, fmt.Errorf("%w: its signature is not base64url", errMalformed)
	}
	return t, nil
}

func decodeSegment(segment string) (map[string]any, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(segment)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) || object == nil {
		return nil, errMalformed
	}
	return object, nil
}

// nesting is how many objects and lists deep a value of decoded JSON is.
func nesting(value any) int {
	deepest := 0
	switch v := value.(type) {
	case map[string]any:
		for _, member := range v {
			deepest = max(deepest, nesting(member))
		}
	case []any:
		for _, item := range v {
			deepest = max(deepest, nesting(item))
		}
	default:
		return 0
	}
	return deepest + 1
}

// checkSignature finds the key that signed the token, trying one after the other,
// or says why the meeting server would not look at the claims. No algorithm but
// RS256 is ever tried, whatever the header says. The error is that of the context.
func (t *presentedToken) checkSignature(ctx context.Context, consumerID string, ring keyring) (version int, reason string, err error) {
	switch {
	case t.header["alg"] != jwt.SigningMethodRS256.Alg():
		return 0, fmt.Sprintf("signed with alg %s, not RS256", shown(t.header, "alg")), nil
	case t.header["typ"] != "JWT":
		return 0, fmt.Sprintf(`typ is %s, not "JWT"`, shown(t.header, "typ")), nil
	case t.header["kid"] != consumerID:
		return 0, fmt.Sprintf("kid is %s, not the consumer ID %q", shown(t.header, "kid"), consumerID), nil
	}
	for _, v := range ring {
		if err := ctx.Err(); err != nil {
			return 0, "", err
		}
		if v.public != nil && v.public.Verify([]byte(t.signed), t.signature) == nil {
			return v.version, "", nil
		}
	}
	return 0, "signed by another key, or changed since: no key version of this mount verifies it", nil
}

// checkClaims returns all that the meeting server would find wrong with the claims. An
// empty room is any.
func (t *presentedToken) checkClaims(cfg *config, wanted room.Name, now time.Time) []string {
	var reasons []string
	add := func(reason string) {
		if reason != "" {
			reasons = append(reasons, reason)
		}
	}
	add(t.checkTimes(now.Unix()))
	add(t.checkText("aud", "audience", cfg.Audience))
	add(t.checkText("iss", "issuer", cfg.Issuer))
	add(t.checkText("sub", "consumer", cfg.ConsumerID))
	add(t.checkRoom(wanted))
	if context, ok := t.claims["context"]; ok {
		if _, isObject := context.(map[string]any); !isObject {
			add("context is " + shown(t.claims, "context") + ", not an object")
		}
	}
	return reasons
}

// checkTimes allows no leeway, as the server: not valid when now >= exp or now < nbf.
// Like the server, it accepts a token without one of them.
func (t *presentedToken) checkTimes(now int64) string {
	for _, name := range []string{"exp", "nbf"} {
		value, ok := t.claims[name]
		if !ok {
			continue
		}
		at, err := numericDate(value)
		switch {
		case err != nil:
			return fmt.Sprintf("%s is %s, not a whole number of seconds", name, shown(t.claims, name))
		case name == "exp" && now >= at:
			return fmt.Sprintf("expired %s ago", distance(at, now))
		case name == "nbf" && now < at:
			return fmt.Sprintf("not valid for another %s", distance(now, at))
		}
	}
	return ""
}

// distance is how far the second time lies after the first, in words. It may be more
// than an int64 or a time.Duration holds.
func distance(from, to int64) string {
	const century = 100 * 365 * 24 * 60 * 60
	if to-century > from || to-century > to {
		return "century or more"
	}
	return (time.Duration(to-from) * time.Second).String()
}

func (t *presentedToken) checkText(claim, what, want string) string {
	if t.claims[claim] == want {
		return ""
	}
	return fmt.Sprintf("wrong %s: %s is %s, not %q", what, claim, shown(t.claims, claim), want)
}

func (t *presentedToken) checkRoom(wanted room.Name) string {
	name, ok := t.claims["room"].(string)
	switch {
	case !ok:
		return fmt.Sprintf("room is %s, not a name", shown(t.claims, "room"))
	case wanted == "" || name == string(room.Every):
		return ""
	}
	// The server lowers ASCII alone, and no other letter can become one of a room's.
	if claimed, err := room.ParseName(name); err == nil && claimed == wanted {
		return ""
	}
	return fmt.Sprintf("for room %q, not %q", shorten(name), shorten(string(wanted)))
}

// remarks are what the server accepts and a support engineer should know.
func (t *presentedToken) remarks() []string {
	var remarks []string
	if _, ok := t.claims["exp"]; !ok {
		remarks = append(remarks, "the token has no exp: it never expires")
	}
	for _, name := range []string{"exp", "nbf"} {
		if at, err := numericDate(t.claims[name]); err == nil && at >= manyDigits {
			remarks = append(remarks, name+" seems to be in milliseconds; it must be in seconds")
		}
	}
	return remarks
}

func numericDate(value any) (int64, error) {
	number, ok := value.(json.Number)
	if !ok {
		return 0, errMalformed
	}
	return number.Int64()
}

// shown is a member of a header or of claims, as JSON, shortened for a reason.
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
