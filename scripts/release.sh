#!/bin/sh
# Builds a release into dist: scripts/release.sh VERSION [SIGNER]. With SIGNER, it makes only
# the builds with this signer, to compare them. If RELEASE_SIGNING_KEY has a private key, it
# signs the checksums. The build itself can't read the key.
set -eu
cd "$(dirname "$0")/.."
fail() { echo "error: $*" >&2; exit 1; }

version=$1 signer=${2:-}
key=${RELEASE_SIGNING_KEY:-}
unset RELEASE_SIGNING_KEY

command -v git >/dev/null || fail "git is needed, because a release is made from a commit"
if [ -n "$key" ]; then
	git tag --points-at HEAD | grep -qxF -e "$version" ||
		fail "this commit does not have the tag $version; only a tagged commit is signed"
	[ -z "$signer" ] || fail "a signed release has all builds: leave SIGNER empty"
fi
make --no-print-directory go
go build -o bin/release ./scripts/release
bin/release -version "$version" -signer "$signer"
if [ -z "$key" ]; then
	echo "NOT SIGNED: dist is for trying only, unless scripts/sign.sh signs its checksums" >&2
	exit
fi
RELEASE_SIGNING_KEY=$key exec scripts/sign.sh dist/*_SHA256SUMS
