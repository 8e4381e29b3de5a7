// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// A library is a C library that is linked into the plugin, from a package of Debian or
// Ubuntu.
type library struct {
	name    string // openssl
	licence string // its text in /usr/share/common-licenses: Apache-2.0; empty if the package has it
	pkg     string // libssl-dev
	version string // of the package: 3.0.22-1~deb12u2
	purl    string // pkg:deb/debian/libssl-dev@3.0.22-1~deb12u2?arch=amd64
}

// linked are the libraries in a static build with OpenSSL. An entry with an option is there
// only if libcrypto.pc lists that option.
var linked = []struct{ file, name, licence, option string }{
	{"libcrypto.a", "openssl", "Apache-2.0", ""},
	{"libz.a", "zlib", "", "-lz"},
	{"libzstd.a", "zstd", "", "-lzstd"},
	{"libc.a", "glibc", "LGPL-2.1", ""},
	{"libgcc.a", "gcc", "GPL-3", ""}, // with an exception for what it compiles
}

// triples are Debian's names of architectures, by Go's names. The names of compilers begin
// with them, also the name of the machine's own compiler.
var triples = map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}

func (t target) compiler() string {
	return triples[t.arch] + "-gcc"
}

// allLibraries is called before the first build, so that a missing library is reported at
// once.
func allLibraries(ctx context.Context, targets []target) (map[target][]library, error) {
	all := map[target][]library{}
	for _, t := range targets {
		libraries, err := t.libraries(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
		all[t] = libraries
	}
	return all, nil
}

// libraries returns those that the target's compiler links in.
func (t target) libraries(ctx context.Context) ([]library, error) {
	if t.signer != openSSL {
		return nil, nil
	}
	var libraries []library
	needed, err := os.ReadFile(filepath.Join("/usr/lib", triples[t.arch], "pkgconfig", "libcrypto.pc"))
	if err != nil {
		return nil, fmt.Errorf("libcrypto is missing: %s", t.install())
	}
	for _, l := range linked {
		if l.option != "" && !slices.Contains(strings.Fields(string(needed)), l.option) {
			continue
		}
		file, err := command(ctx, "", nil, t.compiler(), "-print-file-name="+l.file)
		file = strings.TrimSpace(file)
		if err != nil || !filepath.IsAbs(file) {
			return nil, fmt.Errorf("%s is missing: %s", strings.TrimSuffix(l.file, ".a"), t.install())
		}
		found, err := packaged(ctx, file)
		if err != nil {
			return nil, err
		}
		found.name, found.licence = l.name, l.licence
		libraries = append(libraries, found)
	}
	return libraries, nil
}

// install returns the command that installs what the target needs.
func (t target) install() string {
	if t.arch == runtime.GOARCH {
		return "apt-get install gcc libc6-dev libssl-dev zlib1g-dev libzstd-dev"
	}
	return fmt.Sprintf("dpkg --add-architecture %[1]s && apt-get update && apt-get install gcc-%[2]s libc6-dev-%[1]s-cross libssl-dev:%[1]s zlib1g-dev:%[1]s libzstd-dev:%[1]s",
		t.arch, strings.ReplaceAll(triples[t.arch], "_", "-"))
}

// packaged finds the package that a file belongs to.
func packaged(ctx context.Context, file string) (library, error) {
	file, err := filepath.EvalSymlinks(file)
	if err != nil {
		return library{}, err
	}
	owner, err := command(ctx, "", nil, "dpkg-query", "-S", file)
	if err != nil {
		return library{}, fmt.Errorf("a release is made with the libraries of Debian or Ubuntu, whose versions it names: %w", err)
	}
	name, _, _ := strings.Cut(owner, ": ")
	out, err := command(ctx, "", nil, "dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}", name)
	if err != nil {
		return library{}, err
	}
	fields := strings.Fields(out)
	if len(fields) != 3 {
		return library{}, fmt.Errorf("%s: dpkg-query says %q", name, out)
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return library{}, err
	}
	distribution := "debian"
	if bytes.Contains(release, []byte("\nID=ubuntu\n")) {
		distribution = "ubuntu"
	}
	escape := strings.NewReplacer("+", "%2B", ":", "%3A")
	return library{
		pkg:     fields[0],
		version: fields[1],
		purl:    fmt.Sprintf("pkg:deb/%s/%s@%s?arch=%s", distribution, fields[0], escape.Replace(fields[1]), fields[2]),
	}, nil
}

// writeLicences writes the package's copyright file, and the licence that it refers to.
func (l library) writeLicences(out *bytes.Buffer) error {
	files := []string{"/usr/share/doc/" + l.pkg + "/copyright"}
	if l.licence != "" {
		files = append(files, "/usr/share/common-licenses/"+l.licence)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("the licence of %s: %w", l.name, err)
		}
		fmt.Fprintf(out, "\n===== %s: licence, %s =====\n\n%s\n", l.name, filepath.Base(file), bytes.TrimSpace(text))
	}
	return nil
}
