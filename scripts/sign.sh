#!/bin/sh
# Signs the checksums of a release with the private key in RELEASE_SIGNING_KEY, and verifies
# the signature as operators do. The key is one of ssh-keygen without a passphrase.
set -eu
fail() { echo "error: $*" >&2; exit 1; }

sums=$1
signers=$(dirname "$0")/../.github/allowed_signers
[ -n "${RELEASE_SIGNING_KEY:-}" ] || fail "RELEASE_SIGNING_KEY is empty; it must have the private key"
command -v ssh-keygen >/dev/null || fail "ssh-keygen is needed; it is part of OpenSSH"
[ -f "$signers" ] || fail ".github/allowed_signers is missing; see docs/release.md, Make one"

rm -f "$sums.sig"
key=$(mktemp)
trap 'rm -f "$key"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# ssh-keygen refuses a key without a line break at its end, and secrets often have none.
printf '%s\n' "$RELEASE_SIGNING_KEY" >"$key"
unset RELEASE_SIGNING_KEY
# The namespace "file" prevents that the signature is used for something else.
ssh-keygen -q -Y sign -f "$key" -n file "$sums"
ssh-keygen -Y verify -f "$signers" -I release -n file -s "$sums.sig" <"$sums" || {
	rm -f "$sums.sig"
	fail "RELEASE_SIGNING_KEY is not the key of .github/allowed_signers"
}
