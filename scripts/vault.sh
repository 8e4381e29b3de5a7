#!/bin/sh
# Makes sure that there is a server and prints the path of its binary as the last line:
# the one that VAULT_BIN names, Vault or OpenBao, else vault on PATH, else bao on PATH, else
# the Vault that scripts/vault/go.mod pins. VAULT=newest in the environment is that version
# whatever else there is, VAULT=oldest the one that scripts/vault/oldest/go.mod pins,
# VAULT=released the newest that HashiCorp has released.
#
# A pinned version comes from .cache, or it is downloaded from HashiCorp, or, if the
# download site can't be reached, built from source, unmodified. Upstream's build tag
# "minimal" leaves out the plugins that nothing here uses. VAULT_DOWNLOAD=off builds
# without trying the download. VAULT_DOWNLOAD_FLAGS are more flags for
# scripts/vault-download: "-url https://…" names a mirror.
set -eu

say() { echo "$*" >&2; }
fail() { say "error: $*"; exit 1; }

runs() { "$1" version 2>/dev/null | grep -Eq '^(Vault|OpenBao) v'; }

pinned=${VAULT:-}
case $pinned in
"" | newest | released) module=scripts/vault ;;
oldest) module=scripts/vault/oldest ;;
*) fail "VAULT is $pinned, and may be oldest, newest or released; VAULT_BIN names a Vault of your own" ;;
esac
if [ -z "$pinned" ] && [ -n "${VAULT_BIN:-}" ]; then
	runs "$VAULT_BIN" || fail "VAULT_BIN is $VAULT_BIN, which is neither a Vault nor an OpenBao that runs here"
	say "Server from VAULT_BIN: $("$VAULT_BIN" version)"
	case $VAULT_BIN in
	/*) echo "$VAULT_BIN" ;;
	*/*) echo "$PWD/$VAULT_BIN" ;;
	*) command -v "$VAULT_BIN" ;;
	esac
	exit
fi
if [ -z "$pinned" ] && found=$(command -v vault || command -v bao); then
	runs "$found" || fail "$found, found on PATH, does not run; set VAULT_BIN to another"
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
# It is built and run, not "go run": that would turn every exit status into 1.
download() {
	if ! [ -x "$downloader" ]; then
		mkdir -p "$top/.cache"
		(cd "$top/scripts/vault-download" && go build -o "$downloader" .) || return 3
	fi
	# shellcheck disable=SC2086 # several flags
	"$downloader" "$@" ${VAULT_DOWNLOAD_FLAGS:-}
}
if [ "$pinned" = released ]; then
	version=$(download -newest) || fail "the newest Vault is not known; the line above says why"
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
	3) ;; # it has said why
	*) fail "downloading Vault $version failed, and is not replaced by a build; VAULT_DOWNLOAD=off builds it" ;;
	esac
fi
[ "$pinned" != released ] || fail "only a pinned Vault is built from source"

say "Building Vault $version, once. It takes 5 to 15 minutes on two cores, 500 MB of"
say "downloads and up to 4 GB of memory. Set VAULT_BIN to use one that you have."
part=$cache/vault.$$
# -v names each package as it is compiled; whatever else comes is an error.
go build -v -trimpath -tags minimal -ldflags '-s -w' -o "$part" github.com/hashicorp/vault 2>&1 |
	awk '
		function tell() { printf "  %d modules downloaded, %d packages compiled of about 1900\n", modules, packages; fflush() }
		/^go: downloading / { if (++modules % 100 == 0) tell(); next }
		/^[A-Za-z0-9._~\/-]+$/ { if (++packages % 100 == 0) tell(); next }
		{ print; fflush() }
	' >&2
[ -x "$part" ] || fail "building Vault $version failed; the lines above say why"
runs "$part" || fail "the Vault that was built does not run"
mv "$part" "$cache/vault"
say "Built $("$cache/vault" version)"
echo "$cache/vault"
