#!/bin/sh
# Builds and runs the benchmark. It leaves out what it can't measure here, and says so: the
# vendor's snippet needs node and npm, the build that signs with OpenSSL needs libssl-dev.
# With -pairs it measures the builds in the folder that -plugin-dir names.
set -eu
cd "$(dirname "$0")/.."
vault=$(scripts/vault.sh)
out=.cache/bench
mkdir -p "$out/plugins"
(cd scripts && go build -o "../$out/bench" ./bench)
engine=$out/plugins/vault-plugin-secrets-clanmeeting
rm -f "$engine-openssl"
case " $* " in
*" -pairs "*)
	exec "$out/bench" -vault "$vault" "$@"
	;;
*" -soak "*)
	scripts/build.sh "$engine" # with the signer that is asked for
	exec "$out/bench" -vault "$vault" -plugin-dir "$PWD/$out/plugins" "$@"
	;;
esac

SIGNER=go scripts/build.sh "$engine"
SIGNER=openssl scripts/build.sh "$engine-openssl" ||
	echo "The build that signs with OpenSSL is not measured; the line above says why" >&2
(cd scripts && CGO_ENABLED=0 go build -trimpath -o "../$out/plugins/vault-plugin-empty" ./bench/emptyplugin)
modules=
if command -v node >/dev/null && command -v npm >/dev/null; then
	modules=$(scripts/node-modules.sh)
else
	echo "jsonwebtoken in Node is not measured: install node and npm" >&2
fi
exec "$out/bench" -vault "$vault" -plugin-dir "$PWD/$out/plugins" -node-modules "$modules" "$@"
