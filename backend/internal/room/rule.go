// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package room

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// MaxRuleLength is the most characters that the text of a rule may have, with its
// directives.
const MaxRuleLength = 1024

// Literal text of a rule: the alphabet of names, and "*".
var literalPattern = regexp.MustCompile(`^[A-Za-z0-9_*-]*$`)

// The directives are those of Vault's templated policies, as far as each stands for
// one text. OpenBao writes the ID of a group in a namespace with a dot in it.
var directivePattern = regexp.MustCompile(`^identity\.(` +
	`entity\.(id|name|metadata\.[^{}]+|aliases\.[^.{}]+\.(id|name|metadata\.[^{}]+|custom_metadata\.[^{}]+))|` +
	`groups\.(ids\.[^.{}]+(\.[^.{}]+)?|names\.[^.{}]+)\.(id|name|metadata\.[^{}]+))$`)

// A Rule allows names. The zero value is not a rule.
type Rule struct {
	text      string // in lower case, but for directives
	pieces    []piece
	templated bool
}

// piece is literal text, or else a directive without its braces.
type piece struct {
	literal   string
	directive string
}

// A Problem is what is wrong with the text of a rule.
type Problem int

// The problems that the text of a rule can have.
const (
	NotARule           Problem = iota + 1 // neither a name nor a glob
	UnexpectedTemplate                    // a template where there may be none
	UnknownDirective                      // a directive that is unknown or not closed
	TooLong                               // more than MaxRuleLength characters
)

// A RuleError says what is wrong with the text of a rule.
type RuleError struct{ Problem Problem }

func (e *RuleError) Error() string {
	switch e.Problem {
	case UnexpectedTemplate:
		return "a template where there may be none"
	case UnknownDirective:
		return "a template directive that is unknown or not closed"
	case TooLong:
		return fmt.Sprintf("longer than %d characters", MaxRuleLength)
	default:
		return "neither a name nor a glob"
	}
}

// ParseRule reads a rule, which may be a template if templates is set. Its error is
// a [*RuleError].
func ParseRule(text string, templates bool) (Rule, error) {
	if isTooLong(text) {
		return Rule{}, &RuleError{TooLong}
	}
	var rule Rule
	var lowered strings.Builder
	length := 0
	for rest := text; rest != ""; {
		before, after, found := strings.Cut(rest, "{{")
		// Literal text that is longer than a name can't be part of one.
		length += len(before)
		if !literalPattern.MatchString(before) || length > maxNameLength {
			return Rule{}, &RuleError{NotARule}
		}
		if found && !templates {
			return Rule{}, &RuleError{UnexpectedTemplate}
		}
		lowered.WriteString(strings.ToLower(before))
		rule.pieces = append(rule.pieces, piece{literal: strings.ToLower(before)})
		if !found {
			break
		}
		inner, next, closed := strings.Cut(after, "}}")
		directive := strings.TrimSpace(inner)
		if !closed || !directivePattern.MatchString(directive) {
			return Rule{}, &RuleError{UnknownDirective}
		}
		lowered.WriteString("{{" + inner + "}}")
		rule.pieces = append(rule.pieces, piece{directive: directive})
		rule.templated = true
		rest = next
	}
	if len(rule.pieces) == 0 {
		return Rule{}, &RuleError{NotARule}
	}
	rule.text = lowered.String()
	return rule, nil
}

func isTooLong(text string) bool { return utf8.RuneCountInString(text) > MaxRuleLength }

// String is the text of the rule, in lower case but for its directives.
func (r Rule) String() string { return r.text }

// Templated reports whether the rule depends on the caller.
func (r Rule) Templated() bool { return r.templated }

// IsGlob reports whether the rule has a "*" of its own.
func (r Rule) IsGlob() bool {
	for _, p := range r.pieces {
		if strings.Contains(p.literal, "*") {
			return true
		}
	}
	return false
}

// Values returns what a directive, like identity.entity.name, stands for. If the
// caller has no such value, its error is a [*NoValueError]; any other error is a
// fault.
type Values func(directive string) (string, error)

// A NoValueError means that a rule matches nothing for this caller. Reason says why
// and what would help, and repeats nothing of the caller's values.
type NoValueError struct{ Reason string }

func (e *NoValueError) Error() string { return e.Reason }

// Render puts the caller's values into the rule. A value is literal: it must be part
// of a name, so it holds neither a "*" nor anything else that would mean something
// in a rule. The error is that of values, or a [*NoValueError].
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

// matches compares a name, whole, with a rendered rule.
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
		// The first place where a part fits leaves the most for the parts after it.
		_, name, found = strings.Cut(name, part)
		rest = next
	}
	return false
}
