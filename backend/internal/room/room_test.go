// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package room

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func TestParseName(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 255)
	for text, want := range map[string]Name{"a": "a", "Support-1_x": "support-1_x", "*": Every, long: Name(long)} {
		name, err := ParseName(text)
		require.NoError(t, err)
		require.Equal(t, want, name)
	}
	for _, text := range []string{"", " a", "a\n", "a*", "**", "a.b", "a,b", "\u212aitchen", "é", long + "a", "{{x}}"} {
		_, err := ParseName(text)
		require.ErrorIs(t, err, ErrName, text)
	}
}

func TestParseRule(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Support-*":                       "support-*",
		"*":                               "*",
		strings.Repeat("A", 255):          strings.Repeat("a", 255),
		"{{identity.entity.id}}":          "{{identity.entity.id}}",
		"A-{{ identity.entity.name }}-B*": "a-{{ identity.entity.name }}-b*",
		"{{identity.groups.ids.0b1c.ns1.metadata.Room}}":                    "{{identity.groups.ids.0b1c.ns1.metadata.Room}}",
		"{{identity.entity.metadata." + strings.Repeat("é", 1024-29) + "}}": "{{identity.entity.metadata." + strings.Repeat("é", 1024-29) + "}}",
	} {
		rule, err := ParseRule(text, true)
		require.NoError(t, err, text)
		require.Equal(t, want, rule.String())
		require.Equal(t, strings.Contains(text, "{{"), rule.Templated(), text)
		require.Equal(t, strings.Contains(text, "*"), rule.IsGlob(), text)
	}
	const (
		notARule  = `must be a room name or a glob: 1 to 255 of a-z, 0-9, "_" and "-", with "*" for any part of a name`
		directive = "has a template that is unknown or not closed by }}; use one like {{identity.entity.id}} or {{identity.entity.metadata.team}}"
		tooLong   = "is longer than 1024 characters"
	)
	for text, want := range map[string]string{
		"":                                   notARule,
		"a b":                                notARule,
		"a.*":                                notARule,
		"\u212a":                             notARule,
		strings.Repeat("a", 256):             notARule,
		strings.Repeat("a", 1025):            tooLong,
		"{{time.now}}":                       directive,
		"{{identity.entity.name":             directive,
		"{{identity.entity.metadata.{{x}}}}": directive,
		"{{identity.entity.groups.names}}":   directive,
		"a-identity.entity.name}}":           notARule,
		"{{identity.groups.ids.a.name}}{{}}": directive,
		"{{identity.entity.metadata." + strings.Repeat("é", 1025-29) + "}}":           tooLong + ": {{identity.entity.metadata." + strings.Repeat("é", 80-27) + "…",
		strings.Repeat("a", 200) + "{{identity.entity.id}}" + strings.Repeat("b", 56): notARule,
	} {
		_, err := ParseRule(text, true)
		require.EqualError(t, err, want, text)
	}
	_, err := ParseRule("{{identity.entity.id}}", false)
	require.EqualError(t, err, "is a template; set allowed_rooms_template=true too")
}

func TestNewRules(t *testing.T) {
	t.Parallel()
	many := func(n int, text string) []string {
		texts := make([]string, n)
		for i := range texts {
			texts[i] = text
		}
		return texts
	}
	for _, texts := range [][]string{nil, {"a", "B-*"}, many(MaxRules, "a"), many(MaxRulesLength/128, strings.Repeat("x", 128))} {
		rules, err := NewRules("rooms", texts, false)
		require.NoError(t, err)
		require.Len(t, rules.Texts(), len(texts))
		require.Greater(t, rules.Size(), len(strings.Join(texts, ""))-1)
	}
	_, err := NewRules("rooms", many(MaxRules+1, "a"), false)
	require.EqualError(t, err, "rooms has 2001 entries; 2000 are allowed")
	_, err = NewRules("rooms", many(MaxRulesLength/128, strings.Repeat("x", 129)), false)
	require.EqualError(t, err, "rooms has more than 131072 bytes in all")
	_, err = NewRules("rooms", append(many(MaxRulesLength/128, strings.Repeat("x", 128)), "x"), false)
	require.EqualError(t, err, "rooms has more than 131072 bytes in all")
	_, err = NewRules("rooms", append(many(MaxTemplates+1, "{{identity.entity.id}}"), "a"), true)
	require.EqualError(t, err, "rooms has 101 templates; 100 are allowed")
	_, err = NewRules("rooms", []string{"a", "a b"}, false)
	require.ErrorIs(t, err, ErrNotARule)
	require.ErrorContains(t, err, "entry 2 of rooms must be a room name or a glob")
	_, err = NewRules("rooms", []string{"a", "b", strings.Repeat("x", 2*MaxRulesLength)}, false)
	require.EqualError(t, err, "entry 3 of rooms is longer than 1024 characters", "rather than the list")
}

// values are those of one caller; the count is how often each was asked for.
type values struct {
	of    map[string]string
	fault error
	asked map[string]int
}

func (v *values) get(directive string) (string, error) {
	v.asked[directive]++
	if v.fault != nil {
		return "", v.fault
	}
	value, ok := v.of[directive]
	if !ok {
		return "", &NoValueError{"nobody has it"}
	}
	return value, nil
}

func caller(of map[string]string) *values { return &values{of: of, asked: map[string]int{}} }

func TestMatch(t *testing.T) {
	t.Parallel()
	ann := caller(map[string]string{"identity.entity.name": "Ann", "identity.entity.id": "a*"})
	rules, err := NewRules("rooms", []string{"lobby", "support-*", "x-{{identity.entity.name}}-*", "{{identity.entity.id}}", "{{identity.entity.metadata.team}}"}, true)
	require.NoError(t, err)
	require.True(t, rules.Templated())
	m := rules.Matcher(ann.get)
	for name, want := range map[Name]string{"lobby": "lobby", "support-1": "support-*", "x-ann-7": "x-{{identity.entity.name}}-*"} {
		rule, err := m.Match(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, want, rule)
	}
	for _, name := range []Name{"a", "ax", "x-bob-7", "my-support-1"} {
		rule, err := m.Match(t.Context(), name)
		require.ErrorAs(t, err, new(*NoValueError))
		require.EqualError(t, err, "the template {{identity.entity.id}} matches nothing: your identity's value for it is not of a room's alphabet, "+Syntax)
		require.Empty(t, rule)
	}
	rule, err := m.Match(t.Context(), Every)
	require.NoError(t, err)
	require.Empty(t, rule)
	require.Equal(t, map[string]int{"identity.entity.name": 1, "identity.entity.id": 1, "identity.entity.metadata.team": 1}, ann.asked, "each template is rendered once")
}

// A glob matches a name whole, at either end and with its parts in their order.
func TestMatchIsWhole(t *testing.T) {
	t.Parallel()
	for glob, names := range map[string]map[Name]bool{
		"a*b":   {"ab": true, "axb": true, "abab": true, "abx": false, "xab": false, "b": false, "aba": false},
		"*b":    {"b": true, "ab": true, "bx": false, "abx": false},
		"a*":    {"a": true, "ab": true, "xa": false},
		"*m*":   {"m": true, "amb": true, "ab": false},
		"a*a":   {"aa": true, "aba": true, "a": false},
		"a*b*c": {"abc": true, "axbyc": true, "acb": false, "ac": false, "abcx": false},
		"*b*b":  {"bb": true, "bab": true, "b": false, "bba": false},
	} {
		rules, err := NewRules("rooms", []string{glob}, false)
		require.NoError(t, err)
		for name, want := range names {
			rule, err := rules.Matcher(nil).Match(t.Context(), name)
			require.NoError(t, err)
			require.Equal(t, want, rule == glob, "%s %s", glob, name)
		}
	}
}

// A context that ends while rules are compared is seen soon.
func TestMatchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	rules, err := NewRules("rooms", slices.Repeat([]string{"{{identity.entity.name}}"}, MaxTemplates), true)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	m := rules.Matcher(func(string) (string, error) {
		if asked++; asked == 10 {
			cancel()
		}
		return "x", nil
	})
	_, err = m.Match(ctx, "b")
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, checkEvery, asked)
}

func TestMatchFaults(t *testing.T) {
	t.Parallel()
	rules, err := NewRules("rooms", []string{"{{identity.entity.name}}", "a"}, true)
	require.NoError(t, err)
	fault := errors.New("no answer")
	broken := caller(nil)
	broken.fault = fault
	m := rules.Matcher(broken.get)
	for range 2 {
		_, err = m.Match(t.Context(), "b")
		require.ErrorIs(t, err, fault, "a fault is not kept as an answer")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = m.Match(ended, "b")
	require.ErrorIs(t, err, context.Canceled)
}

// What a value contributes counts towards a name's length.
func TestRenderedRuleThatIsTooLong(t *testing.T) {
	t.Parallel()
	long := caller(map[string]string{"identity.entity.name": strings.Repeat("a", 200)})
	rules, err := NewRules("rooms", []string{"{{identity.entity.name}}{{identity.entity.name}}*", "{{identity.entity.name}}*"}, true)
	require.NoError(t, err)
	m := rules.Matcher(long.get)
	rule, err := m.Match(t.Context(), Name(strings.Repeat("a", 255)))
	require.NoError(t, err)
	require.Equal(t, "{{identity.entity.name}}*", rule)
	require.Empty(t, m.rendered[0].glob, "what can match nothing is not kept")

	// 255 characters are a name, with a "*" or without.
	for _, text := range []string{"{{identity.entity.name}}" + strings.Repeat("a", 55), "*{{identity.entity.name}}" + strings.Repeat("a", 55)} {
		rules, err = NewRules("rooms", []string{text}, true)
		require.NoError(t, err)
		rule, err = rules.Matcher(long.get).Match(t.Context(), Name(strings.Repeat("a", 255)))
		require.NoError(t, err)
		require.Equal(t, text, rule)
	}
}

// Size counts each part of a rule, which takes memory of its own.
func TestSizeCountsTheParts(t *testing.T) {
	t.Parallel()
	const directive = "{{identity.entity.name}}"
	one, err := NewRules("rooms", []string{directive}, true)
	require.NoError(t, err)
	many, err := NewRules("rooms", []string{strings.Repeat(directive, 40)}, true)
	require.NoError(t, err)
	pieces := len(many.others[0].pieces)
	require.Greater(t, many.Size()-one.Size(), pieces*int(unsafe.Sizeof(piece{}))/2+2*39*len(directive))
}

func TestShorten(t *testing.T) {
	t.Parallel()
	require.Equal(t, "short", Shorten("short"))
	require.Equal(t, strings.Repeat("é", 80), Shorten(strings.Repeat("é", 80)))
	require.Equal(t, strings.Repeat("é", 80)+"…", Shorten(strings.Repeat("é", 81)))
}

// A rule matches just what a regular expression says that it should, never every
// room, and whatever a caller's identity holds is no glob.
func FuzzRules(f *testing.F) {
	for _, seed := range [][2]string{
		{"support-*", "support-1"},
		{"*", "*"},
		{"**", "x"},
		{"a*b*c", "aXbYc"},
		{"a*a", "a"},
		{"*ab*ab", "xabyab"},
		{"Support", "SUPPORT"},
		{"", ""},
		{"a.*", "ab"},
		{"{{identity.entity.name}}", "*"},
		{"{{identity.entity.name}}-*", "ann"},
		{"x{{identity.entity.name}}y", "{{identity.entity.id}}"},
		{"\u212a*", "k1"},
		{"a*", "a\n"},
		{strings.Repeat("*", 255), strings.Repeat("a", 255)},
		{"*" + strings.Repeat("a*", 120) + "ab", strings.Repeat("a", 255)},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		if rule, err := ParseRule(text, true); err == nil {
			again, err := ParseRule(rule.String(), true)
			require.NoError(t, err)
			require.Equal(t, rule, again)
			values := func(string) (string, error) { return name, nil }
			if rendered, err := rule.Render(values); err == nil {
				require.Equal(t, strings.Count(directives.ReplaceAllString(rule.String(), ""), "*"), strings.Count(rendered, "*"), rendered)
			}
		}
		wanted, err := ParseName(name)
		rules, listErr := NewRules("rooms", []string{text}, false)
		if err != nil || listErr != nil {
			return
		}
		matched, err := rules.Matcher(nil).Match(t.Context(), wanted)
		require.NoError(t, err)
		pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(strings.ToLower(text)), `\*`, "[a-z0-9_-]*") + "$"
		require.Equal(t, regexp.MustCompile(pattern).MatchString(string(wanted)), matched != "", "%q %q", text, wanted)
	})
}

var directives = regexp.MustCompile(`{{[^}]*}}`)

func ExampleRules() {
	rules, err := NewRules("rooms", []string{"support-*", "team-{{identity.entity.metadata.team}}"}, true)
	if err != nil {
		panic(err)
	}
	blue := func(directive string) (string, error) {
		if directive == "identity.entity.metadata.team" {
			return "Blue", nil
		}
		return "", &NoValueError{"this caller has no such value"}
	}
	m := rules.Matcher(blue)
	for _, name := range []Name{"support-4711", "team-blue", "team-red"} {
		rule, err := m.Match(context.Background(), name)
		fmt.Printf("%s: %q %v\n", name, rule, err)
	}
	// Output:
	// support-4711: "support-*" <nil>
	// team-blue: "team-{{identity.entity.metadata.team}}" <nil>
	// team-red: "" <nil>
}

func ExampleParseName() {
	name, err := ParseName("Support-4711")
	fmt.Println(name, err)
	_, err = ParseName("support 4711")
	fmt.Println(err)
	// Output:
	// support-4711 <nil>
	// not a room name: 1 to 255 of a-z, 0-9, "_" and "-"
}
