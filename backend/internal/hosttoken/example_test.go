// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package hosttoken_test

import (
	"fmt"
	"time"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/hosttoken"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

func Example() {
	key, err := rsakey.Generate(2048)
	if err != nil {
		panic(err)
	}
	consumer := hosttoken.Consumer{ID: "acme", Audience: "clanmeeting", Issuer: "production"}
	start := time.Date(2030, 1, 31, 9, 0, 0, 0, time.UTC)
	text, err := consumer.Sign(key, "support-4711", start.Unix(), start.Add(5*time.Minute).Unix())
	if err != nil {
		panic(err)
	}

	token, err := hosttoken.Decode(text)
	fmt.Println(err, token.CheckHeader(consumer), token.SignedBy(key.Public()))
	fmt.Println(token.CheckClaims(consumer, "support-4711", start))
	fmt.Println(token.CheckClaims(consumer, "support-4712", start.Add(-time.Minute)))
	// Output:
	// <nil> <nil> true
	// []
	// [not valid for another 1m0s for room "support-4711", not "support-4712"]
}
