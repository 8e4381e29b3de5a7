// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

const (
	fieldVersion     = "version"
	fieldSource      = "source"
	fieldCreatedTime = "created_time"
	fieldActive      = "active"
)

// generatedKeyBits are the sizes that keys/generate supports.
var generatedKeyBits = []int{2048, 3072, 4096}

const defaultKeyBits = 2048

func (b *backend) pathKeys() []*framework.Path {
	return []*framework.Path{b.pathKeyList(), b.pathKeyGenerate(), b.pathKeyImport(), b.pathKey()}
}

func (b *backend) pathKeyList() *framework.Path {
	return &framework.Path{
		Pattern: "keys/?$",
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ListOperation: &framework.PathOperation{
				Callback: b.pathKeysList,
				Summary:  "List the key versions.",
				Responses: map[int][]framework.Response{
					http.StatusOK: {{Description: "OK", Fields: map[string]*framework.FieldSchema{
						"keys": {Type: framework.TypeStringSlice, Required: true, Description: "The key versions, in ascending order."},
					}}},
				},
			},
		},
		HelpSynopsis:    "List the key versions of this mount.",
		HelpDescription: keysHelpDescription,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "keys", Navigation: true, ItemType: "Key"},
	}
}

func (b *backend) pathKeyGenerate() *framework.Path {
	return &framework.Path{
		Pattern: "keys/generate",
		Fields: map[string]*framework.FieldSchema{
			fieldKeyBits: {
				Type:          framework.TypeInt,
				Default:       defaultKeyBits,
				AllowedValues: []any{2048, 3072, 4096},
				Description: `The size of the key in bits: 2048, 3072 or 4096. Default: 2048. A
signature with 4096 bits takes five times as long as one with 2048.`,
				DisplayAttrs: &framework.DisplayAttributes{Name: "Key bits"},
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback:                    b.pathKeysGenerate,
				Summary:                     "Generate a key pair inside Vault, as the next key version.",
				Responses:                   newKeyResponses(),
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "generate", OperationSuffix: "key"},
			},
		},
		HelpSynopsis:    "Generate a key pair inside Vault, without activating it.",
		HelpDescription: keysGenerateHelpDescription,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix},
	}
}

func (b *backend) pathKeyImport() *framework.Path {
	return &framework.Path{
		Pattern: "keys/import",
		Fields: map[string]*framework.FieldSchema{
			fieldPrivateKey: {
				Type:     framework.TypeString,
				Required: true,
				Description: `The private key: an RSA key of 2048 to 8192 bits as a PEM, in PKCS#1,
PKCS#8 or OpenSSH form, not encrypted. It is never returned. Required.`,
				DisplayAttrs: &framework.DisplayAttributes{Name: "Private key", Sensitive: true, EditType: "file"},
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback:                    b.pathKeysImport,
				Summary:                     "Store a key as the next key version.",
				Responses:                   newKeyResponses(),
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "import", OperationSuffix: "key"},
			},
		},
		HelpSynopsis:    "Store a private key without activating it.",
		HelpDescription: keysImportHelpDescription,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix},
	}
}

func (b *backend) pathKey() *framework.Path {
	return &framework.Path{
		// No leading zeros, which the SDK would read as octal.
		Pattern: keyPrefix + `(?P<` + fieldVersion + `>[1-9][0-9]*)`,
		Fields: map[string]*framework.FieldSchema{
			fieldVersion: {Type: framework.TypeInt, Required: true, Description: "The key version, a number from 1. Part of the path."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.pathKeyRead,
				Summary:  "Read the public half of a key version.",
				Responses: map[int][]framework.Response{
					http.StatusOK: {{Description: "OK", Fields: keyResponseFields()}},
				},
			},
			logical.DeleteOperation: &framework.PathOperation{
				Callback:                    b.pathKeyDelete,
				Summary:                     "Delete a key version that is not active.",
				Responses:                   emptyResponses,
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
			},
		},
		HelpSynopsis:    "Read the public half of a key version, or delete it.",
		HelpDescription: keyHelpDescription,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "key", ItemType: "Key"},
	}
}

// newKeyResponseFields describe a key that was just stored.
func newKeyResponseFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		fieldVersion:         {Type: framework.TypeInt, Required: true, Description: "The key version."},
		fieldPublicKey:       {Type: framework.TypeString, Required: true, Description: "The public half, as a SubjectPublicKeyInfo PEM."},
		fieldPublicKeySHA256: {Type: framework.TypeString, Required: true, Description: "Hex of the SHA-256 of the public key in DER."},
		fieldKeyBits:         {Type: framework.TypeInt, Required: true, Description: "The size of the key in bits."},
	}
}

func newKeyResponses() map[int][]framework.Response {
	return map[int][]framework.Response{http.StatusOK: {{Description: "OK", Fields: newKeyResponseFields()}}}
}

func keyResponseFields() map[string]*framework.FieldSchema {
	fields := newKeyResponseFields()
	fields[fieldSource] = &framework.FieldSchema{Type: framework.TypeString, Required: true, Description: "How the key came into Vault: imported or generated."}
	fields[fieldCreatedTime] = &framework.FieldSchema{Type: framework.TypeTime, Required: true, Description: "When it came into Vault, as RFC 3339."}
	fields[fieldActive] = &framework.FieldSchema{Type: framework.TypeBool, Required: true, Description: "Whether it is the version that signs."}
	return fields
}

// keyData describes a key version and its public half in a response.
func keyData(version int, public *rsakey.PublicKey) map[string]any {
	data := publicData(public)
	data[fieldVersion] = version
	return data
}

func (b *backend) pathKeysList(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	versions, err := listKeys(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(versions))
	for i, version := range versions {
		names[i] = strconv.Itoa(version)
	}
	return logical.ListResponse(names), nil
}

func (b *backend) pathKeysGenerate(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	bits := d.Get(fieldKeyBits).(int)
	if !slices.Contains(generatedKeyBits, bits) {
		return refuse(invalid("%s must be 2048, 3072 or 4096", fieldKeyBits))
	}
	if err := b.checkCapacity(ctx, req.Storage); err != nil {
		return refuse(err)
	}
	private, err := generateKey(ctx, bits)
	if err != nil {
		return nil, err
	}
	return b.stage(ctx, req, &key{private, sourceGenerated, b.now()})
}

// checkCapacity refuses another key if the mount is full, before one is generated.
func (b *backend) checkCapacity(ctx context.Context, s logical.Storage) error {
	cfg, ring, err := b.keys(ctx, s)
	if err != nil {
		return err
	}
	return ring.checkCapacity(cfg.ActiveKey)
}

func (b *backend) pathKeysImport(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	private, err := parsePrivateKey(ctx, d.Get(fieldPrivateKey).(string))
	if err != nil {
		return refuse(err)
	}
	return b.stage(ctx, req, &key{private, sourceImported, b.now()})
}

// stage stores a key without activating it, unless it is stored already.
func (b *backend) stage(ctx context.Context, req *logical.Request, k *key) (*logical.Response, error) {
	b.configLock.Lock()
	defer b.configLock.Unlock()
	cfg, err := loadConfig(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	version, known, err := b.storeOnce(ctx, req, k, cfg)
	if err != nil {
		return refuse(err)
	}
	resp := &logical.Response{Data: keyData(version, k.private.Public())}
	switch {
	case known && version == cfg.ActiveKey:
		resp.AddWarning(activeKeyWarning(version))
	case known:
		resp.AddWarning(fmt.Sprintf("this private key was stored already, as version %d; no new version was stored", version))
	}
	return resp, nil
}

// storeOnce stores a key as the next version, unless it is stored already. It returns the
// key's version, and whether it was known before. The caller holds configLock for
// writing.
func (b *backend) storeOnce(ctx context.Context, req *logical.Request, k *key, cfg *config) (version int, known bool, err error) {
	ring, err := loadKeyring(ctx, req.Storage)
	if err != nil {
		return 0, false, err
	}
	if version = ring.find(k.private.Public()); version != 0 {
		return version, true, nil
	}
	defer b.ring.Store(nil)
	if version, err = cfg.addKey(ctx, req.Storage, ring, k); err != nil {
		return 0, false, err
	}
	operation := eventKeyImport
	if k.source == sourceGenerated {
		operation = eventKeyGenerate
	}
	b.sendEvent(ctx, req, operation, true, fieldVersion, strconv.Itoa(version))
	return version, false, nil
}

// keys returns the configuration and the public halves of all keys, both as of one moment.
func (b *backend) keys(ctx context.Context, s logical.Storage) (*config, keyring, error) {
	b.configLock.RLock()
	defer b.configLock.RUnlock()
	cfg, err := loadConfig(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	if cached := b.ring.Load(); cached != nil {
		return cfg, *cached, nil
	}
	ring, err := loadKeyring(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	b.ring.Store(&ring)
	return cfg, ring, nil
}

func (b *backend) pathKeyRead(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	b.configLock.RLock()
	defer b.configLock.RUnlock()
	version := d.Get(fieldVersion).(int)
	k, err := loadKey(ctx, req.Storage, version)
	if err != nil || k == nil {
		return nil, err
	}
	cfg, err := loadConfig(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	data := keyData(version, k.private.Public())
	data[fieldSource] = string(k.source)
	data[fieldCreatedTime] = k.createdTime.UTC().Format(time.RFC3339)
	data[fieldActive] = version == cfg.ActiveKey
	return &logical.Response{Data: data}, nil
}

func (b *backend) pathKeyDelete(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	b.configLock.Lock()
	defer b.configLock.Unlock()
	version := d.Get(fieldVersion).(int)
	cfg, err := loadConfig(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	if version == cfg.ActiveKey {
		return refuse(invalid("%s %d is the active one; set %s of config to another version first", fieldVersion, version, fieldActiveKey))
	}
	stored, err := listKeys(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(stored, version) {
		return &logical.Response{}, nil
	}
	// The signer uses another key, so it stays in use.
	defer b.ring.Store(nil)
	if err := remove(ctx, req.Storage, keyPath(version)); err != nil {
		return nil, err
	}
	b.sendEvent(ctx, req, eventKeyDelete, true, fieldVersion, strconv.Itoa(version))
	return &logical.Response{}, nil
}

const keysHelpDescription = `
Lists the key versions that are stored, oldest first. If there is none, the CLI
says "No value found". The version that signs is active_key of config.

    vault list clanmeeting/keys
`

const keysGenerateHelpDescription = `
Generates a key pair inside Vault and stores it as the next key version. It does
not sign yet. The answer has its version and its public half; the private half
never leaves Vault. Give the public half to Clan Meeting. When they have
installed it, set active_key to the version (here 2; a list of keys shows them
all). To go back, set active_key to the old version.

Refused: sizes other than 2048, 3072 and 4096 bits, and more than 100 versions.
One key is generated at a time.

    vault write -field=public_key clanmeeting/keys/generate key_bits=2048 \
      > cm-public-key.pem
    vault list clanmeeting/keys
    vault write clanmeeting/config active_key=2
`

const keysImportHelpDescription = `
Stores a private key as the next key version. It does not sign yet. The answer
has its version. When Clan Meeting has installed the public half, set active_key
to that version (here 2). If the key may sign at once, write it to config
instead.

Refused, with nothing stored: a key that is encrypted or damaged, not RSA, under
2048 bits or over 8192, or not alone in its PEM; more than 100 versions. A key
is stored once: if it is stored already, the answer has its existing version and
a warning.

    vault write clanmeeting/keys/import private_key=@new-key.pem
    vault write clanmeeting/config active_key=2
`

const keyHelpDescription = `
A read returns the public half of a key version, its fingerprint and size, how
and when it came into Vault, and whether it is the one that signs. No path
returns the private half.

A delete removes a key version. Its number is not used again. Tokens that it
signed stay valid until they expire, or until Clan Meeting drops its public
half. The active version can't be deleted; set active_key of config to another
one first.

    vault read clanmeeting/keys/1
    vault delete clanmeeting/keys/1
`
