// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Package room defines the names of meeting rooms, and rules that say which names are
// allowed.
//
// A rule is a name, or a glob in which "*" stands for any part of a name. It may be
// a template, with directives of Vault's identity templates that stand for values of the
// caller. [NewRules] parses a list of rules, and a [Matcher] compares names with them for
// one caller.
package room

import (
	"errors"
	"regexp"
	"strings"
	"unicode/utf8"
)

// A Name is a valid name of a room in lower case, or [Every].
type Name string

// Every is the name in a token that opens every room of the consumer. No rule matches it.
const Every Name = "*"

// Syntax describes a name, for messages.
const Syntax = `1 to 255 of a-z, 0-9, "_" and "-"`

// maxNameLength is the maximum length of the vendor's rooms, in characters.
const maxNameLength = 255

// ErrName means that a text is not the name of a room.
var ErrName = errors.New("not a room name: " + Syntax)

// namePattern has the alphabet of Clan Meeting's SDK, with upper case. A text is not
// lowered first, because that would turn letters outside of the alphabet into letters of
// it: the Kelvin sign becomes a k.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)

// ParseName parses a name in upper or lower case, or the text of [Every]. The error is
// [ErrName].
func ParseName(text string) (Name, error) {
	if text == string(Every) {
		return Every, nil
	}
	if !namePattern.MatchString(text) {
		return "", ErrName
	}
	return Name(strings.ToLower(text)), nil
}

// Shorten returns the first 80 characters of a text, enough to recognise it in a message.
func Shorten(text string) string {
	const most = 80
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most]) + "…"
}
