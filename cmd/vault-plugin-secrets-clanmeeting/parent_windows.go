// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import "os"

// waitForParent returns when the process that started this one has ended. Where that
// process can't be watched, it never does.
func waitForParent() {
	parent, err := os.FindProcess(os.Getppid())
	if err != nil {
		select {}
	}
	_, _ = parent.Wait() // it has ended, whether or not its status can be told
}
