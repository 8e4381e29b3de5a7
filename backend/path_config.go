// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathConfig() *framework.Path {
	write := onActiveNode(b.pathConfigWrite, "Configure the consumer and its key.", onlyWarnings, named("configure", ""))
	return &framework.Path{
		Pattern: "config",
		Fields:  schemas(configFields),
		Operations: operationMap{
			logical.CreateOperation: write,
			logical.UpdateOperation: write,
			logical.ReadOperation:   onAnyNode(b.pathConfigRead, "Read the configuration and the public half of the active key.", ok(configResponse()), named("read", "configuration")),
			logical.DeleteOperation: onActiveNode(b.pathConfigDelete, "Delete the configuration and every key.", noContent, named("delete", "configuration")),
		},
		ExistenceCheck:  b.pathConfigExists,
		HelpSynopsis:    "Configure the consumer and the key that this mount signs tokens for.",
		HelpDescription: configHelpDescription,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix},
	}
}

// configResponse are the settings, and the public half of the active key if there is one.
func configResponse() map[string]*framework.FieldSchema {
	fields := responseSchemas(configFields)
	maps.Copy(fields, keyResponse(false, fieldPublicKey, fieldPublicKeySHA256, fieldKeyBits))
	return fields
}

func (b *backend) pathConfigExists(ctx context.Context, req *logical.Request, _ *framework.FieldData) (bool, error) {
	cfg, err := loadConfig(ctx, req.Storage)
	return err == nil && cfg.configured(), err
}

func (b *backend) pathConfigRead(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	ring, err := b.currentKeyring(ctx, req.Storage)
	if err != nil || !ring.config.configured() {
		return nil, err
	}
	data := readFields(configFields, ring.config)
	if active := ring.config.ActiveKey; active != 0 {
		k, err := ring.at(active)
		if err == nil && k == nil {
			err = errKeyMissing(active)
		}
		if err != nil {
			return nil, err
		}
		maps.Copy(data, publicData(k.public))
	}
	return &logical.Response{Data: data}, nil
}

func (b *backend) pathConfigWrite(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	// The key is checked before the lock is taken. If it is wrong, the answer also says
	// what else is.
	given, keyErr := b.givenKey(d)
	if keyErr != nil && !isInvalid(keyErr) {
		return nil, keyErr
	}
	return b.changeKeys(ctx, req, func(ctx context.Context) (*change, error) {
		ring, err := b.lockedKeyring(ctx, req.Storage)
		if err != nil {
			return nil, err
		}
		changed, err := ring.config.patched(d)
		if err := errors.Join(err, keyErr); err != nil {
			return nil, err
		}
		if _, ok := d.GetOk(fieldActiveKey); ok && changed.ActiveKey != 0 {
			if err := ring.checkSigns(changed.ActiveKey); err != nil {
				return nil, err
			}
		}
		return writeConfig(ctx, req.Storage, ring, changed, given)
	})
}

// givenKey returns the private key of the request; nil if it has none.
func (b *backend) givenKey(d *framework.FieldData) (*key, error) {
	pem, ok := d.GetOk(fieldPrivateKey)
	if !ok {
		return nil, nil
	}
	if _, ok := d.GetOk(fieldActiveKey); ok {
		return nil, invalid("%s and %s can't be used together: a new private key becomes active by itself", fieldPrivateKey, fieldActiveKey)
	}
	return b.parseKey(pem.(string))
}

// patched returns the configuration with the request's changes. The error reports all
// problems at once.
func (c *config) patched(d *framework.FieldData) (*config, error) {
	changed := *c
	problems := []error{patchFields(configFields, &changed, d)}
	changed.Audience = cmp.Or(changed.Audience, defaultAudience)
	changed.Issuer = cmp.Or(changed.Issuer, defaultIssuer)
	if changed.ActiveKey == 0 && c.ActiveKey != 0 {
		problems = append(problems, invalid("%s 0 is accepted only while no key is active; version %d is active: set another version, or delete the configuration", fieldActiveKey, c.ActiveKey))
	}
	if changed.configured() {
		problems = append(problems, changed.check())
	} else {
		problems = append(problems, invalid("%s is required; Clan Meeting gave it to you with the key", fieldConsumerID))
	}
	return &changed, errors.Join(problems...)
}

// writeConfig stores the key that becomes the active one, if one is given, and then the
// changed configuration. What is stored already is not written again.
func writeConfig(ctx context.Context, s logical.Storage, ring *keyring, changed *config, given *key) (*change, error) {
	done := &change{resp: &logical.Response{}}
	was := ring.config.ActiveKey
	if given != nil {
		version, known, err := ring.add(ctx, s, given)
		if err != nil {
			return nil, err
		}
		changed.ActiveKey = version
		if known {
			done.resp.AddWarning(knownKeyWarning(version, was))
		} else {
			done.events = append(done.events, keyEvent(eventKeyImport, version))
		}
	}
	// An older configuration may have been restored, without the numbers of newer keys.
	changed.LastKey = max(changed.LastKey, changed.ActiveKey, ring.highest())
	if *changed != *ring.config {
		if err := store(ctx, s, configStoragePath, *changed); err != nil {
			return nil, err
		}
	}
	done.settings = changed.settings
	done.events = append(done.events, event{operation: eventConfigWrite, unchanged: *changed == *ring.config})
	if changed.ActiveKey != was {
		done.events = append(done.events, keyEvent(eventKeyActivate, changed.ActiveKey))
	}
	return done, nil
}

// knownKeyWarning says that a key that was written to the configuration is stored already,
// and which version was active before.
func knownKeyWarning(version, was int) string {
	if was == version {
		return activeKeyWarning(version)
	}
	before := "no version"
	if was != 0 {
		before = fmt.Sprintf("version %d", was)
	}
	return fmt.Sprintf("this private key was stored already, as version %d, which is the active one now; %s was active before; no new version was stored", version, before)
}

func activeKeyWarning(version int) string {
	return fmt.Sprintf("this private key is already the active one, version %d; no new version was stored", version)
}

func (b *backend) pathConfigDelete(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	return b.changeKeys(ctx, req, func(ctx context.Context) (*change, error) {
		cfg, err := loadConfig(ctx, req.Storage)
		if errors.Is(err, errCorrupt) {
			// Deleting is how to recover.
			b.Logger().Warn("the configuration is corrupt and is deleted unread", "error", err)
			cfg, err = &config{}, nil
		}
		if err != nil {
			return nil, err
		}
		names, err := logical.CollectKeys(ctx, logical.NewStorageView(req.Storage, keyPrefix))
		if err != nil {
			return nil, fmt.Errorf("listing %q in storage: %w", keyPrefix, err)
		}
		if err := cfg.delete(ctx, req.Storage, names); err != nil {
			return nil, err
		}
		unchanged := !cfg.configured() && len(names) == 0
		return &change{resp: &logical.Response{}, events: []event{{operation: eventConfigDelete, unchanged: unchanged}}}, nil
	})
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

const configHelpDescription = `
Contains the consumer ID and the claims that all tokens of this mount share, and
says which key version signs.

A write changes only the fields that it names. A read returns the settings, and
the public half of the active key, with which the meeting server verifies
tokens. No path returns a private key. A delete removes the configuration and
every key version; tokens that were signed before stay valid until they expire.

Refused, with nothing stored: a first write without consumer_id; private_key and
active_key in one write; a key version that does not exist; a private key that
is encrypted or damaged, not RSA, or under 2048 bits or over 8192; a PEM with
anything else in it. UTF-16, a byte-order mark, quotes, CRLF, indentation and
line breaks written as \n are repaired.

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
