// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	fieldVersion         = "version"
	fieldSource          = "source"
	fieldCreatedTime     = "created_time"
	fieldActive          = "active"
	fieldPublicKey       = "public_key"
	fieldPublicKeySHA256 = "public_key_sha256"
	fieldKeyBits         = "key_bits"
	fieldError           = "error"
)

// generatedKeyBits are the sizes that keys/generate supports; the first one is the default.
var generatedKeyBits = []any{2048, 3072, 4096}

func (b *backend) pathKeys() []*framework.Path {
	return []*framework.Path{b.pathKeyList(), b.pathKeyGenerate(), b.pathKeyImport(), b.pathKey()}
}

func (b *backend) pathKeyList() *framework.Path {
	fields := map[string]*framework.FieldSchema{
		"keys":     {Type: framework.TypeStringSlice, Required: true, Description: "The key versions, in ascending order of the number."},
		"key_info": {Type: framework.TypeMap, Description: "For each version: active, source, created_time, key_bits and public_key_sha256; or error, if it can't be read."},
	}
	return &framework.Path{
		Pattern:         "keys/?$",
		Operations:      operationMap{logical.ListOperation: onAnyNode(b.pathKeysList, "List the key versions.", ok(fields), nil)},
		HelpSynopsis:    "List the key versions of this mount.",
		HelpDescription: keysHelpDescription,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "keys", Navigation: true, ItemType: "Key"},
	}
}

func (b *backend) pathKeyGenerate() *framework.Path {
	bits := &framework.FieldSchema{
		Type:          framework.TypeInt,
		Default:       generatedKeyBits[0],
		AllowedValues: generatedKeyBits,
		Description: `The size of the key in bits: 2048, 3072 or 4096. Default: 2048. A
signature with 4096 bits takes five times as long as one with 2048.`,
		DisplayAttrs: titled("Key bits"),
	}
	return pathNewKey("generate", b.pathKeysGenerate, fieldKeyBits, bits,
		"Generate a key pair inside Vault, without activating it.", keysGenerateHelpDescription)
}

func (b *backend) pathKeyImport() *framework.Path {
	private := privateKeySchema(`The private key: an RSA key of 2048 to 8192 bits as a PEM, in PKCS#1,
PKCS#8 or OpenSSH form, not encrypted. It is never returned. Required.`)
	private.Required = true
	return pathNewKey("import", b.pathKeysImport, fieldPrivateKey, &private,
		"Store a private key without activating it.", keysImportHelpDescription)
}

// pathNewKey is a path that stores a new key version. Its one field says which.
func pathNewKey(verb string, handler framework.OperationFunc, field string, schema *framework.FieldSchema, synopsis, help string) *framework.Path {
	answer := keyResponse(true, fieldVersion, fieldPublicKey, fieldPublicKeySHA256, fieldKeyBits)
	return &framework.Path{
		Pattern:         keyPrefix + verb,
		Fields:          map[string]*framework.FieldSchema{field: schema},
		Operations:      operationMap{logical.UpdateOperation: onActiveNode(handler, synopsis, ok(answer), named(verb, "key"))},
		HelpSynopsis:    synopsis,
		HelpDescription: help,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix},
	}
}

func (b *backend) pathKey() *framework.Path {
	all := keyResponse(true, slices.Collect(maps.Keys(keyFields))...)
	return &framework.Path{
		// No leading zeros, which the SDK would read as octal, and no more digits than fit
		// an integer.
		Pattern: keyPrefix + `(?P<` + fieldVersion + `>[1-9][0-9]{0,8})`,
		Fields: map[string]*framework.FieldSchema{
			fieldVersion: {Type: framework.TypeInt, Required: true, Description: "The key version, a number from 1. Part of the path."},
		},
		Operations: operationMap{
			logical.ReadOperation:   onAnyNode(b.pathKeyRead, "Read the public half of a key version.", ok(all), nil),
			logical.DeleteOperation: onActiveNode(b.pathKeyDelete, "Delete a key version that is not active.", noContent, nil),
		},
		HelpSynopsis:    "Read the public half of a key version, or delete it.",
		HelpDescription: keyHelpDescription,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "key", ItemType: "Key"},
	}
}

// keyFields are what answers say about a key version.
var keyFields = map[string]framework.FieldSchema{
	fieldVersion:         {Type: framework.TypeInt, Description: "The key version."},
	fieldPublicKey:       {Type: framework.TypeString, Description: "The public half, as a SubjectPublicKeyInfo PEM."},
	fieldPublicKeySHA256: {Type: framework.TypeString, Description: "Hex of the SHA-256 of the public key in DER."},
	fieldKeyBits:         {Type: framework.TypeInt, Description: "The size of the key in bits."},
	fieldSource:          {Type: framework.TypeString, Description: "How the key came into Vault: imported or generated."},
	fieldCreatedTime:     {Type: framework.TypeTime, Description: "When it came into Vault, as RFC 3339."},
	fieldActive:          {Type: framework.TypeBool, Description: "Whether it is the version that signs."},
}

// keyResponse describes an answer with some of the keyFields.
func keyResponse(always bool, names ...string) map[string]*framework.FieldSchema {
	fields := map[string]*framework.FieldSchema{}
	for _, name := range names {
		schema := keyFields[name]
		schema.Required = always
		fields[name] = &schema
	}
	return fields
}

// keyInfo describes a version in a list. Its public half takes up too much space there.
func (r *keyring) keyInfo(k *key) map[string]any {
	info := map[string]any{fieldActive: k.version == r.config.ActiveKey}
	if k.err != nil {
		info[fieldError] = k.err.Error()
		return info
	}
	info[fieldSource] = string(k.Source)
	info[fieldCreatedTime] = k.CreatedTime.UTC().Format(time.RFC3339)
	info[fieldKeyBits] = k.public.Bits
	info[fieldPublicKeySHA256] = k.public.SHA256
	return info
}

func (b *backend) pathKeysList(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	ring, err := b.currentKeyring(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	var names []string
	infos := map[string]any{}
	for _, k := range ring.versions {
		name := strconv.Itoa(k.version)
		names = append(names, name)
		infos[name] = ring.keyInfo(k)
	}
	return logical.ListResponseWithInfo(names, infos), nil
}

func (b *backend) pathKeysGenerate(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	bits := d.Get(fieldKeyBits).(int)
	if !slices.Contains(generatedKeyBits, any(bits)) {
		return nil, invalid("%s must be 2048, 3072 or 4096", fieldKeyBits)
	}
	ring, err := b.currentKeyring(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	if err := ring.checkCapacity(); err != nil { // before one is generated in vain
		return nil, err
	}
	k, err := b.generateKey(ctx, bits)
	if err != nil {
		return nil, err
	}
	return b.stage(ctx, req, k, eventKeyGenerate)
}

func (b *backend) pathKeysImport(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	k, err := b.parseKey(d.Get(fieldPrivateKey).(string))
	if err != nil {
		return nil, err
	}
	return b.stage(ctx, req, k, eventKeyImport)
}

// stage stores a key without activating it, unless it is stored already.
func (b *backend) stage(ctx context.Context, req *logical.Request, k *key, operation string) (*logical.Response, error) {
	return b.changeKeys(ctx, req, func(ctx context.Context) (*change, error) {
		ring, err := b.lockedKeyring(ctx, req.Storage)
		if err != nil {
			return nil, err
		}
		version, known, err := ring.add(ctx, req.Storage, k)
		if err != nil {
			return nil, err
		}
		done := &change{settings: ring.config.settings, resp: &logical.Response{Data: publicData(k.public)}}
		done.resp.Data[fieldVersion] = version
		switch {
		case known && version == ring.config.ActiveKey:
			done.resp.AddWarning(activeKeyWarning(version))
		case known:
			done.resp.AddWarning(fmt.Sprintf("this private key was stored already, as version %d; no new version was stored", version))
		default:
			done.events = []event{keyEvent(operation, version)}
		}
		return done, nil
	})
}

func (b *backend) pathKeyRead(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	ring, err := b.currentKeyring(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	version := d.Get(fieldVersion).(int)
	k, err := ring.at(version)
	if err != nil || k == nil {
		return nil, err
	}
	data := ring.keyInfo(k)
	maps.Copy(data, publicData(k.public))
	data[fieldVersion] = version
	return &logical.Response{Data: data}, nil
}

func (b *backend) pathKeyDelete(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	version := d.Get(fieldVersion).(int)
	return b.changeKeys(ctx, req, func(ctx context.Context) (*change, error) {
		ring, err := b.lockedKeyring(ctx, req.Storage)
		if err != nil {
			return nil, err
		}
		if version == ring.config.ActiveKey {
			return nil, invalid("%s %d is the active one; set %s of config to another version first", fieldVersion, version, fieldActiveKey)
		}
		done := &change{settings: ring.config.settings, resp: &logical.Response{}}
		if k, err := ring.at(version); k == nil && err == nil {
			return done, nil
		}
		done.events = []event{keyEvent(eventKeyDelete, version)}
		if err := remove(ctx, req.Storage, keyPath(version)); err != nil {
			return nil, err
		}
		return done, nil
	})
}

const keysHelpDescription = `
Lists the key versions that are stored, with key_info for each: whether it is
active, how and when it came into Vault, its size, and its fingerprint. A
version that can't be read has an error there. If there is no version, the CLI
says "No value found".

    vault list clanmeeting/keys
    vault list -detailed clanmeeting/keys
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

Refused, with nothing stored: a key that is encrypted or damaged, not RSA, or
under 2048 bits or over 8192; a PEM with anything else in it; more than 100
versions. A key is stored once: if it is stored already, the answer has its
existing version and a warning.

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
