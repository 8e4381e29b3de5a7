// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build !openssl

package rsakey

import (
	"crypto/rsa"
	"runtime"
	"strings"
)

// Library names what signs, with its version.
func Library() string { return "Go " + strings.TrimPrefix(runtime.Version(), "go") }

func newSignFunc(key *rsa.PrivateKey, _ []byte) (signFunc, error) { return signInGo(key), nil }
