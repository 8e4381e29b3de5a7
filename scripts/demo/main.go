// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Demo starts a Vault in dev mode with the engine, and goes from a private key to a
// verified host token. Then it tries what the application may not do. With -stay it only
// mounts the engine, and waits.
package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	_ "embed"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

func main() {
	vaultBin := flag.String("vault", "", "the binary of Vault or OpenBao")
	pluginDir := flag.String("plugin-dir", "", "the folder with the plugin and nothing else")
	stay := flag.Bool("stay", false, "only mount the engine, and keep Vault running")
	flag.Parse()

	// SIGPIPE, too: Vault must end if nobody reads the demo's output any more.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	err := run(ctx, *vaultBin, *pluginDir, *stay)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, vaultBin, pluginDir string, stay bool) error {
	dir, err := os.MkdirTemp("", "clanmeeting-demo-")
	if err != nil {
		return fmt.Errorf("making a folder for the demo: %w", err)
	}
	defer os.RemoveAll(dir)

	// A copy, because Vault refuses a plugin that another make build has replaced.
	plugins := filepath.Join(dir, "plugins")
	if err := os.CopyFS(plugins, os.DirFS(pluginDir)); err != nil {
		return fmt.Errorf("copying the plugin: %w", err)
	}
	vault, err := devvault.Start(ctx, devvault.Options{VaultBin: vaultBin, PluginDir: plugins})
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return err
	}
	defer vault.Stop()

	d := &demo{vault: vault, dir: dir}
	fmt.Printf("%s in dev mode at %s, with the plugin registered.\n", vault.Kind, vault.Addr)
	if err := d.sh(ctx, mount); err != nil {
		return err
	}
	if stay {
		fmt.Printf("\nTo use it, paste this into another shell. Ctrl-C here stops it.\n\n"+
			"  export VAULT_ADDR=%s\n  export VAULT_TOKEN=%s\n  alias vault=%s\n\n", vault.Addr, vault.RootToken, vaultBin)
		select {
		case <-ctx.Done():
			return nil
		case <-vault.Done():
			return fmt.Errorf("the Vault has ended\n%s", vault.Log())
		}
	}
	for _, step := range []func(context.Context) error{d.makeKey, d.token, d.verify, d.refusals} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// functions come before the commands that the demo shows.
const functions = `title() { printf '\n# %s\n' "$*"; }
show() { # shows and runs a command, whose output is then in $out
	printf '\n$ %s\n' "$1"
	out=$(eval "$1")
	echo "$out"
}
`

const mount = `title "The operator enables the engine"
show 'vault secrets enable -path=clanmeeting ` + devvault.PluginName + `'
`

var (
	//go:embed token.sh
	token string
	//go:embed refusals.sh
	refusals string
)

// demo runs its steps in a folder.
type demo struct {
	vault *devvault.Server
	dir   string
}

// sh runs commands of a shell, in which vault is the server's own command with the root
// token.
func (d *demo) sh(ctx context.Context, commands string) error {
	cli := d.vault.Command(ctx, d.vault.RootToken)
	shell := exec.CommandContext(ctx, "sh", "-ec", functions+"vault() { '"+cli.Path+`' "$@"; }`+"\n"+commands)
	shell.Dir, shell.Env = d.dir, cli.Env
	shell.Stdout, shell.Stderr = os.Stdout, os.Stdout
	err := shell.Run()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return fmt.Errorf("the last command above: %w", err)
	}
	return nil
}

func (d *demo) token(ctx context.Context) error    { return d.sh(ctx, token) }
func (d *demo) refusals(ctx context.Context) error { return d.sh(ctx, refusals) }

func (d *demo) makeKey(context.Context) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	raw := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(filepath.Join(d.dir, "cm-api-key.pem"), raw, 0o600); err != nil {
		return fmt.Errorf("writing the key: %w", err)
	}
	return nil
}

// verify prints the decoded token, and checks it with only the public key.
func (d *demo) verify(context.Context) error {
	token, err := os.ReadFile(filepath.Join(d.dir, "token"))
	public, err2 := os.ReadFile(filepath.Join(d.dir, "public.pem"))
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("the token and the public key: %w", err)
	}
	fmt.Print("\n# What the meeting server sees\n")
	parsed, err := jwt.Parse(strings.TrimSpace(string(token)),
		func(*jwt.Token) (any, error) { return jwt.ParseRSAPublicKeyFromPEM(public) },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithAudience("clanmeeting"), jwt.WithIssuer("production"), jwt.WithExpirationRequired())
	if err != nil {
		return fmt.Errorf("verifying the token: %w", err)
	}
	for _, part := range []any{parsed.Header, parsed.Claims} {
		text, err := json.MarshalIndent(part, "", "  ")
		if err != nil {
			return fmt.Errorf("showing the token: %w", err)
		}
		fmt.Printf("%s\n", text)
	}
	for _, name := range []string{"nbf", "exp"} {
		if seconds, ok := parsed.Claims.(jwt.MapClaims)[name].(float64); ok {
			fmt.Printf("%s is %s\n", name, time.Unix(int64(seconds), 0).UTC().Format(time.RFC3339))
		}
	}
	fmt.Println("The signature verifies with the public key of clanmeeting/config.")
	return nil
}
