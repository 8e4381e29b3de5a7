// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The signers that a build can have: Go's, or OpenSSL's libcrypto, linked in.
const (
	pureGo  = "go"
	openSSL = "openssl"
)

type target struct{ os, arch, signer string }

var targets = []target{
	{"linux", "amd64", pureGo},
	{"linux", "arm64", pureGo},
	{"darwin", "amd64", pureGo},
	{"darwin", "arm64", pureGo},
	{"windows", "amd64", pureGo},
	{"windows", "arm64", pureGo},
	{"linux", "amd64", openSSL},
	{"linux", "arm64", openSSL},
}

// only returns the targets with the signer, or all targets if it is empty.
func only(signer string) ([]target, error) {
	switch signer {
	case "":
		return targets, nil
	case pureGo, openSSL:
		return slices.DeleteFunc(slices.Clone(targets), func(t target) bool { return t.signer != signer }), nil
	}
	return nil, fmt.Errorf("%q is no signer: SIGNER=go, SIGNER=openssl, or none for all builds", signer)
}

// String returns the end of the names of the target's files.
func (t target) String() string {
	if t.signer == openSSL {
		return t.os + "_" + t.arch + "_" + openSSL
	}
	return t.os + "_" + t.arch
}

// release makes the files of one target, and adds their checksums: also that of the plugin,
// which Vault's catalog asks for.
func (t target) release(ctx context.Context, source, dist, version string, libraries []library, sums *strings.Builder) error {
	base := fmt.Sprintf("%s_%s_%s", plugin, version[1:], t)
	binary := filepath.Join(base, plugin)
	if t.os == "windows" {
		binary += ".exe"
	}
	if err := t.build(ctx, source, filepath.Join(dist, binary), version); err != nil {
		return err
	}
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
		if err := copyFile(filepath.Join(source, name), filepath.Join(dist, base, name)); err != nil {
			return err
		}
	}
	info, err := buildinfo.ReadFile(filepath.Join(dist, binary))
	if err != nil {
		return err
	}
	if err := writeLicences(ctx, filepath.Join(dist, base, "LICENSES-THIRD-PARTY.txt"), source, info, libraries); err != nil {
		return err
	}
	commit, err := committed(info)
	if err != nil {
		return err
	}
	if err := pack(filepath.Join(dist, base), commit); err != nil {
		return err
	}
	if err := writeSBOM(filepath.Join(dist, base+".cdx.json"), info, libraries, version, commit); err != nil {
		return err
	}
	for _, name := range []string{base + ".zip", base + ".cdx.json", binary} {
		raw, err := os.ReadFile(filepath.Join(dist, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(sums, "%x  %s\n", sha256.Sum256(raw), filepath.ToSlash(name))
	}
	return nil
}

// build leaves out the debugger's tables (-w), but not the symbol table (-s): govulncheck
// needs it to see which functions are in the binary. It sets every variable that could
// change the result.
func (t target) build(ctx context.Context, source, binary, version string) error {
	env := []string{
		"VERSION=" + version, "SIGNER=", "GOOS=" + t.os, "GOARCH=" + t.arch, "GOAMD64=v1", "GOARM64=v8.0",
		"GOFLAGS=-mod=readonly -buildvcs=true", "GOWORK=off", "GOEXPERIMENT=", "GOFIPS140=off",
	}
	if t.signer == openSSL {
		env = append(env, "SIGNER=openssl", "CC="+t.compiler(), "CGO_CFLAGS=", "CGO_CPPFLAGS=", "CGO_LDFLAGS=")
	}
	_, err := command(ctx, source, env, "sh", "scripts/build.sh", binary, "-w")
	return err
}

func copyFile(from, to string) error {
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, raw, 0o644) //nolint:gosec // G306: to be published
}

// committed returns the time of the commit, the only time that is the same in every build.
func committed(info *buildinfo.BuildInfo) (time.Time, error) {
	for _, setting := range info.Settings {
		if setting.Key == "vcs.time" {
			return time.Parse(time.RFC3339, setting.Value)
		}
	}
	return time.Time{}, errors.New("the binary does not say which commit it is of")
}

// pack makes an archive of the folder. The files are sorted, and have one date and two modes.
func pack(folder string, date time.Time) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	writer := zip.NewWriter(&archive)
	for _, entry := range entries {
		header := &zip.FileHeader{Name: entry.Name(), Method: zip.Deflate, Modified: date.UTC()}
		header.SetMode(0o644)
		if strings.TrimSuffix(entry.Name(), ".exe") == plugin {
			header.SetMode(0o755)
		}
		file, err := writer.CreateHeader(header)
		if err != nil {
			return err
		}
		raw, err := os.ReadFile(filepath.Join(folder, entry.Name()))
		if err != nil {
			return err
		}
		if _, err := file.Write(raw); err != nil {
			return err
		}
	}
	if err := writer.Close(); err != nil {
		return err
	}
	return os.WriteFile(folder+".zip", archive.Bytes(), 0o644) //nolint:gosec // G306: to be published
}
