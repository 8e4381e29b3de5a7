// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"strings"
	"time"
)

// bom is the part of CycloneDX 1.6 that we use. It lists the modules in the plugin, as "go
// version -m" does, the standard library, and the C libraries.
type bom struct {
	Schema      string    `json:"$schema"`
	Format      string    `json:"bomFormat"`
	SpecVersion string    `json:"specVersion"`
	Version     int       `json:"version"`
	Metadata    metadata  `json:"metadata"`
	Components  []module  `json:"components"`
	DependsOn   []depends `json:"dependencies"`
}

type metadata struct {
	Timestamp time.Time `json:"timestamp"`
	Component module    `json:"component"`
}

type module struct {
	Type    string `json:"type"`
	Ref     string `json:"bom-ref"`
	Name    string `json:"name"`
	Version string `json:"version"`
	PURL    string `json:"purl"`
}

type depends struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn"`
}

// newModule adds the package URL, which has the path in lower case and escapes a plus sign.
func newModule(kind, path, version string) module {
	purl := "pkg:golang/" + strings.ToLower(path) + "@" + strings.ReplaceAll(version, "+", "%2B")
	return module{kind, purl, path, version, purl}
}

// writeSBOM uses the date of the commit, so that two builds have the same date.
func writeSBOM(file string, info *buildinfo.BuildInfo, libraries []library, version string, date time.Time) error {
	main := newModule("application", info.Main.Path, version)
	// The name and version under which databases of vulnerabilities know it.
	modules := []module{newModule("library", "stdlib", strings.TrimPrefix(info.GoVersion, "go"))}
	for _, dep := range info.Deps {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		modules = append(modules, newModule("library", dep.Path, dep.Version))
	}
	for _, l := range libraries {
		modules = append(modules, module{"library", l.purl, l.name, l.version, l.purl})
	}
	refs := make([]string, len(modules))
	for i, m := range modules {
		refs[i] = m.Ref
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(bom{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata:   metadata{date.UTC(), main},
		Components: modules,
		DependsOn:  []depends{{main.Ref, refs}},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o644) //nolint:gosec // G306: to be published
}
