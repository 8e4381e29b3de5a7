// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-secure-stdlib/parseutil"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// maxExactInteger is where a float64 no longer holds every integer.
const maxExactInteger = 1 << 53

// restoreData undoes what the plugin protocol does to a request's data. A null is
// as good as not naming the field.
func restoreData(data map[string]any) {
	for name, value := range data {
		if value == nil {
			delete(data, name)
			continue
		}
		data[name] = restoreNumbers(value)
	}
}

// restoreNumbers undoes what the plugin protocol does to a JSON number: Vault
// holds a json.Number, the plugin receives a float64, which the SDK takes for no
// time at all and cuts to a whole number in a duration. A number that a float64
// does not hold exactly is written with an exponent, a form that no field of this
// engine accepts (see stringField), so that it is refused rather than changed.
func restoreNumbers(value any) any {
	switch v := value.(type) {
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < maxExactInteger {
			return json.Number(strconv.FormatInt(int64(v), 10))
		}
		return json.Number(strconv.FormatFloat(v, 'e', -1, 64))
	case []any:
		for i := range v {
			v[i] = restoreNumbers(v[i])
		}
	case map[string]any:
		restoreData(v)
	}
	return value
}

// sendable is decoded JSON as it can go through the plugin protocol, which makes a
// float64 of every number: one that a float64 does not hold becomes its text. Objects
// and lists are copied.
func sendable(value any) any {
	switch v := value.(type) {
	case json.Number:
		if f, err := v.Float64(); err != nil || math.Abs(f) >= maxExactInteger {
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

// fieldErrorPrefix begins the framework's answer to a value of a wrong type. What
// follows repeats the value, which may be a private key in the wrong place.
const fieldErrorPrefix = "Field validation failed: "

func isFieldError(resp *logical.Response) bool {
	return resp.IsError() && strings.HasPrefix(resp.Error().Error(), fieldErrorPrefix)
}

// fieldErrors says of each field with a value of a wrong type what would be right.
func (b *backend) fieldErrors(req *logical.Request) string {
	if problems := fieldProblems(req.Data, b.Route(req.Path).Fields); problems != "" {
		return problems
	}
	return "a number in the path is out of range"
}

// fieldProblems is empty if all values have the types of their fields.
func fieldProblems(raw map[string]any, fields map[string]*framework.FieldSchema) string {
	d := framework.FieldData{Raw: raw, Schema: fields}
	var problems []string
	for name := range raw {
		if fields[name] == nil {
			continue
		}
		if _, _, err := d.GetOkErr(name); err != nil {
			problems = append(problems, name+" must be "+wanted(fields[name].Type))
		}
	}
	slices.Sort(problems)
	return strings.Join(problems, "; ")
}

// wanted describes the values that a field of the type takes.
func wanted(t framework.FieldType) string {
	switch t {
	case framework.TypeBool:
		return "true or false"
	case framework.TypeInt:
		return "a whole number"
	case framework.TypeDurationSecond:
		return durationSyntax
	case framework.TypeTime:
		return "RFC 3339, like 2030-01-31T09:00:00Z, or whole seconds since the epoch"
	case framework.TypeCommaStringSlice:
		return "a list of strings, or one string with commas"
	case framework.TypeSlice:
		return "a list of objects"
	default:
		return "one string"
	}
}

const durationSyntax = "in whole seconds and not negative, like 90, 90s or 15m"

// stringField returns a field of framework.TypeString, and whether the request
// names it. The framework makes "1" of a JSON true, and takes any number; here only
// a whole one is as good as its digits.
func stringField(d *framework.FieldData, name string) (string, bool, error) {
	_, isBool := d.Raw[name].(bool)
	number, isNumber := d.Raw[name].(json.Number)
	if isBool || isNumber && strings.Contains(number.String(), "e") {
		return "", false, invalid("%s must be %s", name, wanted(framework.TypeString))
	}
	v, ok := d.GetOk(name)
	if !ok {
		return "", false, nil
	}
	return v.(string), true, nil
}

// durationField returns a field of framework.TypeDurationSecond, and whether the
// request names it. The framework cuts a fraction of a second off without a
// word, which would make 500ms the 0 that stands for a default; here it is an
// error.
func durationField(d *framework.FieldData, name string) (time.Duration, bool, error) {
	if _, ok := d.GetOk(name); !ok {
		return 0, false, nil
	}
	v, err := parseutil.ParseDurationSecond(d.Raw[name])
	if err != nil || v%time.Second != 0 {
		return 0, false, invalid("%s must be %s", name, durationSyntax)
	}
	return v, true, nil
}
