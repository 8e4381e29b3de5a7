#!/bin/sh
# Signs the sums of a release with the private key in RELEASE_SIGNING_KEY, which is as
# ssh-keygen makes it, without a passphrase, and verifies that as operators do.
set -eu
fail() { echo "error: $*" >&2; exit 1; }

sums=$1
signers=$(dirname "$0")/../.github/allowed_signers
[ -n "${RELEASE_SIGNING_KEY:-}" ] || fail "RELEASE_SIGNING_KEY has no key to sign with"
command -v ssh-keygen >/dev/null || fail "ssh-keygen is needed: it signs, and comes with OpenSSH"
[ -f "$signers" ] || fail ".github/allowed_signers is not there: see docs/release.md, Make one"

rm -f "$sums.sig"
key=$(mktemp)
trap 'rm -f "$key"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# ssh-keygen takes no key whose last line has no end, which is how a secret often arrives.
printf '%s\n' "$RELEASE_SIGNING_KEY" >"$key"
unset RELEASE_SIGNING_KEY
# "file" keeps the signature from being taken for one of something else.
ssh-keygen -q -Y sign -f "$key" -n file "$sums"
ssh-keygen -Y verify -f "$signers" -I release -n file -s "$sums.sig" <"$sums" || {
	rm -f "$sums.sig"
	fail "the key is not that of .github/allowed_signers"
}
