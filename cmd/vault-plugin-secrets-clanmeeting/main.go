// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Vault-plugin-secrets-clanmeeting is a Vault secrets engine for Clan Meeting.
// Vault starts it. Run by hand, it only supports -version.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/hashicorp/go-hclog"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend"
)

// version is the version that the plugin reports. A release sets it with
// -ldflags "-X main.version=v1.2.3".
var version = "v0.1.0-dev"

const softMemoryLimit = 160 << 20

func main() {
	// Other arguments are ignored: operators may add arguments for every plugin in Vault's
	// catalog, and those must not stop this one from starting.
	if len(os.Args) == 2 && (os.Args[1] == "-version" || os.Args[1] == "--version") {
		fmt.Printf("vault-plugin-secrets-clanmeeting %s (commit %s, %s, %s/%s, signs with %s)\n",
			version, commit(), runtime.Version(), runtime.GOOS, runtime.GOARCH, backend.SignatureLibrary())
		return
	}

	// One more than the number of cores: while batches keep all cores busy, the extra one
	// waits for requests. After this call Go no longer adapts to changed CPU limits.
	// Setting the variable overrides it.
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	}

	// Usually 30 MB are in use. Near this limit, which only hostile requests reach, Go
	// collects garbage earlier instead of letting the heap double.
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(softMemoryLimit)
	}

	// A Vault that is killed leaves its plugins running, with the key in memory.
	go func() {
		waitForParent()
		os.Exit(1)
	}()

	// Vault reads the plugin's log from its standard error and filters it by
	// its own log level.
	logger := hclog.New(&hclog.LoggerOptions{
		Level:      hclog.Trace,
		Output:     os.Stderr,
		JSONFormat: true,
	})
	logger.Info("plugin starting", "version", version, "signs_with", backend.SignatureLibrary())
	if err := serve(backend.Factory(version), logger); err != nil {
		logger.Error("plugin shutting down", "error", err)
		os.Exit(1)
	}
}

// commit is the git commit that the Go command recorded in the build.
func commit() string {
	revision, modified := "unknown", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			switch {
			case setting.Key == "vcs.revision":
				revision = setting.Value
			case setting.Key == "vcs.modified" && setting.Value == "true":
				modified = ", modified"
			}
		}
	}
	return revision + modified
}
