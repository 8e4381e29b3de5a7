// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package hosttoken

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
)

// Remarks returns what the server accepts but a support engineer should know.
func (t *Token) Remarks(c Consumer) []string {
	remarks := []string{
		t.remarkPadding(), t.remarkTime("exp"), t.remarkTime("nbf"), t.remarkConsumer(c.ID), t.remarkRoom(), t.remarkContext(),
	}
	return slices.DeleteFunc(remarks, func(remark string) bool { return remark == "" })
}

func (t *Token) remarkPadding() string {
	if !t.padded {
		return ""
	}
	return `the token has "=" at the end of a part, which RFC 7515 does not allow; the server ignores it`
}

// thousandsOfYears is in seconds. Every time in milliseconds is beyond it.
const thousandsOfYears = 100_000_000_000

func (t *Token) remarkTime(claim string) string {
	written, ok := t.Claims[claim]
	at, given, err := t.seconds(claim)
	switch {
	case err != nil:
		return ""
	case !ok && claim == "exp":
		return "the token has no exp: it never expires"
	case !ok:
		return ""
	case !given && claim == "exp":
		return "exp is false, which the server treats as missing: the token never expires"
	case !given:
		return claim + " is false, which the server treats as missing"
	case at >= thousandsOfYears:
		return claim + " seems to be in milliseconds; it must be in seconds"
	case at > 0 && fmt.Sprint(written) != strconv.FormatFloat(at, 'f', 0, 64):
		return fmt.Sprintf("%s is %s, not a whole number; the server treats it as %.0f", claim, shown(t.Claims, claim), at)
	}
	return ""
}

func (t *Token) remarkConsumer(id string) string {
	sub := t.Claims["sub"]
	if sub == id || t.checkConsumer(id) != nil {
		return ""
	}
	return fmt.Sprintf("sub is %q, not %q; the server ignores the case", sub, id)
}

func (t *Token) remarkRoom() string {
	name, ok := t.Claims["room"].(string)
	if _, err := room.ParseName(name); !ok || err == nil {
		return ""
	}
	return fmt.Sprintf("room is %q, a name that Clan Meeting's SDK does not accept; the server does", room.Shorten(name))
}

func (t *Token) remarkContext() string {
	if _, ok := t.Claims["context"].(map[string]any); ok || t.checkContext() != nil {
		return ""
	}
	return fmt.Sprintf("context is %s, not an object; the server accepts it, but the vendor says to keep it {}", shown(t.Claims, "context"))
}
