// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build openssl

package rsakey

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// While as many calls are in OpenSSL as there may be, the next one waits outside.
func TestThreadsAreLimited(t *testing.T) {
	k, err := Parse(readFile(t, "accepted/pkcs1.pem"))
	require.NoError(t, err)
	for range cap(threads) {
		threads <- struct{}{}
	}
	signed := make(chan error)
	go func() {
		_, err := k.Sign([]byte("message"))
		signed <- err
	}()
	select {
	case err := <-signed:
		require.Fail(t, "signed on a thread too many", "%v", err)
	case <-time.After(100 * time.Millisecond):
	}
	for range cap(threads) {
		<-threads
	}
	require.NoError(t, <-signed)
	require.Empty(t, threads, "given back")
}

// An error of OpenSSL's keeps its text, for the log alone. It is not there for the next call.
// When a key is loaded, a signature is compared with Go's.
func TestOpenSSLErrors(t *testing.T) {
	k, err := Parse(readFile(t, "accepted/pkcs1.pem"))
	require.NoError(t, err)
	short := &opensslKey{size: 8}
	require.NoError(t, short.load(k.key))
	_, err = (&PrivateKey{sign: short.sign}).Sign([]byte("message"))
	fault := new(SignError)
	require.ErrorAs(t, err, &fault)
	require.Contains(t, fault.Detail, "error:")
	require.NotContains(t, err.Error(), fault.Detail)
	requireSigns(t, k, "after an error")

	signature, err := signInGo(k.key)(sample)
	require.NoError(t, err)
	signature[9] ^= 1
	_, err = newSignFunc(k.key, signature)
	require.EqualError(t, err, "its signature is not the one that Go makes")
}
