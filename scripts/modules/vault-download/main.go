// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Command vault-download downloads an official Vault binary from HashiCorp's release site
// for scripts/vault.sh. HashiCorp's hc-install verifies the signature and the checksum.
//
// It ends with status 3 if the site can't be reached, and with 1 on any other failure. After
// a 3, the caller may get a Vault elsewhere. After a 1 it must stop, because the site sent
// something wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/hc-install/product"
	"github.com/hashicorp/hc-install/releases"
)

const (
	statusFailed      = 1
	statusUsage       = 2
	statusUnreachable = 3

	// answerTimeout is how long the site may take for a first answer.
	answerTimeout = 10 * time.Second
	// wholeTimeout is for the archive, which has some 160 MB.
	wholeTimeout = 30 * time.Minute
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run prints the result to stdout, and everything else to stderr. It returns the exit
// status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	s := site{log: stderr}
	var version, dir, keyFile string
	var newest bool
	flags := flag.NewFlagSet("vault-download", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&version, "version", "", "the version to download, such as v1.21.2")
	flags.StringVar(&dir, "dir", "", "the folder for the file vault; it must exist")
	flags.BoolVar(&newest, "newest", false, "download nothing; print the newest released version")
	flags.StringVar(&s.url, "url", "https://releases.hashicorp.com", "the release site, or a mirror of it")
	flags.StringVar(&keyFile, "key", "", "an armored OpenPGP public key that signs the checksums (default: HashiCorp's)")
	if err := flags.Parse(args); err != nil {
		return statusUsage
	}
	if newest != (version == "" && dir == "") || !newest && (version == "" || dir == "") {
		fmt.Fprintln(stderr, "error: give -version and -dir, or -newest alone")
		return statusUsage
	}
	if keyFile != "" {
		key, err := os.ReadFile(keyFile)
		if err != nil {
			fmt.Fprintln(stderr, "error: the key:", err)
			return statusUsage
		}
		s.key = string(key)
	}
	if err := s.reach(ctx); err != nil {
		fmt.Fprintln(stderr, "the release site can't be reached:", err)
		return statusUnreachable
	}
	var result string
	var err error
	if newest {
		result, err = s.newest(ctx)
	} else {
		result, err = s.download(ctx, version, dir)
	}
	if err != nil {
		fmt.Fprintln(stderr, "error:", err)
		return statusFailed
	}
	fmt.Fprintln(stdout, result)
	return 0
}

// site is a release site.
type site struct {
	url string
	key string // the public key for its checksums, armored; empty is HashiCorp's
	log io.Writer
}

// reach asks once whether the site is there: hc-install's errors don't distinguish a missing
// network from a wrong file.
func (s site) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, s.url+"/vault/index.json", nil)
	if err != nil {
		return fmt.Errorf("the URL: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s answers %s", req.URL, resp.Status)
	}
	return nil
}

// newest returns the newest version on the site, without pre-releases and Vault
// Enterprise.
func (s site) newest(ctx context.Context) (string, error) {
	list, err := (&releases.Versions{Product: product.Vault, ApiBaseURL: s.url, ListTimeout: wholeTimeout}).List(ctx)
	if err != nil {
		return "", fmt.Errorf("listing the versions: %w", err)
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
	install := &releases.ExactVersion{
		Product: product.Vault, Version: wanted, InstallDir: part, Timeout: wholeTimeout, ApiBaseURL: s.url, ArmoredPublicKey: s.key,
	}
	// hc-install 0.10.0 loses the error if the archive is wrong or ends too early: only its
	// log has the reason.
	install.SetLogger(log.New(s.log, "  ", 0))
	file, err := install.Install(ctx)
	if err != nil {
		return "", fmt.Errorf("downloading: %w", err)
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
