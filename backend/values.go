// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
)

// A value of a request has one meaning, or it is refused. The SDK is more lenient:
// it reads 010 as eight, true as 1, and a list of booleans as a list of strings. So
// takeValues runs before the SDK sees a request, and leaves only values of the fields'
// own types.

// The errors of a value say in which way it is not one of its type's.
var (
	errWrongType    = errors.New("not a value of its type")
	errTooLarge     = errors.New("too large")           // a number or duration that is well formed
	errMilliseconds = errors.New("in milliseconds")     // a time that is not in seconds
	errNoDate       = errors.New("outside of RFC 3339") // a time that no date can express
)

// takeValues converts each value to the type of its field, in place. A null, and an
// empty time or duration, count as not given and are removed. Fields without a schema
// stay as they are. The error is the caller's mistake. It names all fields with a wrong
// value, and repeats no value.
func takeValues(data map[string]any, fields map[string]*framework.FieldSchema) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(data)) {
		field := fields[name]
		if data[name] == nil {
			delete(data, name)
			continue
		}
		if field == nil {
			continue
		}
		value, err := takeValue(data[name], field.Type)
		entry := new(entryTypeError)
		switch {
		case errors.As(err, &entry):
			problems = append(problems, invalid("entry %d of %s must be a string", entry.number, name))
		case err != nil:
			problems = append(problems, invalid("%s %s", name, problem(err, field.Type)))
		case value == nil:
			delete(data, name)
		default:
			data[name] = value
		}
	}
	return errors.Join(problems...)
}

// An entryTypeError is an entry of a list, counted from 1, that is not a string.
type entryTypeError struct{ number int }

func (e *entryTypeError) Error() string { return "an entry is not a string" }

// takeValue converts a value to the type of its field; nil means that it was not given.
func takeValue(raw any, t framework.FieldType) (any, error) {
	switch t {
	case framework.TypeInt:
		return takeInt(raw)
	case framework.TypeBool:
		return takeBool(raw)
	case framework.TypeDurationSecond:
		return takeSeconds(raw)
	case framework.TypeTime:
		return takeTime(raw)
	case framework.TypeCommaStringSlice:
		return takeStrings(raw)
	case framework.TypeSlice:
		if list, ok := raw.([]any); ok {
			return list, nil
		}
		return nil, errWrongType
	default:
		return takeString(raw)
	}
}

// accepted describes the values that a field of the type accepts.
func accepted(t framework.FieldType) string {
	switch t {
	case framework.TypeBool:
		return "true or false"
	case framework.TypeInt:
		return "a whole number in decimal digits"
	case framework.TypeDurationSecond:
		return "in whole seconds and not negative, like 90, 90s or 15m"
	case framework.TypeTime:
		return "RFC 3339, like 2030-01-31T09:00:00Z, or whole seconds since the epoch"
	case framework.TypeCommaStringSlice:
		return "a list of strings, or one string with commas"
	case framework.TypeSlice:
		return `a list of objects, which the CLI takes only in JSON: from standard input, by "-", or from a file, by "@file"`
	default:
		return "one string"
	}
}

// problem says what is wrong with a value, and what would be right.
func problem(err error, t framework.FieldType) string {
	switch {
	case errors.Is(err, errMilliseconds):
		return "seems to be in milliseconds; give it in seconds since the epoch"
	case errors.Is(err, errNoDate):
		return "must be after 0001-01-01T00:00:00Z and, in UTC, before the year 10000"
	case !errors.Is(err, errTooLarge):
		return "must be " + accepted(t)
	case t == framework.TypeDurationSecond:
		return "is too large; no duration is longer than " + inDays(maxLife)
	default:
		return "is too large; give a smaller number"
	}
}

// maxExact is where a float64 stops holding every integer. The plugin protocol turns
// every JSON number into a float64.
const maxExact = 1 << 53

var wholePattern = regexp.MustCompile(`^-?[0-9]+$`)

// wholeNumber returns the digits of a whole number that is not text.
func wholeNumber(raw any) (digits string, ok bool) {
	switch v := raw.(type) {
	case float64:
		if v != math.Trunc(v) || math.IsInf(v, 0) {
			return "", false
		}
		return strconv.FormatFloat(v, 'f', 0, 64), true
	case json.Number:
		if wholePattern.MatchString(v.String()) {
			return v.String(), true
		}
		f, err := v.Float64()
		if err != nil {
			return "", false
		}
		return wholeNumber(f)
	case int:
		return strconv.Itoa(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	}
	return "", false
}

// parseWhole reads decimal digits, with or without leading zeros. An error other than
// errTooLarge means that the text is not digits.
func parseWhole(digits string) (int64, error) {
	if !wholePattern.MatchString(digits) {
		return 0, errWrongType
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, errTooLarge
	}
	return n, nil
}

// digitsOf returns the text of a string, or the digits of a number.
func digitsOf(raw any) (string, bool) {
	if text, ok := raw.(string); ok {
		return text, true
	}
	return wholeNumber(raw)
}

func takeInt(raw any) (any, error) {
	digits, ok := digitsOf(raw)
	if !ok {
		return nil, errWrongType
	}
	n, err := parseWhole(digits)
	if err == nil && (n > math.MaxInt32 || n < math.MinInt32) {
		err = errTooLarge
	}
	return int(n), err
}

func takeBool(raw any) (any, error) {
	if v, ok := raw.(bool); ok {
		return v, nil
	}
	text, ok := digitsOf(raw)
	if !ok {
		return nil, errWrongType
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		return nil, errWrongType
	}
	return v, nil
}

// takeString turns a whole number into its digits: YAML reads a room name such as 4711
// as a number.
func takeString(raw any) (any, error) {
	text, ok := digitsOf(raw)
	if !ok {
		return nil, errWrongType
	}
	if _, isText := raw.(string); !isText {
		if n, err := parseWhole(text); err != nil || n >= maxExact || n <= -maxExact {
			return nil, errWrongType
		}
	}
	return text, nil
}

// takeStrings splits a string at commas, and takes a list of strings as it is.
func takeStrings(raw any) (any, error) {
	var texts []string
	switch v := raw.(type) {
	case string:
		if v != "" {
			texts = strings.Split(v, ",")
		}
	case []string:
		texts = slices.Clone(v)
	case []any:
		for i, item := range v {
			text, err := takeString(item)
			if err != nil {
				return nil, &entryTypeError{i + 1}
			}
			texts = append(texts, text.(string))
		}
	default:
		return nil, errWrongType
	}
	for i := range texts {
		texts[i] = strings.TrimSpace(texts[i])
	}
	return append([]string{}, texts...), nil
}

var durationPattern = regexp.MustCompile(`^([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)`)

// takeSeconds reads a duration as Vault does, and returns whole seconds.
func takeSeconds(raw any) (any, error) {
	text, ok := digitsOf(raw)
	if !ok {
		return nil, errWrongType
	}
	if text == "" {
		return nil, nil
	}
	unit := int64(1)
	if digits, isDays := strings.CutSuffix(text, "d"); isDays {
		text, unit = digits, 24*60*60
	}
	n, err := parseWhole(text)
	switch {
	case errors.Is(err, errTooLarge) && !strings.HasPrefix(text, "-"), n > int64(math.MaxInt64/time.Second)/unit:
		return nil, errTooLarge
	case err == nil && n >= 0:
		return n * unit, nil
	case unit != 1:
		return nil, errWrongType
	}
	return takeUnits(text)
}

// takeUnits reads a duration such as 1h30m.
func takeUnits(text string) (any, error) {
	for rest := text; rest != ""; {
		part := durationPattern.FindString(rest)
		if part == "" {
			return nil, errWrongType
		}
		rest = rest[len(part):]
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return nil, errTooLarge // its form is right
	case d%time.Second != 0:
		return nil, errWrongType // the SDK would cut the rest off
	}
	return int64(d / time.Second), nil
}

// RFC 3339, section 5.6, which allows lower case; time.Parse does not, and accepts forms
// that RFC 3339 does not. A "+" that was not escaped in a URL arrives as a space. The
// space can mean nothing else. Of a leap second, time.Parse knows nothing.
var timePattern = regexp.MustCompile(`^([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:)([0-9]{2})((?:\.[0-9]+)?)(?:[Zz]|([+ -])((?:[01][0-9]|2[0-3]):[0-5][0-9]))$`)

const (
	// The dates that RFC 3339 can express in UTC, without Go's zero time.
	firstDate = -62_135_596_799
	lastDate  = 253_402_300_799

	// manyDigits is the year 5138 in seconds, and 1973 in milliseconds.
	manyDigits = 100_000_000_000
)

// takeTime reads a time, and returns whole seconds since the epoch.
func takeTime(raw any) (any, error) {
	text, ok := digitsOf(raw)
	if !ok {
		return nil, errWrongType
	}
	if text == "" {
		return nil, nil
	}
	if parts := timePattern.FindStringSubmatch(text); parts != nil {
		return takeDate(parts)
	}
	n, err := parseWhole(text)
	if errors.Is(err, errTooLarge) || err == nil && (n >= manyDigits || n <= -manyDigits) {
		return nil, errMilliseconds
	}
	return n, err
}

// takeDate reads the parts of a date in RFC 3339. A leap second, which is at the end of a
// day in UTC, becomes the second after it: the epoch's seconds don't count it.
func takeDate(parts []string) (any, error) {
	second, leap, offset := parts[3], int64(0), "Z"
	if second == "60" {
		second, leap = "59", 1
	}
	if parts[5] != "" {
		offset = strings.Replace(parts[5], " ", "+", 1) + parts[6]
	}
	t, err := time.Parse(time.RFC3339, parts[1]+"T"+parts[2]+second+parts[4]+offset)
	if err != nil || leap == 1 && t.UTC().Format("15:04") != "23:59" {
		return nil, errWrongType
	}
	seconds := t.Unix() + leap
	if seconds < firstDate || seconds > lastDate {
		return nil, errNoDate
	}
	return seconds, nil
}

// parseDate reads a time for a role's window; empty text is the zero time.
func parseDate(text string) (time.Time, error) {
	value, err := takeTime(text)
	if err != nil || value == nil {
		return time.Time{}, err
	}
	seconds := value.(int64)
	if seconds < firstDate {
		return time.Time{}, errNoDate
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// namePattern is what a field's name looks like, known or misspelt.
var namePattern = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)

// checkNames refuses a request with an impossible field name. The error does not repeat
// the name, which may be a private key that was sent as a form. For other unknown names
// the SDK adds a warning, which repeats them.
func checkNames(data map[string]any, fields map[string]*framework.FieldSchema) error {
	for name := range data {
		if strings.Contains(name, "PRIVATE KEY") {
			return invalid("a private key was sent as the name of a field, perhaps by curl --data-binary, and is refused; Vault writes the names of fields to its audit log, so treat this key as exposed and replace it; send a key as the value of %s", fieldPrivateKey)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(data)) {
		if fields[name] == nil && !namePattern.MatchString(name) {
			shown := ""
			if len(name) <= 32 && camelCasePattern.MatchString(name) {
				shown = ", " + name
			}
			known := strings.Join(slices.Sorted(maps.Keys(fields)), ", ")
			return invalid("the request has an impossible field name%s: names have lower-case letters, digits and underscores, 32 at most; the fields of this path are %s", shown, known)
		}
	}
	return nil
}

// camelCasePattern matches a name in the style of other APIs, such as roomName. No part of
// a key looks like that.
var camelCasePattern = regexp.MustCompile(`^[A-Za-z][a-z]+([A-Z][a-z]+){0,3}$`)

// sendable prepares decoded JSON for the plugin protocol, which turns every number into
// a float64. Numbers that a float64 does not hold become strings. Objects and lists are
// copied.
func sendable(value any) any {
	switch v := value.(type) {
	case json.Number:
		if f, err := v.Float64(); err != nil || math.Abs(f) >= maxExact {
			return v.String()
		}
	case []any:
		items := make([]any, len(v))
		for i := range v {
			items[i] = sendable(v[i])
		}
		return items
	case map[string]any:
		members := make(map[string]any, len(v))
		for name := range v {
			members[name] = sendable(v[name])
		}
		return members
	}
	return value
}
