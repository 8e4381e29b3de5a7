#!/bin/sh
# Installs jsonwebtoken in the version of the lock file, and prints the folder.
set -eu
cd "$(dirname "$0")/.."
locked=scripts/acceptance/testdata/examples
modules=$PWD/.cache/node
mkdir -p "$modules"
cp "$locked/package.json" "$locked/package-lock.json" "$modules"
npm ci --loglevel=error --ignore-scripts --no-audit --no-fund --prefix "$modules" >&2
echo "$modules/node_modules"
