// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import "os"

// waitForParent returns when the process that started this one has ended. If that process
// can't be watched, it never returns.
func waitForParent() {
	parent, err := os.FindProcess(os.Getppid())
	if err == nil {
		_, err = parent.Wait()
	}
	if err != nil {
		select {}
	}
}
