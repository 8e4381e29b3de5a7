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

func keyPath(version int) string { return keyPrefix + strconv.Itoa(version) }

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
	PKCS8 []byte `json:"pkcs8"`

	// PublicKey is the public half in DER (SubjectPublicKeyInfo). It spares parsing the
	// private half, which takes a hundred times as long.
	PublicKey []byte `json:"public_key"`

	Source      keySource `json:"source"`
	CreatedTime time.Time `json:"created_time"`
}

// A key is a key version. Its private half stays unparsed until private is called.
type key struct {
	storedKey
	version int // 0: not stored yet
	public  *rsakey.PublicKey

	// err is why a stored version can't be read. It then has only its number.
	err error
}

func (s storedKey) compile() (*key, error) {
	public, err := rsakey.ParsePublic(s.PublicKey)
	if err != nil {
		return nil, err
	}
	return &key{storedKey: s, public: public}, nil
}

func newKey(private *rsakey.PrivateKey, source keySource, now time.Time) (*key, error) {
	der, err := private.Encode()
	if err != nil {
		return nil, err
	}
	public := private.Public()
	stored := storedKey{PKCS8: der, PublicKey: public.DER, Source: source, CreatedTime: now.UTC()}
	return &key{storedKey: stored, public: public}, nil
}

// loadKey returns a stored version; nil if there is none.
func loadKey(ctx context.Context, s logical.Storage, version int) (*key, error) {
	k, err := load[storedKey](ctx, s, keyPath(version))
	switch {
	case errors.Is(err, errCorrupt):
		return &key{version: version, err: err}, nil
	case err != nil, k == nil:
		return nil, err
	}
	k.version = version
	return k, nil
}

// private parses the private half, and checks that it belongs to the public one.
func (k *key) private() (*rsakey.PrivateKey, error) {
	if k.err != nil {
		return nil, k.err
	}
	private, err := rsakey.Decode(k.PKCS8)
	if err == nil && !private.Public().Equal(k.public) {
		err = errors.New("its public half is that of another key")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", errCorrupt, keyPath(k.version), err)
	}
	return private, nil
}

// replaced reports whether another key has become active since the configuration was read. On
// a node that is behind, a switch and the deletion of the old key may arrive between two reads.
func (c *config) replaced(ctx context.Context, s logical.Storage) (bool, error) {
	now, err := loadConfig(ctx, s)
	return err == nil && now.ActiveKey != c.ActiveKey, err
}

// errKeyMissing is a fault, because the configuration names the key.
func errKeyMissing(version int) error {
	return fmt.Errorf("the active key %q is missing from storage", keyPath(version))
}

func errNoSuchKey(version int) error {
	return invalid("%s %d does not exist; list the path keys to see which versions do", fieldActiveKey, version)
}

// parseKey reads a private key from a request, and checks it with a sample. It does not wait
// in the line: a key is replaced in emergencies, and only the security team can write one.
func (b *backend) parseKey(pem string) (*key, error) {
	private, err := rsakey.Parse(pem)
	if mistake := new(rsakey.InputError); errors.As(err, &mistake) {
		return nil, invalid("%s %s", fieldPrivateKey, mistake)
	}
	if err != nil {
		return nil, err
	}
	return newKey(private, sourceImported, b.now())
}

// generateKey generates one key at a time. Go can't interrupt that: if the caller gives up,
// Vault stops waiting, and the key is thrown away when it is done.
func (b *backend) generateKey(ctx context.Context, bits int) (*key, error) {
	if err := b.state.generating.take(ctx); err != nil {
		return nil, err
	}
	defer b.state.generating.release()
	private, err := rsakey.Generate(bits)
	if err != nil {
		return nil, err
	}
	return newKey(private, sourceGenerated, b.now())
}

// A keyring is the configuration and all stored versions, in ascending order. It is
// immutable.
type keyring struct {
	config   *config
	versions []*key
}

// loadKeyring reads the configuration and all versions. If a version is corrupt, the
// others can still be used.
func loadKeyring(ctx context.Context, s logical.Storage) (*keyring, error) {
	cfg, err := loadConfig(ctx, s)
	if err != nil {
		return nil, err
	}
	versions, err := listKeys(ctx, s)
	if err != nil {
		return nil, err
	}
	ring := &keyring{config: cfg}
	for _, version := range versions {
		k, err := loadKey(ctx, s, version)
		if err != nil {
			return nil, err
		}
		if k != nil { // else another node deleted it meanwhile
			ring.versions = append(ring.versions, k)
		}
	}
	if k, err := ring.at(cfg.ActiveKey); cfg.ActiveKey == 0 || k != nil || err != nil {
		return ring, nil
	}
	if replaced, err := cfg.replaced(ctx, s); err != nil {
		return nil, err
	} else if replaced {
		return loadKeyring(ctx, s)
	}
	return ring, nil // without the active key, for whoever mends that
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

// at returns a version; nil if it is not stored. The error is that of reading it.
func (r *keyring) at(version int) (*key, error) {
	for _, k := range r.versions {
		if k.version == version {
			return k, k.err
		}
	}
	return nil, nil
}

// checkSigns checks that a version is stored and can sign.
func (r *keyring) checkSigns(version int) error {
	k, _ := r.at(version)
	if k == nil {
		return errNoSuchKey(version)
	}
	_, err := k.private()
	return err
}

// find returns the version of a key that can sign; 0 if it is not stored.
func (r *keyring) find(public *rsakey.PublicKey) int {
	for _, k := range r.versions {
		if k.err != nil || !k.public.Equal(public) {
			continue
		}
		if _, err := k.private(); err == nil {
			return k.version
		}
	}
	return 0
}

// highest is the highest number; 0 if there is no version.
func (r *keyring) highest() int {
	if len(r.versions) == 0 {
		return 0
	}
	return r.versions[len(r.versions)-1].version
}

// add stores a key as the next version, unless it is stored already. It returns the
// version, and whether it was known. It stores the configuration with the new LastKey
// first: if writing the key then fails, the number is skipped, and no two keys get it.
func (r *keyring) add(ctx context.Context, s logical.Storage, k *key) (version int, known bool, err error) {
	if version := r.find(k.public); version != 0 {
		return version, true, nil
	}
	if err := r.checkCapacity(); err != nil {
		return 0, false, err
	}
	version = max(r.config.LastKey, r.highest()) + 1
	reserved := *r.config
	reserved.LastKey = version
	if err := store(ctx, s, configStoragePath, reserved); err != nil {
		return 0, false, err
	}
	return version, false, store(ctx, s, keyPath(version), k.storedKey)
}

// checkCapacity checks that another version can be stored.
func (r *keyring) checkCapacity() error {
	if len(r.versions) < maxKeys {
		return nil
	}
	oldest := r.versions[0].version
	if oldest == r.config.ActiveKey {
		oldest = r.versions[1].version
	}
	return invalid("%d key versions are stored, which is the maximum; delete one that is no longer used, such as keys/%d", len(r.versions), oldest)
}

// signerOf returns the version that signed a token; 0 if none did. It tries the active one,
// then the newest.
func (r *keyring) signerOf(token *hosttoken.Token) int {
	signed := func(k *key) bool { return k != nil && k.err == nil && token.SignedBy(k.public) }
	if k, _ := r.at(r.config.ActiveKey); signed(k) {
		return k.version
	}
	for _, k := range slices.Backward(r.versions) {
		if signed(k) {
			return k.version
		}
	}
	return 0
}

// publicData describes the public half of a key in a response.
func publicData(public *rsakey.PublicKey) map[string]any {
	return map[string]any{
		fieldPublicKey:       public.PEM,
		fieldPublicKeySHA256: public.SHA256,
		fieldKeyBits:         public.Bits,
	}
}
