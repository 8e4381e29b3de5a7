// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Emptyplugin is a secrets engine that does nothing, or only one RS256 signature. The
// benchmark measures with it what a call of an external plugin costs by itself, and what
// a call costs at least if the plugin signs.
package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
)

func read(pattern string, callback framework.OperationFunc) *framework.Path {
	return &framework.Path{
		Pattern:    pattern,
		Fields:     map[string]*framework.FieldSchema{"room": {Type: framework.TypeString, Query: true}},
		Operations: map[logical.Operation]framework.OperationHandler{logical.ReadOperation: &framework.PathOperation{Callback: callback}},
	}
}

func factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("generating a key: %w", err)
	}
	b := &framework.Backend{
		BackendType: logical.TypeLogical,
		Paths: []*framework.Path{
			read("empty", func(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
				return &logical.Response{Data: map[string]any{"empty": true}}, nil
			}),
			read("signature", func(_ context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
				sum := sha256.Sum256([]byte(d.Get("room").(string)))
				signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
				return &logical.Response{Data: map[string]any{"signature": base64.RawURLEncoding.EncodeToString(signature)}}, err
			}),
		},
	}
	return b, b.Setup(ctx, conf)
}

func main() {
	if err := plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: factory}); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
