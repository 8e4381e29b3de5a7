// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package hosttoken

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strings"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

// maxLength is ten times the length of a token with the largest key.
const maxLength = 32 << 10

// maxNesting is far more than claims need, and far less than JSON decoders allow.
const maxNesting = 100

// RFC 7515, section 7.1. The decoder of the standard library skips line breaks.
var compactPattern = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

// A Token is a decoded token. Nothing in it is verified. It is immutable.
type Token struct {
	// Claims are the claims, true or not. Numbers are json.Number.
	Claims map[string]any

	header    map[string]any
	signed    []byte
	signature []byte
}

// Decode parses a token. The error is a [*RefusalError].
func Decode(token string) (*Token, error) {
	if len(token) > maxLength || !compactPattern.MatchString(token) {
		return nil, malformed("it must be three parts of base64url with dots between, like what follows jwt= in a meeting's link")
	}
	parts := strings.Split(token, ".")
	t := &Token{signed: []byte(parts[0] + "." + parts[1])}
	var err error
	if t.header, err = decodeSegment(parts[0]); err != nil {
		return nil, malformed("its header is not a JSON object")
	}
	if t.Claims, err = decodeSegment(parts[1]); err != nil {
		return nil, malformed("its claims are not a JSON object")
	}
	if nesting(t.Claims) > maxNesting {
		return nil, malformed("its claims are nested more than %d deep", maxNesting)
	}
	// Strict: otherwise the last character could be changed without changing a byte.
	if t.signature, err = base64.RawURLEncoding.Strict().DecodeString(parts[2]); err != nil {
		return nil, malformed("its signature is not base64url")
	}
	return t, nil
}

var errNoObject = errors.New("not one JSON object")

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
		return nil, errNoObject
	}
	return object, nil
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
	return key.Verify(t.signed, t.signature) == nil
}
