// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/hosttoken"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

// keyPrefix is where key versions are stored, each under its number.
const keyPrefix = "keys/"

// maxKeys is how many key versions a mount can store. To verify a token, all of them may
// be tried.
const maxKeys = 100

// keySource says how a key came into Vault.
type keySource string

const (
	sourceImported  keySource = "imported"
	sourceGenerated keySource = "generated"
)

// storedKey is a key version in storage.
type storedKey struct {
	// PKCS8 is the private key in DER.
	PKCS8       []byte    `json:"pkcs8"`
	Source      keySource `json:"source"`
	CreatedTime time.Time `json:"created_time"`
}

// A key is a key version that can sign.
type key struct {
	private     *rsakey.PrivateKey
	source      keySource
	createdTime time.Time
}

func (s storedKey) compile() (*key, error) {
	private, err := rsakey.Decode(s.PKCS8)
	if err != nil {
		return nil, err
	}
	return &key{private, s.Source, s.CreatedTime}, nil
}

func (k *key) stored() (storedKey, error) {
	der, err := k.private.Encode()
	return storedKey{PKCS8: der, Source: k.source, CreatedTime: k.createdTime.UTC()}, err
}

func keyPath(version int) string { return keyPrefix + strconv.Itoa(version) }

// loadKey returns nil if there is no such version.
func loadKey(ctx context.Context, s logical.Storage, version int) (*key, error) {
	return load[storedKey](ctx, s, keyPath(version))
}

// listKeys returns the stored versions in ascending order.
func listKeys(ctx context.Context, s logical.Storage) ([]int, error) {
	names, err := s.List(ctx, keyPrefix)
	if err != nil {
		return nil, fmt.Errorf("listing %q in storage: %w", keyPrefix, err)
	}
	versions := make([]int, len(names))
	for i, name := range names {
		if versions[i], err = strconv.Atoi(name); err != nil {
			return nil, fmt.Errorf("%w: %q: it is not a key version", errCorrupt, keyPrefix+name)
		}
	}
	slices.Sort(versions)
	return versions, nil
}

// parsePrivateKey reads a private key from a request. It takes a turn, because it checks
// the key with a sample.
func parsePrivateKey(ctx context.Context, pem string) (*rsakey.PrivateKey, error) {
	var k *rsakey.PrivateKey
	err := takeTurn(ctx, func() (err error) {
		k, err = rsakey.Parse(pem)
		return err
	})
	if mistake := new(rsakey.InputError); errors.As(err, &mistake) {
		return nil, invalid("%s %s", fieldPrivateKey, mistake)
	}
	return k, err
}

// generateKey also takes a turn, and generates one key at a time.
func generateKey(ctx context.Context, bits int) (*rsakey.PrivateKey, error) {
	if err := generating.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer generating.Release(1)
	var k *rsakey.PrivateKey
	err := takeTurn(ctx, func() (err error) {
		k, err = rsakey.Generate(bits)
		return err
	})
	return k, err
}

// A keyring is the public halves of all stored versions, in ascending order. It is
// immutable.
type keyring []publicVersion

// A publicVersion is the public half of a version, or nil if the version can't be
// read.
type publicVersion struct {
	version int
	public  *rsakey.PublicKey
}

// loadKeyring reads all versions. If one is corrupt, the others can still be used.
func loadKeyring(ctx context.Context, s logical.Storage) (keyring, error) {
	versions, err := listKeys(ctx, s)
	if err != nil {
		return nil, err
	}
	ring := keyring{}
	for _, version := range versions {
		k, err := loadKey(ctx, s, version)
		switch {
		case errors.Is(err, errCorrupt):
			ring = append(ring, publicVersion{version, nil})
		case err != nil:
			return nil, err
		case k != nil: // else another node deleted it meanwhile
			ring = append(ring, publicVersion{version, k.private.Public()})
		}
	}
	return ring, nil
}

// find returns the version of a key; 0 if it is not stored.
func (r keyring) find(public *rsakey.PublicKey) int {
	for _, v := range r {
		if v.public != nil && v.public.Equal(public) {
			return v.version
		}
	}
	return 0
}

// signerOf tries the versions in order and returns the one that signed a token; 0 if none
// did. The error is that of the context.
func (r keyring) signerOf(ctx context.Context, token *hosttoken.Token) (int, error) {
	for _, v := range r {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if v.public != nil && token.SignedBy(v.public) {
			return v.version, nil
		}
	}
	return 0, nil
}

// highest is the highest number; 0 if there is no version.
func (r keyring) highest() int {
	if len(r) == 0 {
		return 0
	}
	return r[len(r)-1].version
}

// checkCapacity checks that another version can be stored.
func (r keyring) checkCapacity(active int) error {
	if len(r) < maxKeys {
		return nil
	}
	oldest := r[0].version
	if oldest == active {
		oldest = r[1].version
	}
	return invalid("%d key versions are stored, and no more are possible; delete one that is not used any more, such as keys/%d", len(r), oldest)
}

// activeFirst returns the versions in the order in which they are tried on a token:
// the active one, then the newest.
func (r keyring) activeFirst(active int) keyring {
	ordered := slices.Clone(r)
	slices.Reverse(ordered)
	slices.SortStableFunc(ordered, func(a, b publicVersion) int {
		switch active {
		case a.version:
			return -1
		case b.version:
			return 1
		}
		return 0
	})
	return ordered
}
