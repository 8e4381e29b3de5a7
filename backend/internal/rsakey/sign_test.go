// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package rsakey

import (
	"bytes"
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

// signerFunc stands for a library that signs.
type signerFunc func(digest [sha256.Size]byte) ([]byte, error)

func (f signerFunc) sign(digest [sha256.Size]byte) ([]byte, error) { return f(digest) }

// A key whose signature does not verify is not kept.
func TestTryVerifiesTheSignature(t *testing.T) {
	t.Parallel()
	k, err := Parse(readFile(t, "accepted/pkcs1.pem"))
	require.NoError(t, err)
	require.NoError(t, k.try())
	other, err := Generate(t.Context(), MinBits)
	require.NoError(t, err)
	require.Error(t, (&PrivateKey{key: k.key, public: other.public}).try())
}

// A library that signs in another way than Go is not used.
func TestLibrariesAreCompared(t *testing.T) {
	t.Parallel()
	k, err := Parse(readFile(t, "accepted/pkcs1.pem"))
	require.NoError(t, err)
	require.NoError(t, compare(goSigner{k.key}, k.key))
	require.Error(t, compare(signerFunc(func([sha256.Size]byte) ([]byte, error) {
		return bytes.Repeat([]byte{1}, k.key.Size()), nil
	}), k.key))
	require.Error(t, compare(signerFunc(func([sha256.Size]byte) ([]byte, error) {
		return nil, errors.New("no signature")
	}), k.key))
}

// The error of a signature tells its reader nothing about the key. The log gets the rest.
func TestSignErrors(t *testing.T) {
	t.Parallel()
	s := &Signer{signerFunc(func([sha256.Size]byte) ([]byte, error) { return nil, errors.New("the detail") })}
	_, err := s.Sign([]byte("message"))
	mistake := new(SignError)
	require.ErrorAs(t, err, &mistake)
	require.Equal(t, "the detail", mistake.Detail)
	require.NotContains(t, err.Error(), "detail")
}

// Keys of every size sign, odd sizes included.
func TestSizesOfKeys(t *testing.T) {
	t.Parallel()
	for _, bits := range []int{2048, 2049, 2056, 2100, 3072, 4095, 4096} {
		generated, err := rsa.GenerateKey(rand.Reader, bits)
		require.NoError(t, err)
		k, err := newPrivateKey(generated)
		require.NoError(t, err)
		requireSigns(t, k, fmt.Sprint(bits))
	}
}

// Keys with more than two primes sign.
func TestManyPrimes(t *testing.T) {
	t.Parallel()
	for primes := 3; primes <= 7; primes++ {
		//nolint:staticcheck // SA1019: there are such keys, though new ones should not be made
		generated, err := rsa.GenerateMultiPrimeKey(rand.Reader, primes, 2048)
		require.NoError(t, err)
		k, err := newPrivateKey(generated)
		require.NoError(t, err)
		require.NoError(t, k.try())
		requireSigns(t, k, fmt.Sprint(primes))
	}
}

// Goroutines that share a signer get the signatures of their own messages.
func TestSignersAreShared(t *testing.T) {
	t.Parallel()
	k, err := Parse(readFile(t, "accepted/pkcs1.pem"))
	require.NoError(t, err)
	s, err := k.Signer()
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 8 {
				message := fmt.Appendf(nil, "%d %d", i, j)
				signature, err := s.Sign(message)
				assert.NoError(t, err)
				assert.NoError(t, k.Public().Verify(message, signature))
			}
		})
	}
	wg.Wait()
}

// Many signers are loaded and dropped, while they are in use. `make leaks` runs this with
// LeakSanitizer, which at the end looks for keys that were not freed.
func TestSignersAreFreed(t *testing.T) {
	t.Parallel()
	const signers = 200
	k, err := Parse(readFile(t, "accepted/pkcs1.pem"))
	require.NoError(t, err)
	var dropped atomic.Int64
	for range signers {
		s, err := k.Signer()
		require.NoError(t, err)
		runtime.AddCleanup(s, func(count *atomic.Int64) { count.Add(1) }, &dropped)
		_, err = s.Sign([]byte("message"))
		require.NoError(t, err)
		runtime.GC()
	}
	require.Eventually(t, func() bool {
		runtime.GC()
		return dropped.Load() == signers
	}, time.Minute, time.Millisecond)
}
