// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package rsakey_test

import (
	"errors"
	"fmt"
	"os"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

func ExampleParse() {
	file, err := os.ReadFile("testdata/accepted/pkcs1.pem")
	if err != nil {
		panic(err)
	}
	key, err := rsakey.Parse(string(file))
	if err != nil {
		panic(err)
	}
	message := []byte("header.claims")
	signature, err := key.Sign(message)
	fmt.Println(key.Public().Bits, len(signature), err, key.Public().Verify(message, signature))

	_, err = rsakey.Parse("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n")
	mistake := new(rsakey.InputError)
	fmt.Println("private_key", err, errors.As(err, &mistake))
	// Output:
	// 2048 256 <nil> <nil>
	// private_key is a public key or a certificate; give the private key, cm-api-key.pem true
}
