// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package room

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// MaxRuleLength is the maximum length of a rule in characters, including directives.
const MaxRuleLength = 1024

// literalPattern matches the literal text of a rule: the alphabet of names, and "*".
var literalPattern = regexp.MustCompile(`^[A-Za-z0-9_*-]*$`)

// directivePattern matches the directives of Vault's templated policies that stand for one
// text. In OpenBao, the ID of a group in a namespace has a dot in it.
var directivePattern = regexp.MustCompile(`^identity\.(` +
	`entity\.(id|name|metadata\.[^{}]+|aliases\.[^.{}]+\.(id|name|metadata\.[^{}]+|custom_metadata\.[^{}]+))|` +
	`groups\.(ids\.[^.{}]+(\.[^.{}]+)?|names\.[^.{}]+)\.(id|name|metadata\.[^{}]+))$`)

// A Rule allows names. The zero value is not a rule.
type Rule struct {
	text      string // in lower case, except for directives
	pieces    []piece
	templated bool
	glob      bool
}

// A piece is either literal text or a directive without its braces.
type piece struct {
	literal   string
	directive string
}

// The errors of a rule end a sentence that begins with the name of the field.
var (
	// ErrNotARule means that a text is neither a name nor a glob.
	ErrNotARule = errors.New("must be a room name or a glob: " + Syntax + `, with "*" for any part of a name`)

	errTemplate  = errors.New("is a template; set allowed_rooms_template=true too")
	errDirective = errors.New("has a template that is unknown or not closed by }}; use one like {{identity.entity.id}} or {{identity.entity.metadata.team}}")
)

// ParseRule parses a rule. If templates is set, it may be a template.
func ParseRule(text string, templates bool) (Rule, error) {
	if utf8.RuneCountInString(text) > MaxRuleLength {
		return Rule{}, fmt.Errorf("is longer than %d characters%s", MaxRuleLength, shownTemplate(text))
	}
	var rule Rule
	length := 0
	for rest := text; rest != ""; {
		before, after, found := strings.Cut(rest, "{{")
		// Text that is longer than any name can't be part of one.
		length += len(before)
		if !literalPattern.MatchString(before) || length > maxNameLength {
			return Rule{}, ErrNotARule
		}
		if found && !templates {
			return Rule{}, errTemplate
		}
		before = strings.ToLower(before)
		rule.text += before
		rule.pieces = append(rule.pieces, piece{literal: before})
		rule.glob = rule.glob || strings.Contains(before, "*")
		if !found {
			break
		}
		inner, next, closed := strings.Cut(after, "}}")
		directive := strings.TrimSpace(inner)
		if !closed || !directivePattern.MatchString(directive) {
			return Rule{}, errDirective
		}
		rule.text += "{{" + inner + "}}"
		rule.pieces = append(rule.pieces, piece{directive: directive})
		rule.templated = true
		rest = next
	}
	if len(rule.pieces) == 0 {
		return Rule{}, ErrNotARule
	}
	return rule, nil
}

// templateStart matches the beginning of a template and of nothing else.
var templateStart = regexp.MustCompile(`^[A-Za-z0-9_*-]{0,70}\{\{`)

// shownTemplate returns the beginning of a template, for a message. It repeats no other
// text: a text that is too long for a rule may be a private key in the wrong field.
func shownTemplate(text string) string {
	if !templateStart.MatchString(text) {
		return ""
	}
	return ": " + Shorten(text)
}

// String returns the text of the rule, in lower case except for directives.
func (r Rule) String() string { return r.text }

// Templated reports whether the rule depends on the caller.
func (r Rule) Templated() bool { return r.templated }

// IsGlob reports whether the rule itself has a "*", not only a value.
func (r Rule) IsGlob() bool { return r.glob }

// Values returns the caller's value for a directive, such as identity.entity.name. If the
// caller has no such value, the error is a [*NoValueError]. Any other error is a fault.
type Values func(directive string) (string, error)

// A NoValueError means that a rule matches nothing for this caller. Reason says why, and
// what would help. It repeats none of the caller's values.
type NoValueError struct{ Reason string }

func (e *NoValueError) Error() string { return e.Reason }

// Render puts the caller's values into the rule. A value must consist of characters of a
// name, so a "*" in it can't become part of the rule. The error is that of values, or a
// [*NoValueError].
func (r Rule) Render(values Values) (string, error) {
	if !r.templated {
		return r.text, nil
	}
	var glob strings.Builder
	for _, p := range r.pieces {
		if p.directive == "" {
			glob.WriteString(p.literal)
			continue
		}
		value, err := values(p.directive)
		if err != nil {
			return "", err
		}
		if !namePattern.MatchString(value) {
			return "", &NoValueError{"your identity's value for it is not of a room's alphabet, " + Syntax}
		}
		glob.WriteString(strings.ToLower(value))
	}
	return glob.String(), nil
}

// matches compares a whole name with a rendered rule.
func matches(glob, name string) bool {
	head, rest, found := strings.Cut(glob, "*")
	if !found {
		return glob == name
	}
	name, found = strings.CutPrefix(name, head)
	for found {
		part, next, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(name, part)
		}
		// Taking the first place where a part fits leaves the longest rest for the next parts.
		_, name, found = strings.Cut(name, part)
		rest = next
	}
	return false
}
