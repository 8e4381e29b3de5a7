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

// Generate makes a key of the given size in bits. When the context ends, it returns an
// error within the time of one primality test.
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

// exponent is the public exponent of generated keys, the usual one.
const exponent = 65537

// generate makes a key from two random primes: FIPS 186-5, appendix A.1.3.
//
// It exists because rsa.GenerateKey can't be interrupted. A key of 4096 bits takes several
// seconds of CPU, and a caller could ask for one and give up, again and again. The
// standard library then checks that the key is not weak.
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

// prime returns a random prime, as crypto/rand.Prime does. Its two highest bits are set, so
// that the product of two primes has twice as many bits.
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

// primeRounds is how many rounds of Miller-Rabin a prime is tested with, as in
// crypto/rand.Prime.
const primeRounds = 20
