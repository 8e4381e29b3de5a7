// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
			Type:     framework.TypeString,
			Required: true,
			Description: `The consumer ID that Clan Meeting gave you with the key: 1 to 128
letters, digits, underscores and hyphens. It becomes kid and sub of
every token. Required when the configuration is created; no default.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Consumer ID"},
		},
		fieldPrivateKey: {
			Type: framework.TypeString,
			Description: `The private key, cm-api-key.pem: an RSA key of 2048 to 8192 bits as a
PEM, in PKCS#1, PKCS#8 or OpenSSH form, not encrypted. It becomes the
next key version, unless it is stored already, and signs from then on.
It is never returned. No default.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Private key", Sensitive: true, EditType: "file"},
		},
		fieldActiveKey: {
			Type: framework.TypeInt,
			Description: `The key version that signs, a number from 1. Set it to switch to a
version that is stored already, or back. Default: the last version
written as private_key. Not together with private_key. A read returns 0
if no key is active; 0 is accepted only then.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Active key version"},
		},
		fieldAudience: {
			Type:    framework.TypeString,
			Default: defaultAudience,
			Description: `The aud claim of every token, 1 to 255 visible characters. Default:
clanmeeting, which an empty value restores.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Audience"},
		},
		fieldIssuer: {
			Type:    framework.TypeString,
			Default: defaultIssuer,
			Description: `The iss claim of every token, 1 to 255 visible characters. Default:
production, which an empty value restores.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Issuer"},
		},
		fieldDomain: {
			Type: framework.TypeString,
			Description: `The host name of the meetings, like meet.example.com, without scheme,
port or path. With it, creds also returns meeting_url. Default: none. An
empty value removes it.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Domain"},
		},
	}
}

func configResponseFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		fieldConsumerID:      {Type: framework.TypeString, Required: true, Description: "The consumer ID."},
		fieldAudience:        {Type: framework.TypeString, Required: true, Description: "The aud claim of every token."},
		fieldIssuer:          {Type: framework.TypeString, Required: true, Description: "The iss claim of every token."},
		fieldDomain:          {Type: framework.TypeString, Required: true, Description: "The host name of the meetings; empty if none is set."},
		fieldActiveKey:       {Type: framework.TypeInt, Required: true, Description: "The key version that signs; 0 if none does."},
		fieldPublicKey:       {Type: framework.TypeString, Description: "The public half of the active key, as a SubjectPublicKeyInfo PEM."},
		fieldPublicKeySHA256: {Type: framework.TypeString, Description: "Hex of the SHA-256 of the public key in DER."},
		fieldKeyBits:         {Type: framework.TypeInt, Description: "The size of the active key in bits."},
	}
}

func (b *backend) pathConfigExists(ctx context.Context, req *logical.Request, _ *framework.FieldData) (bool, error) {
	cfg, err := loadConfig(ctx, req.Storage)
	if errors.Is(err, errCorrupt) {
		return true, nil // there is one, and the handler says what is wrong with it
	}
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
		active, err := loadActiveKey(ctx, req.Storage, cfg)
		if err != nil {
			return nil, err
		}
		maps.Copy(data, publicData(active.private.Public()))
	}
	return &logical.Response{Data: data}, nil
}

func (b *backend) pathConfigWrite(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	given, keyErr := b.givenKey(ctx, d)
	if keyErr != nil && !isInvalid(keyErr) {
		return nil, keyErr
	}
	b.configLock.Lock()
	defer b.configLock.Unlock()

	current, err := loadConfig(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	changed, err := current.patched(d)
	if err = errors.Join(err, keyErr); err != nil {
		return refuse(err)
	}
	if _, ok := d.GetOk(fieldActiveKey); ok && changed.ActiveKey != 0 {
		if err := checkKeyExists(ctx, req.Storage, changed.ActiveKey); err != nil {
			return refuse(err)
		}
	}
	// Even if the write fails, the next read must load what storage holds.
	defer b.forget()
	resp := &logical.Response{}
	if given != nil {
		if err := b.activate(ctx, req, given, current, changed, resp); err != nil {
			return refuse(err)
		}
	}
	if err := store(ctx, req.Storage, configStoragePath, *changed); err != nil {
		return nil, err
	}
	b.sendEvent(ctx, req, eventConfigWrite, true)
	if changed.ActiveKey != current.ActiveKey {
		b.sendEvent(ctx, req, eventKeyActivate, true, fieldVersion, strconv.Itoa(changed.ActiveKey))
	}
	return resp, nil
}

// givenKey returns the private key of the request; nil if it has none. The key is checked
// before anything is locked.
func (b *backend) givenKey(ctx context.Context, d *framework.FieldData) (*key, error) {
	pem, ok := d.GetOk(fieldPrivateKey)
	if !ok {
		return nil, nil
	}
	if _, ok := d.GetOk(fieldActiveKey); ok {
		return nil, nil // refused by patched
	}
	private, err := parsePrivateKey(ctx, pem.(string))
	if err != nil {
		return nil, err
	}
	return &key{private: private, source: sourceImported, createdTime: b.now()}, nil
}

// patched returns the configuration with the request's changes. The error reports all
// problems at once.
func (c *config) patched(d *framework.FieldData) (*config, error) {
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
		}
	}
	if changed.Audience == "" {
		changed.Audience = defaultAudience
	}
	if changed.Issuer == "" {
		changed.Issuer = defaultIssuer
	}
	if v, ok := d.GetOk(fieldActiveKey); ok {
		if _, ok := d.GetOk(fieldPrivateKey); ok {
			return nil, invalid("%s and %s can't be used together: a new private key becomes active by itself", fieldPrivateKey, fieldActiveKey)
		}
		changed.ActiveKey = v.(int)
		if changed.ActiveKey == 0 && c.ActiveKey != 0 {
			return nil, invalid("%s 0 is accepted only while no key is active; version %d is active: set another version, or delete the configuration", fieldActiveKey, c.ActiveKey)
		}
	}
	var problems []error
	if !changed.configured() {
		problems = append(problems, invalid("%s is required; Clan Meeting gave it to you with the key", fieldConsumerID))
	}
	return &changed, errors.Join(append(problems, changed.check())...)
}

// checkKeyExists checks that a version is stored and can be read.
func checkKeyExists(ctx context.Context, s logical.Storage, version int) error {
	stored, err := loadKey(ctx, s, version)
	if err == nil && stored == nil {
		err = errNoSuchKey(version)
	}
	return err
}

func errNoSuchKey(version int) error {
	return invalid("%s %d does not exist; list the path keys to see which versions do", fieldActiveKey, version)
}

// activate makes a key the active one of the changed configuration. It stores the key
// if that is new.
func (b *backend) activate(ctx context.Context, req *logical.Request, given *key, current, changed *config, resp *logical.Response) error {
	version, known, err := b.storeOnce(ctx, req, given, current)
	if err != nil {
		return err
	}
	changed.ActiveKey, changed.LastKey = version, current.LastKey
	switch {
	case !known:
	case version == current.ActiveKey:
		resp.AddWarning(activeKeyWarning(version))
	case current.ActiveKey == 0:
		resp.AddWarning(fmt.Sprintf("this private key was stored already, as version %d, which is the active one now; no version was active before; no new version was stored", version))
	default:
		resp.AddWarning(fmt.Sprintf("this private key was stored already, as version %d, which is the active one now; version %d was active before; no new version was stored", version, current.ActiveKey))
	}
	return nil
}

func activeKeyWarning(version int) string {
	return fmt.Sprintf("this private key is already the active one, version %d; no new version was stored", version)
}

func (b *backend) pathConfigDelete(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	b.configLock.Lock()
	defer b.configLock.Unlock()
	defer b.forget()

	cfg, err := loadConfig(ctx, req.Storage)
	if errors.Is(err, errCorrupt) {
		// Deleting is how to recover.
		b.Logger().Warn("the configuration is corrupt and is deleted unread", "error", err)
		cfg, err = &config{}, nil
	}
	if err != nil {
		return nil, err
	}
	keys, err := logical.CollectKeys(ctx, logical.NewStorageView(req.Storage, keyPrefix))
	if err != nil {
		return nil, fmt.Errorf("listing %q in storage: %w", keyPrefix, err)
	}
	if err := cfg.delete(ctx, req.Storage, keys); err != nil {
		return nil, err
	}
	b.sendEvent(ctx, req, eventConfigDelete, cfg.configured() || len(keys) > 0)
	return &logical.Response{}, nil
}

// delete first deactivates the key, then deletes the entries below keys/, and the
// configuration last. So no node ever lacks the key that signs. If the deletion fails
// halfway, the configuration is still there to show it.
func (c *config) delete(ctx context.Context, s logical.Storage, keys []string) error {
	last := &config{LastKey: c.LastKey}
	if c.ActiveKey != 0 {
		inactive := *c
		inactive.ActiveKey = 0
		if err := store(ctx, s, configStoragePath, inactive); err != nil {
			return err
		}
	}
	for _, name := range keys {
		if version, err := strconv.Atoi(name); err == nil {
			last.LastKey = max(last.LastKey, version)
		}
		if err := remove(ctx, s, keyPrefix+name); err != nil {
			return err
		}
	}
	if last.LastKey == 0 {
		return remove(ctx, s, configStoragePath)
	}
	return store(ctx, s, configStoragePath, *last)
}

const configHelpSynopsis = `Configure the consumer and the key that this mount signs tokens for.`

const configHelpDescription = `
Holds the consumer ID and the claims that all tokens of this mount share, and
says which key version signs.

A write changes only the fields that it names. private_key is stored as the next
key version and signs from then on; active_key switches to a version that is
stored already. A read returns the settings, and the public half of the active
key, with which the meeting server verifies tokens. No path returns a private
key. A delete removes the configuration and every key version; tokens that were
signed before stay valid until they expire.

Refused, with nothing stored: a first write without consumer_id; private_key and
active_key in one write; a key version that does not exist; a private key that
is encrypted or damaged, not RSA, under 2048 bits or over 8192, or not alone in
its PEM. UTF-16, a byte-order mark, quotes, CRLF, indentation and line breaks
written as \n are repaired.

A private key is stored once. If you write it again, its existing version
becomes active, and a warning says which version was active before. A mount
keeps at most 100 key versions.

If an entry is corrupt, a delete still deletes everything. If only the active
key is corrupt, write private_key, or stage another key and set active_key.

    vault write clanmeeting/config consumer_id=acme private_key=@cm-api-key.pem
    vault write clanmeeting/config domain=meet.example.com
    vault write clanmeeting/config active_key=1
    vault read clanmeeting/config
`
