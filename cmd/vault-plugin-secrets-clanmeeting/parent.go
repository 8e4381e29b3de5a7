// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build !windows

package main

import (
	"os"
	"time"
)

// parentInterval is how often to check that the parent is alive.
const parentInterval = 500 * time.Millisecond

// waitForParent returns when the process that started this one has ended: an orphan gets
// a parent with another ID. In a container the ID may be 1 or 0 from the start, and never
// change. When process 1 of a container ends, this process ends, too. A parent outside the
// container (0) can't be watched.
func waitForParent() {
	for parent := os.Getppid(); os.Getppid() == parent; {
		time.Sleep(parentInterval)
	}
}
