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
	// MaxRules is the most rules that a list may have.
	MaxRules = 2000
	// MaxRulesLength is the most bytes that all rules of a list may have together.
	MaxRulesLength = 128 << 10
)

// Rules is a list of rules, any of which allows a name. It never changes.
type Rules struct {
	texts []string

	// Rules that are one name are looked up; the others are tried one after the other.
	names  map[string]struct{}
	others []Rule
}

// A ListError says why a list of rules is refused as a whole.
type ListError struct{ text string }

func (e *ListError) Error() string { return e.text }

// An EntryError says which rule of a list is wrong, counted from 1, and why.
type EntryError struct {
	Number int
	Err    *RuleError
}

func (e *EntryError) Error() string { return fmt.Sprintf("entry %d is %s", e.Number, e.Err) }

// Unwrap returns the error of the rule.
func (e *EntryError) Unwrap() error { return e.Err }

// NewRules reads a list of rules, which may be templates if templates is set. Its
// error is a [*ListError] or an [*EntryError].
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
	}
	return r, nil
}

// Texts are the rules in their order, in lower case but for directives.
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

// Size is about how many bytes of memory the rules take.
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

// A Matcher compares names with rules for one caller. Each template is rendered once,
// when a name is first compared with it. It is for one goroutine.
type Matcher struct {
	rules    *Rules
	values   Values
	rendered []rendering // of rules.others; nil until there is a template to render
}

// A rendering is what became of a template for the caller.
type rendering struct {
	done bool
	glob string        // empty if the rule can match nothing
	err  *NoValueError // why the caller has no glob
}

// Matcher returns a matcher for a caller who has the given values.
func (r *Rules) Matcher(values Values) *Matcher { return &Matcher{rules: r, values: values} }

// An UnmetError is a template that matches nothing for the caller, and the reason.
type UnmetError struct {
	Rule string
	Err  *NoValueError
}

func (e *UnmetError) Error() string {
	return fmt.Sprintf("the template %s matches nothing: %s", Shorten(e.Rule), e.Err)
}

// checkEvery is how many rules are tried between two looks at the context.
const checkEvery = 64

// Match returns the text of a rule that allows the name, empty if none does. Its
// error then is an [*UnmetError] for the first template that the caller has no values
// for, if there is one. Any other error is that of the context or of the values.
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

// render renders a template the first time that it is needed. Its error is a fault.
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
	// Literal text that is longer than a name can't match one, and is not kept.
	if len(glob)-strings.Count(glob, "*") <= maxNameLength {
		r.glob = glob
	}
	r.done = true
	return *r, nil
}
