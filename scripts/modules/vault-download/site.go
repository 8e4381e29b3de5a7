// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/hc-install/product"
	"github.com/hashicorp/hc-install/releases"
)

const (
	// attempts is how often to try a download that is interrupted.
	attempts = 3
	// wholeTimeout is for one attempt. The archive has some 160 MB. A connection that
	// stalls ends much earlier, see [site.stall].
	wholeTimeout = 30 * time.Minute
)

// site is a release site and how long to wait for it.
type site struct {
	url string // empty is HashiCorp's
	key string // the public key for its checksums, armored; empty is HashiCorp's

	connect time.Duration // for a connection, name look-up included, and again for TLS
	answer  time.Duration // from a request to its answer
	stall   time.Duration // without data in the middle of an answer

	progress io.Writer
}

// newest returns the newest version on the site, without pre-releases and Vault
// Enterprise.
func (s site) newest(ctx context.Context) (string, error) {
	t := s.transport()
	list, err := (&releases.Versions{
		Product: product.Vault, ApiBaseURL: s.url, HTTPClient: t.client(), ListTimeout: wholeTimeout,
	}).List(ctx)
	if err != nil {
		return "", t.judge(ctx, err)
	}
	var newest *version.Version
	for _, source := range list {
		v, ok := source.(*releases.ExactVersion)
		if ok && v.Version.Prerelease() == "" && (newest == nil || v.Version.GreaterThan(newest)) {
			newest = v.Version
		}
	}
	if newest == nil {
		return "", errors.New("the release site lists no version of Vault")
	}
	return "v" + newest.String(), nil
}

// download puts the file vault of that version into dir, and returns its path. The file was
// verified, and it runs.
func (s site) download(ctx context.Context, name, dir string) (string, error) {
	wanted, err := version.NewVersion(name)
	if err != nil {
		return "", fmt.Errorf("the version %q: %w", name, err)
	}
	// On the same file system, so that the last step is a rename.
	part, err := os.MkdirTemp(dir, "download-")
	if err != nil {
		return "", fmt.Errorf("a folder for the download: %w", err)
	}
	defer os.RemoveAll(part)
	file, err := s.verified(ctx, wanted, part)
	if err != nil {
		return "", err
	}
	// All releases are signed: a site could send an old one under a new name.
	got, err := product.Vault.GetVersion(ctx, file)
	if err != nil {
		return "", fmt.Errorf("the downloaded Vault does not run: %w", err)
	}
	if !got.Equal(wanted) {
		return "", fmt.Errorf("the release site sent Vault %s instead of %s", got, wanted)
	}
	target := filepath.Join(dir, filepath.Base(file))
	if err := os.Rename(file, target); err != nil {
		return "", fmt.Errorf("moving the downloaded file: %w", err)
	}
	return target, nil
}

// verified downloads, again if it is interrupted, and returns the unpacked file.
func (s site) verified(ctx context.Context, wanted *version.Version, part string) (string, error) {
	for attempt := 1; ; attempt++ {
		file, err := s.once(ctx, wanted, part)
		var interrupted *interruptedError
		if !errors.As(err, &interrupted) || ctx.Err() != nil {
			return file, err
		}
		if attempt == attempts {
			return "", fmt.Errorf("%w; %d attempts failed, try again or set VAULT_BIN", err, attempts)
		}
		fmt.Fprintf(s.progress, "  %v; trying again\n", err)
	}
}

func (s site) once(ctx context.Context, wanted *version.Version, part string) (string, error) {
	t := s.transport()
	var said bytes.Buffer
	install := &releases.ExactVersion{
		Product: product.Vault, Version: wanted, InstallDir: part, Timeout: wholeTimeout,
		ApiBaseURL: s.url, ArmoredPublicKey: s.key, HTTPClient: t.client(),
	}
	install.SetLogger(log.New(&said, "", 0))
	file, err := install.Install(ctx)
	if err == nil {
		return file, nil
	}
	return "", t.judge(ctx, restored(err, said.String()))
}

// restored returns the error that hc-install 0.10.0 loses: when it removes the archive, it
// overwrites the error with the result of that. The unpacked file is then missing, and only
// hc-install's log has the reason.
func restored(err error, said string) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "checksum does not match") {
			return errors.New(strings.TrimSpace(line))
		}
	}
	return fmt.Errorf("%w; the log of hc-install:\n%s", err, said)
}
