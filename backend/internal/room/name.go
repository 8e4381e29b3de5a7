// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Package room has the names of meeting rooms, and rules that say which names are
// allowed.
//
// A rule is a name, or a glob in which "*" stands for any part of a name. It may be
// a template, with directives of Vault's identity templates that stand for values of
// whoever asks. [NewRules] reads a list of rules, and a [Matcher] compares names
// with them for one caller.
package room

import (
	"errors"
	"regexp"
	"strings"
	"unicode/utf8"
)

// A Name is a valid, lower-case name of a room, or [Every].
type Name string

// Every is the room of a token that opens every room of the consumer. No rule
// matches it.
const Every Name = "*"

// Syntax says in words what a name consists of.
const Syntax = `1 to 255 of a-z, 0-9, "_" and "-"`

// maxNameLength is that of the vendor's rooms, in characters.
const maxNameLength = 255

// ErrName means that a text is not the name of a room.
var ErrName = errors.New("not a room name: " + Syntax)

// The alphabet of Clan Meeting's SDK. Upper case is allowed here, and not lowered
// before, because lowering maps letters from outside the alphabet into it: the
// Kelvin sign becomes a k.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)

// ParseName reads a name in upper or lower case, or the text of [Every]. Its error
// is [ErrName].
func ParseName(text string) (Name, error) {
	if text == string(Every) {
		return Every, nil
	}
	if !namePattern.MatchString(text) {
		return "", ErrName
	}
	return Name(strings.ToLower(text)), nil
}

// shownLength is how many characters of a text a message shows.
const shownLength = 80

// Shorten returns the first 80 characters of a text, which is enough to recognise
// it in a message.
func Shorten(text string) string {
	if utf8.RuneCountInString(text) <= shownLength {
		return text
	}
	return string([]rune(text)[:shownLength]) + "…"
}
