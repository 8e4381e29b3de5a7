// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package rsakey

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"math/big"
)

// Generate makes a key of the given size in bits. It ends with an error soon after
// the context does: within the time of one test for primality.
func Generate(ctx context.Context, bits int) (*PrivateKey, error) {
	key, err := generate(ctx, bits)
	if err != nil {
		return nil, fmt.Errorf("generating a key: %w", err)
	}
	k, err := newPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("generating a key: %w", err)
	}
	return k, k.try()
}

// exponent is the public exponent of generated keys, as of everybody else's.
const exponent = 65537

// generate makes a key from two random primes: FIPS 186-5, appendix A.1.3.
//
// It exists because rsa.GenerateKey can't be interrupted: a key of 4096 bits takes
// several seconds of a core, which somebody who gives up at once could ask for again
// and again. The standard library then checks what would make the key weak.
func generate(ctx context.Context, bits int) (*rsa.PrivateKey, error) {
	one := big.NewInt(1)
	for {
		p, err := prime(ctx, bits/2)
		if err != nil {
			return nil, err
		}
		q, err := prime(ctx, bits/2)
		if err != nil {
			return nil, err
		}
		totient := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		d := new(big.Int).ModInverse(big.NewInt(exponent), totient)
		if d == nil {
			continue // one prime in 65537 does not fit the exponent
		}
		return &rsa.PrivateKey{
			PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: exponent},
			D:         d,
			Primes:    []*big.Int{p, q},
		}, nil
	}
}

// prime looks for a random prime, as crypto/rand.Prime does: the two highest bits
// are set, so that the product of two has twice the bits.
func prime(ctx context.Context, bits int) (*big.Int, error) {
	raw := make([]byte, bits/8)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		_, _ = rand.Read(raw) // never fails
		raw[0] |= 0b1100_0000
		raw[len(raw)-1] |= 1
		if p := new(big.Int).SetBytes(raw); p.ProbablyPrime(primeRounds) {
			return p, nil
		}
	}
}

// primeRounds is how often a prime is tested, as crypto/rand.Prime does it.
const primeRounds = 20
