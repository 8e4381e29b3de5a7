// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package rsakey

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The error of a signature tells its reader nothing about the key. The log gets the rest.
func TestSignErrors(t *testing.T) {
	t.Parallel()
	k := &PrivateKey{sign: func([sha256.Size]byte) ([]byte, error) { return nil, errors.New("the detail") }}
	_, err := k.Sign([]byte("message"))
	mistake := new(SignError)
	require.ErrorAs(t, err, &mistake)
	require.Equal(t, "the detail", mistake.Detail)
	require.NotContains(t, err.Error(), "detail")
}

func TestLibrary(t *testing.T) {
	require.Regexp(t, `^(Go 1|OpenSSL 3)\.`, Library())
}

// Keys of odd sizes and of many primes sign.
func TestUnusualKeys(t *testing.T) {
	t.Parallel()
	for _, unusual := range []struct{ bits, primes int }{
		{2049, 2}, {2056, 2}, {2100, 2}, {3073, 2}, {2048, 4}, {2048, 5}, {2048, 6},
	} {
		//nolint:staticcheck // SA1019: there are such keys, though new ones should not be made
		generated, err := rsa.GenerateMultiPrimeKey(rand.Reader, unusual.primes, unusual.bits)
		require.NoError(t, err)
		k, err := newPrivateKey(generated)
		require.NoError(t, err)
		requireSigns(t, k, fmt.Sprint(unusual))
	}
}

// Goroutines that share a key get the signatures of their own messages.
func TestKeysAreShared(t *testing.T) {
	t.Parallel()
	k, err := Parse(readFile(t, "accepted/pkcs1.pem"))
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 8 {
				message := fmt.Appendf(nil, "%d %d", i, j)
				signature, err := k.Sign(message)
				assert.NoError(t, err)
				assert.NoError(t, k.Public().Verify(message, signature))
			}
		})
	}
	wg.Wait()
}

// Many keys are loaded and dropped, while they are in use. `make leaks` runs this with
// LeakSanitizer, which at the end looks for keys that OpenSSL did not free.
func TestKeysAreFreed(t *testing.T) {
	t.Parallel()
	const keys = 200
	k, err := Parse(readFile(t, "accepted/pkcs1.pem"))
	require.NoError(t, err)
	der, err := k.Encode()
	require.NoError(t, err)
	var dropped atomic.Int64
	for range keys {
		k, err := Decode(der)
		require.NoError(t, err)
		runtime.AddCleanup(k, func(count *atomic.Int64) { count.Add(1) }, &dropped)
		_, err = k.Sign([]byte("message"))
		require.NoError(t, err)
		runtime.GC()
	}
	require.Eventually(t, func() bool {
		runtime.GC()
		return dropped.Load() == keys
	}, time.Minute, time.Millisecond)
}
