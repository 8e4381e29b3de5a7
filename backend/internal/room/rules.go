// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package room

import (
	"errors"
	"fmt"
	"strings"
)

const (
	// MaxRules is the maximum number of rules in a list.
	MaxRules = 2000
	// MaxTemplates is the maximum number of templates in a list. A template takes a hundred
	// times the time of another rule.
	MaxTemplates = 100
	// MaxRulesLength is the maximum size of all rules of a list together, in bytes.
	MaxRulesLength = 128 << 10
)

// Rules is a list of rules. A name is allowed if one of them allows it. It is immutable.
type Rules struct {
	texts     []string
	templated bool

	// Rules that are plain names are looked up; the others are tried in order.
	names  map[string]struct{}
	others []Rule
}

// NewRules parses a list of rules. If templates is set, they may be templates. The error is
// a sentence about the field that has the list.
func NewRules(field string, texts []string, templates bool) (*Rules, error) {
	if len(texts) > MaxRules {
		return nil, fmt.Errorf("%s has %d entries; %d are allowed", field, len(texts), MaxRules)
	}
	r := &Rules{texts: make([]string, len(texts)), names: map[string]struct{}{}}
	length, templated := 0, 0
	for i, text := range texts {
		rule, err := ParseRule(text, templates)
		if err != nil {
			return nil, fmt.Errorf("entry %d of %s %w", i+1, field, err)
		}
		if length += len(text); length > MaxRulesLength {
			return nil, fmt.Errorf("%s has more than %d bytes in all", field, MaxRulesLength)
		}
		r.texts[i] = rule.text
		if namePattern.MatchString(rule.text) {
			r.names[rule.text] = struct{}{}
		} else {
			r.others = append(r.others, rule)
		}
		if rule.templated {
			templated++
		}
	}
	if templated > MaxTemplates {
		return nil, fmt.Errorf("%s has %d templates; %d are allowed", field, templated, MaxTemplates)
	}
	r.templated = templated > 0
	return r, nil
}

// Texts returns the rules in their order, in lower case except for directives.
func (r *Rules) Texts() []string { return r.texts }

// Templated reports whether a rule depends on the caller.
func (r *Rules) Templated() bool { return r.templated }

// Size returns about how many bytes of memory the rules use.
func (r *Rules) Size() int {
	const perRule, perPiece = 96, 32 // headers of strings and slices, and an entry of a map
	size := perRule * len(r.texts)
	for _, text := range r.texts {
		size += 2 * len(text)
	}
	for _, rule := range r.others {
		size += perPiece * len(rule.pieces)
	}
	return size
}

// A Matcher compares names with rules for one caller. It renders each template once, when
// it first needs it. It is for one goroutine.
type Matcher struct {
	rules    *Rules
	values   Values
	rendered map[int]rendering // by the index in rules.others
}

// A rendering is the glob of a template for the caller, or why there is none.
type rendering struct {
	glob string // empty if it can match nothing
	err  *NoValueError
}

// Matcher returns a matcher for a caller who has the given values.
func (r *Rules) Matcher(values Values) *Matcher {
	return &Matcher{rules: r, values: values, rendered: map[int]rendering{}}
}

// Match returns the text of a rule that allows the name, or an empty text. If no rule
// does, and the caller lacks the values of a template, the error is a [*NoValueError] for
// the first such template, which it names. Any other error is that of the values.
func (m *Matcher) Match(name Name) (string, error) {
	if _, ok := m.rules.names[string(name)]; ok {
		return string(name), nil
	}
	if name == Every {
		return "", nil
	}
	var unmet error
	for i, rule := range m.rules.others {
		glob := rule.text
		if rule.templated {
			rendered, err := m.render(i)
			if err != nil {
				return "", err
			}
			if rendered.err != nil && unmet == nil {
				unmet = fmt.Errorf("the template %s matches nothing: %w", Shorten(rule.text), rendered.err)
			}
			glob = rendered.glob
		}
		if glob != "" && matches(glob, string(name)) {
			return rule.text, nil
		}
	}
	return "", unmet
}

// render renders a template when it is first needed. The error is a fault.
func (m *Matcher) render(i int) (rendering, error) {
	if r, ok := m.rendered[i]; ok {
		return r, nil
	}
	var r rendering
	glob, err := m.rules.others[i].Render(m.values)
	if !errors.As(err, &r.err) && err != nil {
		return r, err
	}
	// Text that is longer than any name can't match one, and is not kept.
	if len(glob)-strings.Count(glob, "*") <= maxNameLength {
		r.glob = glob
	}
	m.rendered[i] = r
	return r, nil
}
