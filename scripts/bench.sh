#!/bin/sh
# Builds and runs the benchmark. It writes the table and the plot to .cache/bench. Without
# node or npm, it does not measure the vendor's snippet.
set -eu
cd "$(dirname "$0")/.."
vault=$(scripts/vault.sh)
out=.cache/bench
mkdir -p "$out/plugins"
CGO_ENABLED=0 go build -trimpath -o "$out/plugins/vault-plugin-secrets-clanmeeting" ./cmd/vault-plugin-secrets-clanmeeting
CGO_ENABLED=0 go build -trimpath -o "$out/plugins/vault-plugin-empty" ./scripts/bench/emptyplugin
go build -o "$out/bench" ./scripts/bench

modules=
if [ $# -gt 0 ]; then
	: # not the comparison with the peers
elif command -v node >/dev/null && command -v npm >/dev/null; then
	modules=$(scripts/node-modules.sh)
else
	echo "jsonwebtoken in Node is not measured: install node and npm" >&2
fi
exec "$out/bench" -vault "$vault" -plugin-dir "$PWD/$out/plugins" -node-modules "$modules" -out "$out" "$@"
