#!/bin/sh
# Runs the test of examples/web: the application, a real Vault, and Chromium. If something is
# missing, it names everything at once.
set -eu
cd "$(dirname "$0")/.."

missing=
need() { # a Debian package, and a command that works if it is installed
	package=$1
	shift
	"$@" >/dev/null 2>&1 || missing="$missing $package"
}
chromium=${CHROMIUM:-/usr/bin/chromium}
need nodejs node --eval 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'
need npm npm --version
need openssl openssl version
need chromium "$chromium" --version
if [ -n "$missing" ]; then
	echo "error: the web test needs these packages of Debian, or the same from elsewhere:$missing" >&2
	echo "Node.js must be 20 or newer. CHROMIUM can name another Chromium or Chrome." >&2
	exit 1
fi

VAULT_BIN=$(scripts/vault.sh)
export VAULT_BIN PLUGIN_DIR="$PWD/bin/plugins" CHROMIUM="$chromium"
cd examples/web
npm ci --silent --ignore-scripts --no-audit --no-fund
npm run --silent build
exec node --test --test-reporter=spec test/web.test.mjs
