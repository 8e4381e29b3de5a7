// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	fieldVersion     = "version"
	fieldSource      = "source"
	fieldCreatedTime = "created_time"
	fieldActive      = "active"
)

// generatedKeyBits are the sizes that keys/generate makes.
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
						"keys": {Type: framework.TypeStringSlice, Required: true, Description: "The key versions, in their order."},
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
signature with 4096 bits costs five times one with 2048.`,
				DisplayAttrs: &framework.DisplayAttributes{Name: "Key bits"},
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback:                    b.pathKeysGenerate,
				Summary:                     "Make a key pair inside Vault, as the next key version.",
				Responses:                   newKeyResponses(),
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "generate", OperationSuffix: "key"},
			},
		},
		HelpSynopsis:    "Make a key pair inside Vault, without activating it.",
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
		// No leading zeros: the framework would read 010 as 8.
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

// newKeyResponseFields are what names a key that was just stored.
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
	fields[fieldCreatedTime] = &framework.FieldSchema{Type: framework.TypeTime, Required: true, Description: "When it did, as RFC 3339."}
	fields[fieldActive] = &framework.FieldSchema{Type: framework.TypeBool, Required: true, Description: "Whether it is the version that signs."}
	return fields
}

// keyData names a key version by its public half.
func keyData(version int, key *rsa.PublicKey) (map[string]any, error) {
	public, err := newPublicKey(key)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		fieldVersion:         version,
		fieldPublicKey:       public.pem,
		fieldPublicKeySHA256: public.sha256,
		fieldKeyBits:         public.bits,
	}, nil
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
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, fmt.Errorf("generating a key: %w", err)
	}
	return b.stage(ctx, req, key, sourceGenerated)
}

func (b *backend) pathKeysImport(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	pem, _, err := stringField(d, fieldPrivateKey)
	if err != nil {
		return refuse(err)
	}
	key, err := parsePrivateKey(pem)
	if err != nil {
		return refuse(err)
	}
	return b.stage(ctx, req, key, sourceImported)
}

// stage stores a key without activating it, unless it is the active one already.
func (b *backend) stage(ctx context.Context, req *logical.Request, key *rsa.PrivateKey, source keySource) (*logical.Response, error) {
	b.configLock.Lock()
	defer b.configLock.Unlock()
	cfg, err := loadConfig(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	resp := &logical.Response{}
	version := cfg.ActiveKey
	known, err := isActiveKey(ctx, req.Storage, cfg, key)
	switch {
	case err != nil:
		return nil, err
	case known:
		resp.AddWarning(activeKeyWarning(version))
	default:
		if version, err = b.addKey(ctx, req, cfg, key, source); err != nil {
			return nil, err
		}
	}
	if resp.Data, err = keyData(version, &key.PublicKey); err != nil {
		return nil, err
	}
	return resp, nil
}

// addKey stores a key under the next version and tells so in an event.
func (b *backend) addKey(ctx context.Context, req *logical.Request, cfg *config, key *rsa.PrivateKey, source keySource) (int, error) {
	entry, err := newKeyEntry(key, source, b.now())
	if err != nil {
		return 0, err
	}
	version, err := cfg.addKey(ctx, req.Storage, entry)
	if err != nil {
		return 0, err
	}
	operation := eventKeyImport
	if source == sourceGenerated {
		operation = eventKeyGenerate
	}
	b.sendEvent(ctx, req, operation, true, fieldVersion, strconv.Itoa(version))
	return version, nil
}

func (b *backend) pathKeyRead(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	b.configLock.RLock()
	defer b.configLock.RUnlock()
	version := d.Get(fieldVersion).(int)
	entry, err := loadKey(ctx, req.Storage, version)
	if err != nil || entry == nil {
		return nil, err
	}
	cfg, err := loadConfig(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	data, err := keyData(version, &entry.key.PublicKey)
	if err != nil {
		return nil, err
	}
	data[fieldSource] = string(entry.Source)
	data[fieldCreatedTime] = entry.CreatedTime.Format(time.RFC3339)
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
		return refuse(invalid("%s %d is the active one; set %s of config to another first", fieldVersion, version, fieldActiveKey))
	}
	stored, err := listKeys(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(stored, version) {
		return &logical.Response{}, nil
	}
	if err := remove(ctx, req.Storage, keyPath(version)); err != nil {
		return nil, err
	}
	b.sendEvent(ctx, req, eventKeyDelete, true, fieldVersion, strconv.Itoa(version))
	return &logical.Response{}, nil
}

const keysHelpDescription = `
Lists the key versions that are stored, oldest first. Where there is none, no
value is found. The one that signs is active_key of config.

    vault list clanmeeting/keys
`

const keysGenerateHelpDescription = `
Makes a key pair inside Vault and stores it as the next key version. It does not
sign yet. The answer has its version and its public half; the private half never
leaves Vault. Hand the public half to Clan Meeting, and when they have put it in
place, make the version the active one (here 2; a list of keys shows which there
are). To go back, set active_key back.

Refused: any other size than 2048, 3072 or 4096 bits.

    vault write -field=public_key clanmeeting/keys/generate key_bits=2048 \
      > cm-public-key.pem
    vault list clanmeeting/keys
    vault write clanmeeting/config active_key=2
`

const keysImportHelpDescription = `
Stores a private key as the next key version. It does not sign yet. The answer
has its version; make that the active one (here 2) when Clan Meeting has put the
public half in place. To have a key sign at once, write it to config instead.

Refused, with nothing stored: a key that is encrypted or damaged, not RSA, under
2048 bits or over 8192, or not alone in its PEM. Importing the key that is
active already stores nothing, and says so in a warning.

    vault write clanmeeting/keys/import private_key=@new-key.pem
    vault write clanmeeting/config active_key=2
`

const keyHelpDescription = `
A read returns the public half of a key version, its fingerprint and size, how
and when it came into Vault, and whether it is the one that signs. No path
returns the private half.

A delete removes a key version. Its number is not used again, and tokens that it
signed stay valid until they expire. Refused: deleting the active version; set
active_key of config to another one first.

    vault read clanmeeting/keys/1
    vault delete clanmeeting/keys/1
`
