// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Demo starts a Vault in dev mode with the engine, and goes from a private key to a
// verified host token. Then it tries what the application may not do. With -stay it only
// mounts the engine, and waits.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
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

	d := &demo{vault: vault, keyFile: filepath.Join(dir, "cm-api-key.pem"), policyFile: filepath.Join(dir, "app.hcl")}
	fmt.Printf("%s in dev mode at %s, with the plugin registered.\n", vault.Kind, vault.Addr)
	d.mount(ctx)
	if stay && d.err == nil {
		fmt.Printf("\nTo use it, paste this into another shell. Ctrl-C here stops it.\n\n"+
			"  export VAULT_ADDR=%s\n  export VAULT_TOKEN=%s\n  alias vault=%s\n\n", vault.Addr, vault.RootToken, vaultBin)
		select {
		case <-ctx.Done():
			return nil
		case <-vault.Done():
			return fmt.Errorf("the Vault has ended\n%s", vault.Log())
		}
	}
	d.fromKeyToToken(ctx)
	d.refusals(ctx)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return d.err
}

// demo runs its steps in order. After a failure, the other steps do nothing.
type demo struct {
	vault      *devvault.Server
	keyFile    string
	policyFile string
	appToken   string
	err        error
}

func (d *demo) mount(ctx context.Context) {
	d.title("The operator enables the engine")
	d.vaultCommand(ctx, d.vault.RootToken, "secrets", "enable", "-path=clanmeeting", devvault.PluginName)
}

func (d *demo) fromKeyToToken(ctx context.Context) {
	root := d.vault.RootToken
	d.title("The security team stores the key, made for this demo, and writes a role")
	d.writeKey()
	d.vaultCommand(ctx, root, "write", "clanmeeting/config", "consumer_id=acme", "private_key=@"+d.keyFile, "domain=meet.example.com")
	d.vaultCommand(ctx, root, "read", "clanmeeting/config")
	d.vaultCommand(ctx, root, "write", "clanmeeting/roles/support", "allowed_rooms=support-*", "ttl=5m", "max_ttl=15m")

	d.title("An app gets a policy: it may read tokens of that role, and nothing else")
	d.writePolicy()
	d.vaultCommand(ctx, root, "policy", "write", "support-app", d.policyFile)
	d.appToken = strings.TrimSpace(d.vaultCommand(ctx, root, "token", "create", "-policy=support-app", "-field=token"))

	d.title("The app reads a token for a room")
	d.vaultCommand(ctx, d.appToken, "read", "clanmeeting/creds/support", "room=support-4711")
	token := d.vaultCommand(ctx, d.appToken, "read", "-field=token", "clanmeeting/creds/support", "room=support-4711")
	d.title("What the meeting server sees")
	d.verify(token, d.vaultQuiet(ctx, root, "read", "-field=public_key", "clanmeeting/config"))
}

// refusals tries what the app may not do. Each command must fail with the right reason.
func (d *demo) refusals(ctx context.Context) {
	d.title("What the app may not do")
	d.refused(ctx, `room "billing" is not allowed`, "read", "clanmeeting/creds/support", "room=billing")
	d.refused(ctx, `room "*" is not allowed`, "read", "clanmeeting/creds/support", "room=*")
	d.refused(ctx, "permission denied", "read", "clanmeeting/config")
	d.refused(ctx, "permission denied", "write", "clanmeeting/roles/support", "allow_wildcard_room=true")
	d.cut(ctx)
	if d.err == nil {
		fmt.Println("\nDone: the app got a valid host token, and nothing that it may not have.")
	}
}

// cut asks for ten hours, and must get only what the role allows.
func (d *demo) cut(ctx context.Context) {
	out := d.vaultCommand(ctx, d.appToken, "read", "-field=expiration", "clanmeeting/creds/support", "room=support-4711", "ttl=10h")
	if d.err != nil {
		return
	}
	expiration, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if life := time.Until(time.Unix(expiration, 0)); err == nil && life <= 15*time.Minute {
		fmt.Printf("The token expires in %s: ten hours were cut to the role's max_ttl.\n", life.Round(time.Second))
		return
	}
	d.fail(errors.New("a token for ten hours was not cut to the role's 15 minutes"))
}

func (d *demo) title(text string) {
	if d.err == nil {
		fmt.Printf("\n# %s\n", text)
	}
}

func (d *demo) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// vaultCommand shows and runs a vault command, and returns its output.
func (d *demo) vaultCommand(ctx context.Context, token string, args ...string) string {
	if d.err != nil {
		return ""
	}
	fmt.Printf("\n$ vault %s\n", quoted(args))
	out := d.vaultQuiet(ctx, token, args...)
	if d.err == nil {
		fmt.Println(strings.TrimSpace(out))
	}
	return out
}

func (d *demo) vaultQuiet(ctx context.Context, token string, args ...string) string {
	if d.err != nil {
		return ""
	}
	out, err := d.vault.Command(ctx, token, args...).CombinedOutput()
	if err != nil {
		d.fail(fmt.Errorf("vault %s: %w\n%s", quoted(args), err, out))
	}
	return string(out)
}

// refused runs a vault command as the app. It must fail with the reason.
func (d *demo) refused(ctx context.Context, reason string, args ...string) {
	if d.err != nil {
		return
	}
	fmt.Printf("\n$ vault %s\n", quoted(args))
	out, err := d.vault.Command(ctx, d.appToken, args...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	fmt.Println(text)
	if err == nil || !strings.Contains(text, reason) {
		d.fail(fmt.Errorf("vault %s was not refused with %q", quoted(args), reason))
	}
}

// quoted returns the arguments as one would type them.
func quoted(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = arg
		if strings.ContainsAny(arg, "* ") {
			name, value, _ := strings.Cut(arg, "=")
			words[i] = name + "='" + value + "'"
		}
	}
	return strings.Join(words, " ")
}

func (d *demo) writeKey() {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		d.fail(fmt.Errorf("making a key: %w", err))
		return
	}
	raw := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(d.keyFile, raw, 0o600); err != nil {
		d.fail(fmt.Errorf("writing the key: %w", err))
	}
}

func (d *demo) writePolicy() {
	policy := "path \"clanmeeting/creds/support\" {\n  capabilities = [\"read\"]\n}\n"
	if d.err == nil {
		fmt.Print("\n" + policy)
	}
	if err := os.WriteFile(d.policyFile, []byte(policy), 0o600); err != nil {
		d.fail(fmt.Errorf("writing the policy: %w", err))
	}
}

// verify prints the decoded token, and checks it with only the public key.
func (d *demo) verify(token, publicKey string) {
	if d.err != nil {
		return
	}
	parsed, err := jwt.Parse(strings.TrimSpace(token),
		func(*jwt.Token) (any, error) { return jwt.ParseRSAPublicKeyFromPEM([]byte(publicKey)) },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithAudience("clanmeeting"), jwt.WithIssuer("production"), jwt.WithExpirationRequired())
	if err != nil {
		d.fail(fmt.Errorf("verifying the token: %w", err))
		return
	}
	show("header", parsed.Header)
	show("claims", parsed.Claims)
	for _, name := range []string{"nbf", "exp"} {
		if seconds, ok := parsed.Claims.(jwt.MapClaims)[name].(float64); ok {
			fmt.Printf("%s is %s\n", name, time.Unix(int64(seconds), 0).UTC().Format(time.RFC3339))
		}
	}
	fmt.Println("The signature verifies with the public key of clanmeeting/config.")
}

func show(name string, v any) {
	text := &bytes.Buffer{}
	encoder := json.NewEncoder(text)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		fmt.Fprintf(text, "%v\n", err)
	}
	fmt.Printf("%s %s", name, text)
}
