#!/bin/sh
# Finds or gets a server, Vault or OpenBao, and prints the path of its binary as the last
# line. It takes the first of these: VAULT_BIN; vault on PATH; bao on PATH; the Vault that
# scripts/modules/vault/go.mod pins. VAULT in the environment overrides that: "newest" is the
# pinned Vault, "oldest" the one that scripts/modules/vault-oldest/go.mod pins, and
# "released" the newest that HashiCorp has released.
#
# A pinned version is taken from .cache, else downloaded from HashiCorp. If the download
# site can't be reached, it is built from source, unmodified. Upstream's build tag "minimal"
# leaves out plugins that nothing here uses. VAULT_DOWNLOAD=off skips the download.
# VAULT_DOWNLOAD_FLAGS are more flags for scripts/modules/vault-download: "-url
# https://…" names a mirror.
set -eu

say() { echo "$*" >&2; }
fail() { say "error: $*"; exit 1; }

runs() { "$1" version 2>/dev/null | grep -Eq '^(Vault|OpenBao) v'; }

pinned=${VAULT:-}
case $pinned in
"" | newest | released) module=scripts/modules/vault ;;
oldest) module=scripts/modules/vault-oldest ;;
*) fail "VAULT is $pinned; it must be oldest, newest or released; VAULT_BIN can name your own Vault" ;;
esac
if [ -z "$pinned" ] && [ -n "${VAULT_BIN:-}" ]; then
	runs "$VAULT_BIN" || fail "VAULT_BIN is $VAULT_BIN, which does not run as Vault or OpenBao"
	say "Server from VAULT_BIN: $("$VAULT_BIN" version)"
	case $VAULT_BIN in
	/*) echo "$VAULT_BIN" ;;
	*/*) echo "$PWD/$VAULT_BIN" ;;
	*) command -v "$VAULT_BIN" ;;
	esac
	exit
fi
if [ -z "$pinned" ] && found=$(command -v vault || command -v bao); then
	runs "$found" || fail "$found, found on PATH, does not run; set VAULT_BIN to another one"
	say "Server from PATH: $("$found" version)"
	echo "$found"
	exit
fi

top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top/$module"
command -v go >/dev/null || fail "go is needed to download or build Vault; see https://go.dev/doc/install"
version=$(awk '$1 == "github.com/hashicorp/vault" { print $2; exit }' go.mod)
part=
downloader=$top/.cache/vault-download.$$
trap 'rm -f "$part" "$downloader"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# Not with "go run", which would turn every exit status into 1.
download() {
	if ! [ -x "$downloader" ]; then
		mkdir -p "$top/.cache"
		(cd "$top/scripts/modules/vault-download" && go build -o "$downloader" .) || return 3
	fi
	# shellcheck disable=SC2086 # several flags
	"$downloader" "$@" ${VAULT_DOWNLOAD_FLAGS:-}
}
if [ "$pinned" = released ]; then
	version=$(download -newest) || fail "could not find the newest Vault; the line above says why"
fi
cache=$top/.cache/vault-$version-$(go env GOOS)-$(go env GOARCH)
if [ -x "$cache/vault" ]; then
	say "Vault from the cache: $("$cache/vault" version)"
	echo "$cache/vault"
	exit
fi

mkdir -p "$cache"
if [ "${VAULT_DOWNLOAD:-}" != off ]; then
	say "Downloading Vault $version from HashiCorp, once, some 160 MB"
	status=0
	download -version "$version" -dir "$cache" >&2 || status=$?
	case $status in
	0)
		say "Downloaded $("$cache/vault" version)"
		echo "$cache/vault"
		exit
		;;
	3) ;; # the download has said why
	*) fail "downloading Vault $version failed; to build it from source, set VAULT_DOWNLOAD=off" ;;
	esac
fi
[ "$pinned" != released ] || fail "the newest released Vault can only be downloaded, not built"

say "Building Vault $version, once. It takes 5 to 15 minutes on two cores, downloads 500 MB,"
say "and needs up to 4 GB of memory. If you have a Vault, set VAULT_BIN instead."
part=$cache/vault.$$
go build -v -trimpath -tags minimal -ldflags '-s -w' -o "$part" github.com/hashicorp/vault 2>&1 |
	awk -v about=1900 -f "$top/scripts/progress.awk" >&2
[ -x "$part" ] || fail "building Vault $version failed; the lines above say why"
runs "$part" || fail "the built Vault does not run"
mv "$part" "$cache/vault"
say "Built $("$cache/vault" version)"
echo "$cache/vault"
