#!/bin/sh
# Builds what the benchmark runs, and runs it. The table and the plot end up in
# .cache/bench. Where node or npm is missing, the vendor's way is left out.
set -eu
cd "$(dirname "$0")/.."
vault=$(scripts/vault.sh)
out=.cache/bench
mkdir -p "$out/plugins"
scripts/build.sh "$out/plugins/vault-plugin-secrets-clanmeeting"
CGO_ENABLED=0 go build -trimpath -o "$out/plugins/vault-plugin-empty" ./scripts/bench/emptyplugin
go build -o "$out/bench" ./scripts/bench

modules=
if [ $# -gt 0 ]; then
	: # another run than the comparison with its peers
elif command -v node >/dev/null && command -v npm >/dev/null; then
	modules=$(scripts/node-modules.sh)
else
	echo "jsonwebtoken in Node is not measured: node and npm are needed" >&2
fi
exec "$out/bench" -vault "$vault" -plugin-dir "$PWD/$out/plugins" -node-modules "$modules" -out "$out" "$@"
