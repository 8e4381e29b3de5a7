#!/bin/sh
# Builds the plugin as one static file: scripts/build.sh FILE
# SIGNER=openssl links in OpenSSL's libcrypto; without it, the plugin is pure Go, as in a release.
# VERSION is what the plugin reports. GOOS, GOARCH and CC mean what they mean to Go.
set -eu
cd "$(dirname "$0")/.."
fail() { echo "error: $*" >&2; exit 1; }

tags=
file=$1
ldflags="-X main.version=${VERSION:-v0.1.0-dev}"
case ${SIGNER:-go} in
go)
	export CGO_ENABLED=0
	;;
openssl)
	[ "$(go env GOOS)" = linux ] || fail "SIGNER=openssl builds for Linux only"
	export CGO_ENABLED=1
	cc=$(go env CC)
	command -v "${cc%% *}" >/dev/null || fail "SIGNER=openssl needs the C compiler $cc; Debian and Ubuntu have it in gcc"
	# The linker warns of dlopen and getaddrinfo, in parts of libcrypto that nothing calls.
	quiet=
	echo 'int main(void) { return 0; }' | $cc -Wl,--no-warnings -x c - -o /dev/null 2>/dev/null && quiet=-Wl,--no-warnings
	echo 'int main(void) { return 0; }' | $cc -static -x c - -o /dev/null 2>/dev/null ||
		fail "SIGNER=openssl needs a C compiler that can link statically; Debian and Ubuntu have what $cc needs in libc6-dev"
	# libcrypto.a needs other libraries if the distribution built it with compression.
	program='#include <openssl/evp.h>
		#if OPENSSL_VERSION_NUMBER < 0x30000000L
		#error OpenSSL 3 is needed
		#endif
		int main(void) { return EVP_PKEY_sign_init(EVP_PKEY_CTX_new(NULL, NULL)); }'
	links() { echo "$program" | $cc -static -x c - -lcrypto "$@" -o /dev/null 2>/dev/null; }
	libraries=
	links || { links -lz -lzstd && libraries="-lz -lzstd"; } ||
		fail "SIGNER=openssl needs the headers and libcrypto.a of OpenSSL 3 for $(go env GOARCH); Debian and Ubuntu have them in libssl-dev (Debian 13 also needs zlib1g-dev and libzstd-dev)"
	# netgo and osusergo: Go's own resolver and user lookup, which work in a static file.
	tags=openssl,netgo,osusergo
	ldflags="$ldflags -linkmode external -extldflags '-static $quiet $libraries'"
	;;
*)
	fail "SIGNER must be openssl, or go, or empty"
	;;
esac
go build -trimpath -tags "$tags" -ldflags "$ldflags" -o "$file" ./cmd/vault-plugin-secrets-clanmeeting
