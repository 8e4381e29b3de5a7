// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build !windows

package main

import (
	"os"
	"time"
)

// parentInterval is how often it is looked whether the parent is there.
const parentInterval = 500 * time.Millisecond

// waitForParent returns when the process that started this one has ended: whoever
// adopts an orphan has another id. In a container the id may be 1 or 0 from the start,
// and stays: the container's first process takes this one with it when it ends, and of
// a parent outside the container, 0, nothing can be seen.
func waitForParent() {
	for parent := os.Getppid(); os.Getppid() == parent; {
		time.Sleep(parentInterval)
	}
}
