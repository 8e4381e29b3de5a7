// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/rsa"
	"fmt"
	"net/http"
	"strconv"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	fieldConsumerID      = "consumer_id"
	fieldPrivateKey      = "private_key"
	fieldActiveKey       = "active_key"
	fieldAudience        = "audience"
	fieldIssuer          = "issuer"
	fieldDomain          = "domain"
	fieldPublicKey       = "public_key"
	fieldPublicKeySHA256 = "public_key_sha256"
	fieldKeyBits         = "key_bits"
)

func (b *backend) pathConfig() *framework.Path {
	write := &framework.PathOperation{
		Callback:                    b.pathConfigWrite,
		Summary:                     "Configure the consumer and its key.",
		Responses:                   writeResponses,
		ForwardPerformanceStandby:   true,
		ForwardPerformanceSecondary: true,
		DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "configure"},
	}
	return &framework.Path{
		Pattern: "config",
		Fields:  configFields(),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.CreateOperation: write,
			logical.UpdateOperation: write,
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.pathConfigRead,
				Summary:  "Read the configuration and the public half of the active key.",
				Responses: map[int][]framework.Response{
					http.StatusOK: {{Description: "OK", Fields: configResponseFields()}},
				},
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "configuration"},
			},
			logical.DeleteOperation: &framework.PathOperation{
				Callback:                    b.pathConfigDelete,
				Summary:                     "Delete the configuration and every key.",
				Responses:                   emptyResponses,
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "delete", OperationSuffix: "configuration"},
			},
		},
		ExistenceCheck:  b.pathConfigExists,
		HelpSynopsis:    configHelpSynopsis,
		HelpDescription: configHelpDescription,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix},
	}
}

func configFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		fieldConsumerID: {
			Type:         framework.TypeString,
			Required:     true,
			Description:  "The consumer ID that Clan Meeting gave you; it becomes kid and sub of every token. Required when the configuration is created.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Consumer ID"},
		},
		fieldPrivateKey: {
			Type:         framework.TypeString,
			Description:  "The private key as a PEM: PKCS#1, PKCS#8 or OpenSSH, RSA, 2048 to 8192 bits, not encrypted. It is stored as the next key version and signs from then on. It is never returned.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Private key", Sensitive: true, EditType: "file"},
		},
		fieldActiveKey: {
			Type:         framework.TypeInt,
			Description:  "The key version that signs. Set it to switch to a version that is stored already, or back. Default: the newest one that came in as private_key.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Active key version"},
		},
		fieldAudience: {
			Type:         framework.TypeString,
			Default:      defaultAudience,
			Description:  "The aud claim of every token. An empty value puts the default back.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Audience"},
		},
		fieldIssuer: {
			Type:         framework.TypeString,
			Default:      defaultIssuer,
			Description:  "The iss claim of every token. An empty value puts the default back.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Issuer"},
		},
		fieldDomain: {
			Type:         framework.TypeString,
			Description:  "The host name of the meetings, like meet.example.com. With it, creds also returns the meeting's URL. An empty value removes it.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Domain"},
		},
	}
}

func configResponseFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		fieldConsumerID:      {Type: framework.TypeString, Required: true, Description: "The consumer ID."},
		fieldAudience:        {Type: framework.TypeString, Required: true, Description: "The aud claim of every token."},
		fieldIssuer:          {Type: framework.TypeString, Required: true, Description: "The iss claim of every token."},
		fieldDomain:          {Type: framework.TypeString, Required: true, Description: "The host name of the meetings; empty where none is set."},
		fieldActiveKey:       {Type: framework.TypeInt, Required: true, Description: "The key version that signs; 0 where none does."},
		fieldPublicKey:       {Type: framework.TypeString, Description: "The public half of the active key, as a SubjectPublicKeyInfo PEM."},
		fieldPublicKeySHA256: {Type: framework.TypeString, Description: "Hex of the SHA-256 of the public key in DER."},
		fieldKeyBits:         {Type: framework.TypeInt, Description: "The size of the active key in bits."},
	}
}

func (b *backend) pathConfigExists(ctx context.Context, req *logical.Request, _ *framework.FieldData) (bool, error) {
	cfg, err := loadConfig(ctx, req.Storage)
	if err != nil {
		return false, err
	}
	return cfg.configured(), nil
}

func (b *backend) pathConfigRead(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	b.configLock.RLock()
	defer b.configLock.RUnlock()

	cfg, err := loadConfig(ctx, req.Storage)
	if err != nil || !cfg.configured() {
		return nil, err
	}
	data := map[string]any{
		fieldConsumerID: cfg.ConsumerID,
		fieldAudience:   cfg.Audience,
		fieldIssuer:     cfg.Issuer,
		fieldDomain:     cfg.Domain,
		fieldActiveKey:  cfg.ActiveKey,
	}
	if cfg.ActiveKey != 0 {
		key, err := loadActiveKey(ctx, req.Storage, cfg)
		if err != nil {
			return nil, err
		}
		public, err := newPublicKey(&key.PublicKey)
		if err != nil {
			return nil, err
		}
		data[fieldPublicKey] = public.pem
		data[fieldPublicKeySHA256] = public.sha256
		data[fieldKeyBits] = public.bits
	}
	return &logical.Response{Data: data}, nil
}

func (b *backend) pathConfigWrite(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	b.configLock.Lock()
	defer b.configLock.Unlock()
	// Whatever becomes of the write, the next read loads what storage holds.
	defer b.cached.Store(nil)

	current, err := loadConfig(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	changed := current.patched(d)
	if !changed.configured() {
		return refuse(invalid("%s is required; Clan Meeting gave it to you with the key", fieldConsumerID))
	}
	if err := changed.check(); err != nil {
		return refuse(err)
	}

	resp := &logical.Response{}
	if _, ok := d.GetOk(fieldActiveKey); ok {
		if err := checkSwitch(ctx, req.Storage, &changed, d); err != nil {
			return refuse(err)
		}
	} else if pem, ok := d.GetOk(fieldPrivateKey); ok {
		key, err := parsePrivateKey(pem.(string))
		if err != nil {
			return refuse(err)
		}
		warning, err := b.activate(ctx, req.Storage, current, &changed, key)
		if err != nil {
			return nil, err
		}
		if warning != "" {
			resp.AddWarning(warning)
		}
	}
	if err := store(ctx, req.Storage, configStoragePath, &changed); err != nil {
		return nil, err
	}
	return resp, nil
}

// patched returns the configuration with the fields that the request names.
func (c *config) patched(d *framework.FieldData) config {
	changed := *c
	if !c.configured() {
		changed.Audience, changed.Issuer = defaultAudience, defaultIssuer
	}
	for name, target := range map[string]*string{
		fieldConsumerID: &changed.ConsumerID,
		fieldAudience:   &changed.Audience,
		fieldIssuer:     &changed.Issuer,
		fieldDomain:     &changed.Domain,
	} {
		if v, ok := d.GetOk(name); ok {
			*target = v.(string)
			if *target == "" {
				*target = d.GetDefaultOrZero(name).(string)
			}
		}
	}
	if v, ok := d.GetOk(fieldActiveKey); ok {
		changed.ActiveKey = v.(int)
	}
	return changed
}

// checkSwitch makes sure that the version which the request makes the active one
// is there to sign.
func checkSwitch(ctx context.Context, s logical.Storage, changed *config, d *framework.FieldData) error {
	if _, ok := d.GetOk(fieldPrivateKey); ok {
		return invalid("%s and %s exclude each other: a new private key becomes the active one by itself", fieldPrivateKey, fieldActiveKey)
	}
	entry, err := loadKey(ctx, s, changed.ActiveKey)
	if err != nil {
		return err
	}
	if entry == nil {
		return invalid("%s %d does not exist", fieldActiveKey, changed.ActiveKey)
	}
	return nil
}

// activate makes the key the active one of the changed configuration, and stores
// it first, unless it is the active one already; then it returns a warning.
func (b *backend) activate(ctx context.Context, s logical.Storage, current, changed *config, key *rsa.PrivateKey) (string, error) {
	if current.ActiveKey != 0 {
		active, err := loadActiveKey(ctx, s, current)
		if err != nil {
			return "", err
		}
		if active.Equal(key) {
			return "this private key is already the active one, version " + strconv.Itoa(current.ActiveKey) + "; no new version was stored", nil
		}
	}
	entry, err := newKeyEntry(key, sourceImported, b.now())
	if err != nil {
		return "", err
	}
	version, err := current.addKey(ctx, s, entry)
	if err != nil {
		return "", err
	}
	changed.ActiveKey, changed.LastKey = version, version
	return "", nil
}

func (b *backend) pathConfigDelete(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	b.configLock.Lock()
	defer b.configLock.Unlock()
	defer b.cached.Store(nil)

	cfg, err := loadConfig(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	// The configuration goes first: from then on no node looks for the keys.
	if cfg.LastKey == 0 {
		err = remove(ctx, req.Storage, configStoragePath)
	} else {
		err = store(ctx, req.Storage, configStoragePath, &config{LastKey: cfg.LastKey})
	}
	if err != nil {
		return nil, err
	}
	versions, err := req.Storage.List(ctx, keyPrefix)
	if err != nil {
		return nil, fmt.Errorf("listing %q in storage: %w", keyPrefix, err)
	}
	for _, version := range versions {
		if err := remove(ctx, req.Storage, keyPrefix+version); err != nil {
			return nil, err
		}
	}
	return &logical.Response{}, nil
}

const configHelpSynopsis = `Configure the Clan Meeting consumer whose meetings this mount makes hosts for.`

const configHelpDescription = `
Holds the consumer ID, the claims that all tokens share, and which key version
signs. A write that names some fields leaves the others as they are. A private key
becomes the next key version and the active one; no path returns it. A read gives
the public half of the active key, which is what the meeting server verifies with.

A key is refused, and nothing is stored, if it is encrypted, not RSA, under 2048
bits or over 8192, or damaged. A byte-order mark, CRLF, indentation and line breaks
written as \n are mended.

Deleting removes the configuration and every key version; tokens that were signed
before stay valid until they expire.

  $ vault write clanmeeting/config consumer_id=acme private_key=@cm-api-key.pem
  $ vault write clanmeeting/config domain=meet.example.com
  $ vault read clanmeeting/config
`
