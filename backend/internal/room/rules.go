// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package room

import (
	"context"
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
	texts []string

	// Rules that are plain names are looked up; the others are tried in order.
	names  map[string]struct{}
	others []Rule
}

// A ListError says what is wrong with a whole list of rules.
type ListError struct{ text string }

func (e *ListError) Error() string { return e.text }

// An EntryError says which rule of a list is wrong, counting from 1, and why.
type EntryError struct {
	Number int
	Err    *RuleError
}

func (e *EntryError) Error() string { return fmt.Sprintf("entry %d is %s", e.Number, e.Err) }

// Unwrap returns the error of the rule.
func (e *EntryError) Unwrap() error { return e.Err }

// NewRules parses a list of rules. If templates is set, they may be templates. The error
// is a [*ListError] or an [*EntryError].
func NewRules(texts []string, templates bool) (*Rules, error) {
	if len(texts) > MaxRules {
		return nil, &ListError{fmt.Sprintf("has %d entries; %d are allowed", len(texts), MaxRules)}
	}
	length := 0
	for i, text := range texts {
		if isTooLong(text) {
			return nil, &EntryError{i + 1, &RuleError{TooLong}}
		}
		length += len(text)
	}
	if length > MaxRulesLength {
		return nil, &ListError{fmt.Sprintf("has %d bytes in all; %d are allowed", length, MaxRulesLength)}
	}
	r := &Rules{texts: make([]string, len(texts)), names: map[string]struct{}{}}
	templated := 0
	for i, text := range texts {
		rule, err := ParseRule(text, templates)
		if wrong := new(RuleError); errors.As(err, &wrong) {
			return nil, &EntryError{i + 1, wrong}
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
		return nil, &ListError{fmt.Sprintf("has %d templates; %d are allowed", templated, MaxTemplates)}
	}
	return r, nil
}

// Texts returns the rules in their order, in lower case except for directives.
func (r *Rules) Texts() []string { return r.texts }

// Templated reports whether a rule depends on the caller.
func (r *Rules) Templated() bool {
	for _, rule := range r.others {
		if rule.templated {
			return true
		}
	}
	return false
}

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
	rendered []rendering // of rules.others; nil until there is a template to render
}

// A rendering is a template with the values of the caller, or the error.
type rendering struct {
	done bool
	glob string        // empty if the rule can match nothing
	err  *NoValueError // why the caller has no glob
}

// Matcher returns a matcher for a caller who has the given values.
func (r *Rules) Matcher(values Values) *Matcher { return &Matcher{rules: r, values: values} }

// An UnmetError means that a template matches nothing for the caller. It says why.
type UnmetError struct {
	Rule string
	Err  *NoValueError
}

func (e *UnmetError) Error() string {
	return fmt.Sprintf("the template %s matches nothing: %s", Shorten(e.Rule), e.Err)
}

// checkEvery is how many rules are tried before the context is checked again.
const checkEvery = 64

// Match returns the text of a rule that allows the name, or an empty text. If no rule
// does, and the caller lacks the values of a template, the error is an [*UnmetError] for
// the first such template. Any other error is that of the context or of the values.
func (m *Matcher) Match(ctx context.Context, name Name) (string, error) {
	if _, ok := m.rules.names[string(name)]; ok {
		return string(name), nil
	}
	if name == Every {
		return "", nil
	}
	var unmet error
	for i, rule := range m.rules.others {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return "", ctx.Err()
		}
		glob := rule.text
		if rule.templated {
			rendered, err := m.render(i)
			if err != nil {
				return "", err
			}
			if rendered.err != nil && unmet == nil {
				unmet = &UnmetError{rule.text, rendered.err}
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
	if m.rendered == nil {
		m.rendered = make([]rendering, len(m.rules.others))
	}
	r := &m.rendered[i]
	if r.done {
		return *r, nil
	}
	glob, err := m.rules.others[i].Render(m.values)
	if !errors.As(err, &r.err) && err != nil {
		return rendering{}, err
	}
	// Text that is longer than any name can't match one, and is not kept.
	if len(glob)-strings.Count(glob, "*") <= maxNameLength {
		r.glob = glob
	}
	r.done = true
	return *r, nil
}
