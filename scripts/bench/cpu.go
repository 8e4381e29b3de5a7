// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU time in /proc: on Linux a hundredth of a second.
const tick = 10 * time.Millisecond

// findProcesses finds the plugins of the Vault by their parent.
func (b *bench) findProcesses() {
	b.processes = map[string]int{"vault": b.vault.PID()}
	if b.vendorPID != 0 {
		b.processes["node"] = b.vendorPID
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return // the pattern is good
	}
	for _, path := range stats {
		fields := statFields(path)
		if len(fields) < 2 || fields[1] != strconv.Itoa(b.vault.PID()) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		if bin, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil {
			b.processes[filepath.Base(bin)] = pid
		}
	}
}

// cpu is the CPU time that the processes of a target have used so far.
func (b *bench) cpu(t *target) map[string]time.Duration {
	used := map[string]time.Duration{}
	for _, name := range t.charge {
		if pid, ok := b.processes[name]; ok {
			used[name] = processCPU(pid)
		}
	}
	return used
}

// processCPU is user and system time of a process; 0 without /proc.
func processCPU(pid int) time.Duration {
	fields := statFields(fmt.Sprintf("/proc/%d/stat", pid))
	if len(fields) < 13 {
		return 0
	}
	var total time.Duration
	for _, field := range fields[11:13] { // utime, stime: proc(5)
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0
		}
		total += time.Duration(ticks) * tick
	}
	return total
}

// statFields returns the fields after the command's name, which may have spaces.
func statFields(path string) []string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	return strings.Fields(rest)
}
