// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build openssl

package rsakey

import (
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// However many goroutines sign at once, few threads are in OpenSSL.
func TestThreadsAreLimited(t *testing.T) {
	k, err := Parse(readFile(t, "accepted/rsa8192.pem"))
	require.NoError(t, err)
	s, err := k.Signer()
	require.NoError(t, err)
	threads := func() int {
		tasks, err := os.ReadDir("/proc/self/task")
		require.NoError(t, err)
		return len(tasks)
	}
	before := threads()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			_, err := s.Sign([]byte("message"))
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	require.Less(t, threads()-before, 20+runtime.GOMAXPROCS(0))
}

// An error of OpenSSL's keeps its text, for the log alone. It is not there for the next call.
func TestOpenSSLErrors(t *testing.T) {
	require.True(t, strings.HasPrefix(Library(), "OpenSSL "), Library())
	k, err := Parse(readFile(t, "accepted/pkcs1.pem"))
	require.NoError(t, err)
	s, err := k.Signer()
	require.NoError(t, err)
	short := &Signer{&opensslSigner{ctx: s.library.(*opensslSigner).ctx, size: 8}}
	_, err = short.Sign([]byte("message"))
	fault := new(SignError)
	require.ErrorAs(t, err, &fault)
	require.Contains(t, fault.Detail, "error:")
	require.NotContains(t, err.Error(), fault.Detail)
	signature, err := s.Sign([]byte("message"))
	require.NoError(t, err)
	require.NoError(t, k.Public().Verify([]byte("message"), signature))
	runtime.KeepAlive(s)
}

// When a key is loaded, a signature is compared with Go's. OpenSSL loads this key, and Go
// does not sign with it.
func TestOpenSSLIsCompared(t *testing.T) {
	k, err := Parse(readFile(t, "accepted/pkcs1.pem"))
	require.NoError(t, err)
	even := *k.key
	even.E = 2
	_, err = (&PrivateKey{key: &even, public: k.public}).Signer()
	fault := new(SignError)
	require.ErrorAs(t, err, &fault)
}
