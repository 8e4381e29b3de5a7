// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build openssl

package rsakey

import (
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// However many goroutines sign at once, the number of threads in OpenSSL has a bound.
func TestThreadsAreLimited(t *testing.T) {
	k, err := Parse(readFile(t, "accepted/rsa8192.pem"))
	require.NoError(t, err)
	threads := func() int {
		tasks, err := os.ReadDir("/proc/self/task")
		require.NoError(t, err)
		return len(tasks)
	}
	before := threads()
	var wg sync.WaitGroup
	for range 4 * cap(slots) {
		wg.Go(func() {
			_, err := k.Sign([]byte("message"))
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	require.Less(t, threads()-before, cap(slots)+20+runtime.GOMAXPROCS(0))
}

// An error of OpenSSL's keeps its text, for the log alone. It is not there for the next call.
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
}

// When a key is loaded, a signature is compared with Go's.
func TestOpenSSLIsCompared(t *testing.T) {
	k, err := Parse(readFile(t, "accepted/pkcs1.pem"))
	require.NoError(t, err)
	signature, err := signInGo(k.key)(sample)
	require.NoError(t, err)
	_, err = newSignFunc(k.key, signature)
	require.NoError(t, err)
	signature[9] ^= 1
	_, err = newSignFunc(k.key, signature)
	require.EqualError(t, err, "its signature is not the one that Go makes")
}
