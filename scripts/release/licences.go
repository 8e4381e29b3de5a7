// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// noticeFiles are files of a module that its licence may require next to a binary.
var noticeFiles = regexp.MustCompile(`^(?i)(licen[cs]e|copying|notice|patents)([.-](md|txt|apache|mit))?$`)

// writeLicences writes the licences and notices of everything that is linked into the
// binary. The MIT, BSD and Apache licences require that.
func writeLicences(ctx context.Context, file, source string, info *buildinfo.BuildInfo, libraries []library) error {
	args := []string{"list", "-m", "-f", "{{.Path}}\t{{.Dir}}"}
	for _, dep := range info.Deps {
		args = append(args, dep.Path)
	}
	modules, err := command(ctx, source, []string{"GOFLAGS=-mod=readonly", "GOWORK=off"}, "go", args...)
	if err != nil {
		return err
	}
	root, err := command(ctx, source, nil, "go", "env", "GOROOT")
	if err != nil {
		return err
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "What is linked into %s, and its licences.\n", plugin)
	if err := addLicences(&out, "Go and its standard library", strings.TrimSpace(root)); err != nil {
		return err
	}
	for line := range strings.Lines(modules) {
		path, dir, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if err := addLicences(&out, path, dir); err != nil {
			return err
		}
	}
	for _, l := range libraries {
		if err := l.writeLicences(&out); err != nil {
			return err
		}
	}
	return os.WriteFile(file, out.Bytes(), 0o644) //nolint:gosec // G306: to be published
}

func addLicences(out *bytes.Buffer, name, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("the licence of %s: %w", name, err)
	}
	found := false
	for _, entry := range entries {
		if !noticeFiles.MatchString(entry.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "\n===== %s: %s =====\n\n%s\n", name, entry.Name(), bytes.TrimSpace(text))
		found = true
	}
	if !found {
		return fmt.Errorf("%s has no licence", name)
	}
	return nil
}
