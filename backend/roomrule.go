// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"regexp"
	"strings"

	"github.com/ryanuber/go-glob"
)

// maxNameLength is that of a room's name. The literal text of a rule can't be
// longer and match one.
const maxNameLength = 255

// Literal text of a rule: a room's alphabet and "*".
var literalPattern = regexp.MustCompile(`^[A-Za-z0-9_*-]*$`)

// The directives that a rule may hold are those of Vault's templated policies, as
// far as each stands for one text.
var directivePattern = regexp.MustCompile(`^identity\.(` +
	`entity\.(id|name|metadata\.[^{}]+|aliases\.[^.{}]+\.(id|name|metadata\.[^{}]+|custom_metadata\.[^{}]+))|` +
	`groups\.(ids|names)\.[^.{}]+\.(id|name|metadata\.[^{}]+))$`)

// A roomRule is an entry of allowed_rooms: a name, or a glob in which "*" stands
// for any part of a name. It may be a template, in which directives stand for
// parts of a name that depend on the caller.
type roomRule struct {
	text   string // as the role has it, in lower case but for directives
	pieces []rulePiece
}

// rulePiece is literal text, or else a directive without its braces.
type rulePiece struct {
	literal   string
	directive string
}

var (
	errRuleSyntax    = errors.New("neither a name nor a glob")
	errRuleTemplate  = errors.New("a template where there may be none")
	errRuleDirective = errors.New("not a template directive")
)

// parseRule reads an entry, which may be a template if templates is set. Its error
// is one of the three above.
func parseRule(text string, templates bool) (roomRule, error) {
	var rule roomRule
	length := 0
	for rest := text; rest != ""; {
		before, after, found := strings.Cut(rest, "{{")
		length += len(before)
		if !literalPattern.MatchString(before) || length > maxNameLength {
			return roomRule{}, errRuleSyntax
		}
		if found && !templates {
			return roomRule{}, errRuleTemplate
		}
		rule.text += strings.ToLower(before)
		rule.pieces = append(rule.pieces, rulePiece{literal: strings.ToLower(before)})
		if !found {
			break
		}
		inner, next, closed := strings.Cut(after, "}}")
		directive := strings.TrimSpace(inner)
		if !closed || !directivePattern.MatchString(directive) {
			return roomRule{}, errRuleDirective
		}
		rule.text += "{{" + inner + "}}"
		rule.pieces = append(rule.pieces, rulePiece{directive: directive})
		rest = next
	}
	if len(rule.pieces) == 0 {
		return roomRule{}, errRuleSyntax
	}
	return rule, nil
}

// templated tells whether the rule depends on the caller.
func (r roomRule) templated() bool {
	for _, piece := range r.pieces {
		if piece.directive != "" {
			return true
		}
	}
	return false
}

// render puts the caller's values in. What a value contributes is literal: it is
// checked to be part of a name, so that it holds neither a "*" nor anything else
// that would mean something in a rule. The error is a caller's that has no such
// value, or a fault.
func (r roomRule) render(c *caller) (string, error) {
	if !r.templated() {
		return r.text, nil
	}
	var glob strings.Builder
	for _, piece := range r.pieces {
		value := piece.literal
		if piece.directive != "" {
			var err error
			if value, err = c.value(piece.directive); err != nil {
				return "", err
			}
		}
		glob.WriteString(value)
	}
	return glob.String(), nil
}

// matches compares a room, whole, with a rendered rule. Most rules that don't match
// differ at their beginning, which is much cheaper to see.
func matches(rendered string, wanted room) bool {
	prefix, _, _ := strings.Cut(rendered, "*")
	return strings.HasPrefix(string(wanted), prefix) && glob.Glob(rendered, string(wanted))
}
