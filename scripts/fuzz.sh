#!/bin/sh
# Runs every fuzz target for FUZZTIME, one after the other. Go writes an input that fails
# to testdata/fuzz, and every later test run tries it.
set -eu
cd "$(dirname "$0")/.."
[ "${SIGNER:-}" != openssl ] || export GOFLAGS="${GOFLAGS:-} -tags=openssl"
for package in $(go list ./backend/...); do
	listed=$(go test -list '^Fuzz' "$package")
	for target in $(echo "$listed" | grep '^Fuzz' || true); do
		echo "$target for ${FUZZTIME:=30s}"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 1s "$package"
	done
done
