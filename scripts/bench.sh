#!/bin/sh
# Builds and runs the benchmark. It writes the table and the plot to .cache/bench. It leaves
# out what it can't measure here, and says so: the vendor's snippet needs node and npm, the
# build that signs with OpenSSL needs openssl and libssl-dev.
set -eu
cd "$(dirname "$0")/.."
vault=$(scripts/vault.sh)
out=.cache/bench
mkdir -p "$out/plugins"
engine=$out/plugins/vault-plugin-secrets-clanmeeting
rm -f "$engine-openssl"
case " $* " in
*" -scale "* | *" -soak "* | *" -pairs "*) peers= ;;
*) peers=yes ;;
esac
if [ -z "$peers" ]; then
	scripts/build.sh "$engine"
else
	SIGNER=go scripts/build.sh "$engine"
	{ command -v openssl >/dev/null && SIGNER=openssl scripts/build.sh "$engine-openssl"; } ||
		echo "The build that signs with OpenSSL is not measured: the openssl command and libssl-dev are needed." >&2
fi
(cd scripts && CGO_ENABLED=0 go build -trimpath -o "../$out/plugins/vault-plugin-empty" ./bench/emptyplugin)
(cd scripts && go build -o "../$out/bench" ./bench)

modules=
if [ -z "$peers" ]; then
	:
elif command -v node >/dev/null && command -v npm >/dev/null; then
	modules=$(scripts/node-modules.sh)
else
	echo "jsonwebtoken in Node is not measured: install node and npm" >&2
fi
exec "$out/bench" -vault "$vault" -plugin-dir "$PWD/$out/plugins" -node-modules "$modules" -out "$out" "$@"
