// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
)

// Ambiguous values of a request are rejected. The SDK is more lenient: it reads 010 as eight,
// true as 1, and a list of booleans as a list of strings. So takeValues runs before the SDK
// sees a request, and leaves only values of the fields' own types.

// The errors of a value end a sentence that begins with the name of the field.
var (
	errNotWhole    = errors.New("must be a whole number in decimal digits")
	errLargeNumber = errors.New("is too large; give a smaller number")
	errNotFlag     = errors.New("must be true or false")
	errNotText     = errors.New("must be one string")
	errNotTexts    = errors.New("must be a list of strings, or one string with commas")
	errNotObjects  = errors.New(`must be a list of objects, which the CLI takes only in JSON: from standard input, by "-", or from a file, by "@file"`)

	errNotDuration  = errors.New("must be in whole seconds and not negative, like 90, 90s or 15m")
	errLongDuration = errors.New("is too large; no duration is longer than " + inDays(maxLife))

	errNotTime      = errors.New("must be RFC 3339, like 2030-01-31T09:00:00Z, or whole seconds since the epoch")
	errMilliseconds = errors.New("seems to be in milliseconds; give it in seconds since the epoch")
	errNoDate       = errors.New("must be after 0001-01-01T00:00:00Z and, in UTC, before the year 10000")
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
		switch {
		case err != nil:
			problems = append(problems, invalid("%s %s", name, err))
		case value == nil:
			delete(data, name)
		default:
			data[name] = value
		}
	}
	return errors.Join(problems...)
}

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
		return nil, errNotObjects
	default:
		return takeString(raw)
	}
}

// From maxExact on, a float64 can't represent every integer. The plugin protocol turns
// every JSON number into a float64.
const maxExact = 1 << 53

// digitsOf returns the text of a string, or the digits of a whole number.
func digitsOf(raw any) (digits string, ok bool) {
	switch v := raw.(type) {
	case string:
		return v, true
	case float64:
		if v != math.Trunc(v) || math.IsInf(v, 0) {
			return "", false
		}
		return strconv.FormatFloat(v, 'f', 0, 64), true
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return "", false
		}
		return digitsOf(f)
	case int:
		return strconv.Itoa(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	}
	return "", false
}

var wholePattern = regexp.MustCompile(`^-?[0-9]+$`)

func takeInt(raw any) (any, error) {
	digits, _ := digitsOf(raw)
	if !wholePattern.MatchString(digits) {
		return nil, errNotWhole
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil {
		return nil, errLargeNumber
	}
	return int(n), nil
}

func takeBool(raw any) (any, error) {
	if v, ok := raw.(bool); ok {
		return v, nil
	}
	text, _ := digitsOf(raw)
	v, err := strconv.ParseBool(text)
	if err != nil {
		return nil, errNotFlag
	}
	return v, nil
}

// takeString turns a whole number into its digits: YAML reads a room name such as 4711
// as a number.
func takeString(raw any) (any, error) {
	text, ok := digitsOf(raw)
	if _, isText := raw.(string); ok && !isText {
		n, err := strconv.ParseInt(text, 10, 64)
		ok = err == nil && -maxExact < n && n < maxExact
	}
	if !ok {
		return nil, errNotText
	}
	return text, nil
}

// takeStrings splits a string at commas, and takes a list of strings as it is.
func takeStrings(raw any) (any, error) {
	texts := []string{}
	switch v := raw.(type) {
	case string:
		if v != "" {
			texts = strings.Split(v, ",")
		}
	case []string:
		texts = append(texts, v...)
	case []any:
		for i, item := range v {
			text, err := takeString(item)
			if err != nil {
				return nil, fmt.Errorf("must be a list of strings; its entry %d is not a string", i+1)
			}
			texts = append(texts, text.(string))
		}
	default:
		return nil, errNotTexts
	}
	for i := range texts {
		texts[i] = strings.TrimSpace(texts[i])
	}
	return texts, nil
}

// durationPattern is a number of seconds or days, or what time.ParseDuration reads, without
// a sign.
var durationPattern = regexp.MustCompile(`^([0-9]+d?|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))+)$`)

// takeSeconds reads a duration as Vault does, and returns whole seconds.
func takeSeconds(raw any) (any, error) {
	text, ok := digitsOf(raw)
	switch {
	case ok && text == "":
		return nil, nil
	case !durationPattern.MatchString(text):
		return nil, errNotDuration
	}
	unit := time.Duration(1)
	if days, isDays := strings.CutSuffix(text, "d"); isDays {
		text, unit = days+"h", 24
	} else if wholePattern.MatchString(text) {
		text += "s"
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil, d > math.MaxInt64/unit: // its form is right
		return nil, errLongDuration
	case d%time.Second != 0: // the SDK would cut the rest off
		return nil, errNotDuration
	}
	return int64(d * unit / time.Second), nil
}

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
	if ok && text == "" {
		return nil, nil
	}
	var seconds int64
	var err error
	if wholePattern.MatchString(text) {
		seconds, err = strconv.ParseInt(text, 10, 64)
		if err != nil || seconds >= manyDigits || seconds <= -manyDigits {
			return nil, errMilliseconds
		}
	} else if seconds, err = parseDate(text); err != nil {
		return nil, err
	}
	if seconds < firstDate || seconds > lastDate {
		return nil, errNoDate
	}
	return seconds, nil
}

// datePattern is the form of RFC 3339. time.Parse also accepts 1:00 for an hour, a comma
// before a fraction, and an offset of 24 hours.
var datePattern = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`)

// parseDate reads a date as RFC 3339, section 5.6, defines it: in upper or lower case. A
// "+" that was not escaped in a URL arrives as a space, which can mean nothing else. A
// leap second, which is at the end of a day in UTC, becomes the second after it: the
// epoch's seconds don't count it.
func parseDate(text string) (int64, error) {
	const beforeSecond, afterSecond = len("2006-01-02T15:04:"), len("2006-01-02T15:04:05")
	text = strings.Replace(strings.ToUpper(text), " ", "+", 1)
	leap := int64(0)
	if len(text) > afterSecond && text[beforeSecond:afterSecond] == "60" {
		text, leap = text[:beforeSecond]+"59"+text[afterSecond:], 1
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || !datePattern.MatchString(text) || leap == 1 && t.UTC().Format("15:04") != "23:59" {
		return 0, errNotTime
	}
	return t.Unix() + leap, nil
}

// fieldPattern is what a field's name looks like, known or misspelt.
var fieldPattern = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)

// checkNames refuses a request that has a field with an invalid name. The error does not repeat
// the name, which may be a private key that was sent as a form. For other unknown names
// the SDK adds a warning, which repeats them.
func checkNames(data map[string]any, fields map[string]*framework.FieldSchema) error {
	for name := range data {
		if strings.Contains(name, "PRIVATE KEY") {
			return invalid("a private key was sent as the name of a field, perhaps by curl --data-binary, and is refused; Vault writes the names of fields to its audit log, so treat this key as exposed and replace it; send a key as the value of %s", fieldPrivateKey)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(data)) {
		if fields[name] == nil && !fieldPattern.MatchString(name) {
			known := strings.Join(slices.Sorted(maps.Keys(fields)), ", ")
			return invalid("the request has a field with an invalid name%s: names have at most 32 lower-case letters, digits, underscores and hyphens; the fields of this path are %s", shownName(name), known)
		}
	}
	return nil
}

// camelCasePattern matches a name in the style of other APIs, such as roomName. No part of
// a key looks like that.
var camelCasePattern = regexp.MustCompile(`^[A-Za-z][a-z]+([A-Z][a-z]+){0,3}$`)

// shownName returns an unknown name for a message; nothing if it may be a part of a key.
func shownName(name string) string {
	if fieldPattern.MatchString(name) || len(name) <= 32 && camelCasePattern.MatchString(name) {
		return ` "` + name + `"`
	}
	return ""
}
