#!/bin/sh
# Builds a release of this commit twice, in two folders, as two users would: the second time
# in another time zone, with another umask, and with nothing compiled before. The checksums of
# all files must be the same. Then it unpacks the archives, and compares what is in them with
# the checksums, as docs/release.md tells users to.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

goreleaser check
git clone -q . "$work/one"
git clone -q . "$work/a second clone"
(cd "$work/one" && goreleaser release --snapshot --clean)
(
	cd "$work/a second clone"
	umask 077
	TZ=Asia/Tokyo GOCACHE=$work/cache goreleaser release --snapshot --clean
)
(cd "$work/one/dist" && LC_ALL=C sha256sum -- *.zip *.cdx.json *_SHA256SUMS) >"$work/one.sums"
(cd "$work/a second clone/dist" && LC_ALL=C sha256sum -- *.zip *.cdx.json *_SHA256SUMS) >"$work/two.sums"
diff "$work/one.sums" "$work/two.sums" || { echo "error: two builds of this commit differ" >&2; exit 1; }

cd "$work/one/dist"
for archive in *.zip; do
	unzip -q "$archive"
done
sha256sum --check --strict ./*_SHA256SUMS
[ "$(wc -l <"$(echo ./*_SHA256SUMS)")" = 18 ] || { echo "error: six systems have an archive, a list and a plugin each" >&2; exit 1; }
plugin=$(echo ./*"_$(go env GOOS)_$(go env GOARCH)/vault-plugin-secrets-clanmeeting")
said=$("$plugin" -version)
echo "$said"
case $said in
*"(commit $(git rev-parse HEAD), "*) ;;
*) echo "error: the plugin does not say that it is of this commit" >&2; exit 1 ;;
esac
echo "Two builds of this commit are the same, and their checksums are those of the files in the archives."
