// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package hosttoken

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

// maxLength is about where the server stops: it allows 10 KiB for the head of a request, which
// contains the token.
const maxLength = 10 << 10

// maxNesting is far more than claims need, and less than the JSON decoders of many clients
// allow.
const maxNesting = 100

// parser is strict, because otherwise the last character of a part could be changed without
// changing a byte. It allows padding because the server does.
var parser = jwt.NewParser(jwt.WithJSONNumber(), jwt.WithStrictDecoding(), jwt.WithPaddingAllowed())

// A Token is a decoded token. Nothing in it is verified. It is immutable.
type Token struct {
	// Claims are the claims, true or not. Numbers are json.Number.
	Claims map[string]any

	header    map[string]any
	signed    string
	signature []byte
	padded    bool
}

// Decode parses a token. Its error says why the server can't read the token.
func Decode(text string) (*Token, error) {
	if len(text) > maxLength {
		return nil, fmt.Errorf("too long: it has %d characters, and the meeting server accepts at most about %d", len(text), maxLength)
	}
	claims := jwt.MapClaims{}
	parsed, parts, err := parser.ParseUnverified(text, claims)
	switch {
	// A decoder of base64 skips line breaks.
	case parts == nil, strings.ContainsAny(text, "\r\n"):
		return nil, errors.New("malformed: a token is three parts of base64url, separated by dots, as after jwt= in a meeting's link")
	case parsed.Header == nil, parsed.Claims == nil:
		return nil, errors.New("malformed: its header is not a JSON object")
	case !isObject(parts[1]):
		return nil, errors.New("malformed: its claims are not a JSON object")
	case nesting(map[string]any(claims)) > maxNesting:
		return nil, fmt.Errorf("malformed: its claims are nested more than %d levels deep, which verify does not read", maxNesting)
	// Else it is the algorithm, of which CheckHeader says more.
	case errors.Is(err, jwt.ErrTokenMalformed):
		return nil, errors.New("malformed: its signature is not base64url")
	}
	return &Token{
		Claims:    claims,
		header:    parsed.Header,
		signed:    parts[0] + "." + parts[1],
		signature: parsed.Signature,
		padded:    strings.Contains(text, "="),
	}, nil
}

// isObject reports whether a part of a token is one JSON object. The parser also accepts
// null, and text after an object.
func isObject(part string) bool {
	raw, err := parser.DecodeSegment(part)
	return err == nil && json.Valid(raw) && bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{"))
}

// nesting returns how deep the objects and lists of decoded JSON are nested.
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

// SignedBy reports whether the token has an RS256 signature by the key. No other
// algorithm is tried, whatever the header says.
func (t *Token) SignedBy(key *rsakey.PublicKey) bool {
	return rs256{}.Verify(t.signed, t.signature, key) == nil
}
