// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"math"
	"strconv"
	"time"

	"github.com/hashicorp/go-secure-stdlib/parseutil"
	"github.com/hashicorp/vault/sdk/framework"
)

// maxExactInteger is where a float64 no longer holds every integer.
const maxExactInteger = 1 << 53

// checkSecretFields refuses a secret that is not a string before the framework
// sees it, whose message about a wrong type repeats the value.
func checkSecretFields(data map[string]any) error {
	value, ok := data[fieldPrivateKey]
	if !ok {
		return nil
	}
	if _, ok := value.(string); !ok {
		return invalid("%s must be one string that holds a PEM", fieldPrivateKey)
	}
	return nil
}

// restoreNumbers undoes what the plugin protocol does to a JSON number: Vault
// holds a json.Number, the plugin receives a float64, which the SDK takes for no
// time at all and cuts to a whole number in a duration. A number that a float64
// does not hold exactly is written with an exponent, a form that no field of this
// engine accepts, so that it is refused rather than changed.
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
		for k := range v {
			v[k] = restoreNumbers(v[k])
		}
	}
	return value
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
		return 0, false, invalid("%s must be in whole seconds, like 90, 90s or 15m", name)
	}
	return v, true, nil
}
