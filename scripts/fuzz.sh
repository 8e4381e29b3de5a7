#!/bin/sh
# Runs every fuzz target for FUZZTIME, one after the other. What one finds is kept by Go
# in backend/testdata/fuzz, from where every later test run tries it.
set -eu
cd "$(dirname "$0")/.."
listed=$(go test -list '^Fuzz' ./backend)
targets=$(echo "$listed" | grep '^Fuzz')
for target in $targets; do
	echo "$target for ${FUZZTIME:=30s}"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 1s ./backend
done
