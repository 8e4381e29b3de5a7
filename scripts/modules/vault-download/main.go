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
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	statusFailed      = 1
	statusUsage       = 2
	statusUnreachable = 3
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run prints the result to stdout, and everything else to stderr. It returns the exit
// status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	s := site{progress: stderr, connect: 5 * time.Second, answer: 10 * time.Second, stall: 30 * time.Second}
	var version, dir, keyFile string
	var newest bool
	flags := flag.NewFlagSet("vault-download", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&version, "version", "", "the version to download, such as v1.21.2")
	flags.StringVar(&dir, "dir", "", "the folder for the file vault; it must exist")
	flags.BoolVar(&newest, "newest", false, "download nothing; print the newest released version")
	flags.StringVar(&s.url, "url", "", "a mirror of the release site (default: HashiCorp's)")
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
	var result string
	var err error
	if newest {
		result, err = s.newest(ctx)
	} else {
		result, err = s.download(ctx, version, dir)
	}
	if err == nil {
		fmt.Fprintln(stdout, result)
		return 0
	}
	var unreachable *unreachableError
	if errors.As(err, &unreachable) {
		fmt.Fprintln(stderr, err)
		return statusUnreachable
	}
	fmt.Fprintln(stderr, "error:", err)
	return statusFailed
}
