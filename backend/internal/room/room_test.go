// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package room

import (
	"errors"
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
	for _, text := range []string{"", "a\n", "a*", "a.b", "\u212aitchen", long + "a"} {
		_, err := ParseName(text)
		require.ErrorIs(t, err, ErrName, text)
	}
}

func TestParseRule(t *testing.T) {
	t.Parallel()
	metadata := func(length int) string { return "{{identity.entity.metadata." + strings.Repeat("é", length-29) + "}}" }
	for text, want := range map[string]string{
		"*":                               "*",
		strings.Repeat("A", 255):          strings.Repeat("a", 255),
		"A-{{ identity.entity.name }}-B*": "a-{{ identity.entity.name }}-b*",
		"{{identity.groups.ids.0b1c.ns1.metadata.Room}}": "{{identity.groups.ids.0b1c.ns1.metadata.Room}}",
		metadata(1024): metadata(1024),
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
		"a.*":                                notARule,
		"\u212a":                             notARule,
		strings.Repeat("a", 256):             notARule,
		strings.Repeat("a", 1025):            tooLong,
		metadata(1025):                       tooLong + ": " + string([]rune(metadata(1025))[:80]) + "…",
		"{{identity.entity.name":             directive,
		"{{identity.entity.metadata.{{x}}}}": directive,
		"{{identity.entity.groups.names}}":   directive, // a list
		strings.Repeat("a", 200) + "{{identity.entity.id}}" + strings.Repeat("b", 56): notARule,
	} {
		_, err := ParseRule(text, true)
		require.EqualError(t, err, want, text)
	}
	_, err := ParseRule("{{identity.entity.id}}", false)
	require.EqualError(t, err, "is a template; set allowed_rooms_template=true too")
	require.Equal(t, strings.Repeat("é", 80), Shorten(strings.Repeat("é", 80)))
}

func TestNewRules(t *testing.T) {
	t.Parallel()
	full := slices.Repeat([]string{strings.Repeat("x", 128)}, MaxRulesLength/128)
	for _, texts := range [][]string{
		nil, slices.Repeat([]string{"a"}, MaxRules), full, {"B-*", strings.Repeat("{{identity.entity.name}}", 40)},
	} {
		rules, err := NewRules("rooms", texts, true)
		require.NoError(t, err)
		require.Len(t, rules.Texts(), len(texts))
		require.Equal(t, strings.Contains(strings.Join(texts, ""), "{{"), rules.Templated())
		size := len(strings.Join(texts, ""))
		for _, rule := range rules.others {
			size += len(rule.pieces) * int(unsafe.Sizeof(piece{}))
		}
		require.GreaterOrEqual(t, rules.Size(), size)
	}
	for want, texts := range map[string][]string{
		"rooms has 2001 entries; 2000 are allowed":        slices.Repeat([]string{"a"}, MaxRules+1),
		"rooms has more than 131072 bytes in all":         append(full, "x"),
		"rooms has 101 templates; 100 are allowed":        append(slices.Repeat([]string{"{{identity.entity.id}}"}, MaxTemplates+1), "a"),
		"entry 2 of rooms " + ErrNotARule.Error():         {"a", "a b"},
		"entry 1 of rooms is longer than 1024 characters": {strings.Repeat("x", 2*MaxRulesLength)}, // rather than the list
	} {
		_, err := NewRules("rooms", texts, true)
		require.EqualError(t, err, want)
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	asked := map[string]int{}
	ann := func(directive string) (string, error) {
		asked[directive]++
		value, ok := map[string]string{"identity.entity.name": "Ann", "identity.entity.id": "a*"}[directive]
		if !ok {
			return "", &NoValueError{"nobody has it"}
		}
		return value, nil
	}
	rules, err := NewRules("rooms", []string{
		"lobby", "support-*", "x-{{identity.entity.name}}", "{{identity.entity.id}}", "{{identity.entity.metadata.team}}",
	}, true)
	require.NoError(t, err)
	m := rules.Matcher(ann)
	for name, want := range map[Name]string{"lobby": "lobby", "support-1": "support-*", "x-ann": "x-{{identity.entity.name}}", Every: ""} {
		rule, err := m.Match(name)
		require.NoError(t, err)
		require.Equal(t, want, rule)
	}
	for _, name := range []Name{"ax", "x-ann-7", "my-support-1"} {
		rule, err := m.Match(name)
		require.ErrorAs(t, err, new(*NoValueError))
		require.EqualError(t, err, "the template {{identity.entity.id}} matches nothing: "+
			"your identity's value for it is not of a room's alphabet, "+Syntax)
		require.Empty(t, rule)
	}
	once := map[string]int{"identity.entity.name": 1, "identity.entity.id": 1, "identity.entity.metadata.team": 1}
	require.Equal(t, once, asked, "each template is rendered once")

	fault := errors.New("no answer")
	m = rules.Matcher(func(string) (string, error) { return "", fault })
	for range 2 {
		_, err = m.Match("b")
		require.ErrorIs(t, err, fault, "a fault is not kept as an answer")
	}
}

// What a value contributes counts towards a name's length, of which 255 characters are
// allowed, with a "*" or without.
func TestRenderedRuleThatIsTooLong(t *testing.T) {
	t.Parallel()
	const directive = "{{identity.entity.name}}"
	rest := strings.Repeat("a", 55)
	for text, fits := range map[string]bool{
		directive + directive + "*": false, directive + "a" + rest: false, directive + rest: true, "*" + directive + rest: true,
	} {
		rules, err := NewRules("rooms", []string{text}, true)
		require.NoError(t, err)
		m := rules.Matcher(func(string) (string, error) { return strings.Repeat("a", 200), nil })
		rule, err := m.Match(Name(strings.Repeat("a", 255)))
		require.NoError(t, err)
		require.Equal(t, fits, rule == text, text)
		require.Equal(t, fits, m.rendered[0].glob != "", "what can match nothing is not kept")
	}
}

// A rule matches just what a regular expression says that it should, never every
// room, and whatever a caller's identity holds is no glob.
func FuzzRules(f *testing.F) {
	for _, glob := range []string{"a*b", "*b", "a*", "*m*", "a*a", "a*b*c", "*b*b", "**"} {
		for _, name := range []string{"a", "b", "ab", "aa", "axb", "xab", "abx", "aba", "abab", "amb", "axbyc", "abcx", "acb", "bb", "bba"} {
			f.Add(glob, name)
		}
	}
	f.Add("*", "*")
	f.Add("*ab*ab", "xabyab")
	f.Add("Support", "SUPPORT")
	f.Add("{{identity.entity.name}}-*", "*")
	f.Add("x{{identity.entity.name}}y", "{{identity.entity.id}}")
	f.Add("*"+strings.Repeat("a*", 120)+"ab", strings.Repeat("a", 255))
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
		matched, err := rules.Matcher(nil).Match(wanted)
		require.NoError(t, err)
		pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(strings.ToLower(text)), `\*`, "[a-z0-9_-]*") + "$"
		require.Equal(t, regexp.MustCompile(pattern).MatchString(string(wanted)), matched != "", "%q %q", text, wanted)
	})
}

var directives = regexp.MustCompile(`{{[^}]*}}`)
