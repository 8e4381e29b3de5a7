#!/bin/sh
# Builds what operators download, into dist, and signs it where RELEASE_SIGNING_KEY has a
# private key. What builds does not get to see the key.
# scripts/release.sh VERSION [SIGNER]: only the builds with this signer, to compare them.
set -eu
cd "$(dirname "$0")/.."
fail() { echo "error: $*" >&2; exit 1; }

version=$1 signer=${2:-}
key=${RELEASE_SIGNING_KEY:-}
unset RELEASE_SIGNING_KEY

command -v git >/dev/null || fail "git is needed: a release is made from a commit"
if [ -n "$key" ]; then
	git tag --points-at HEAD | grep -qxF -e "$version" ||
		fail "this commit has no tag $version, and what is signed is what others find under that"
	[ -z "$signer" ] || fail "what is signed has all builds, so leave SIGNER empty"
fi
make --no-print-directory go
go build -o bin/release ./scripts/release
bin/release -version "$version" -signer "$signer"
if [ -z "$key" ]; then
	echo "NOT SIGNED: dist is for trying, unless scripts/sign.sh signs its sums" >&2
	exit
fi
RELEASE_SIGNING_KEY=$key exec scripts/sign.sh dist/*_SHA256SUMS
