#!/bin/sh
# Writes to a file the licences and notices of everything that is linked into a release, as
# the MIT, BSD and Apache licences require: scripts/licences.sh FILE
set -eu
cd "$(dirname "$0")/.."
mkdir -p "$(dirname "$1")"

# module PATH FOLDER
module() {
	found=
	for file in "$2"/[Ll][Ii][Cc][Ee][Nn][CSs][Ee]* "$2"/COPYING* "$2"/NOTICE* "$2"/PATENTS*; do
		[ -f "$file" ] || continue
		printf '\n===== %s: %s =====\n\n' "$1" "${file##*/}"
		cat "$file"
		found=yes
	done
	[ -n "$found" ] || { echo "error: $1 has no licence in $2" >&2; exit 1; }
}

linked=$(for system in linux darwin windows; do
	GOFLAGS=-mod=readonly GOOS=$system CGO_ENABLED=0 go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}' ./cmd/...
done)
{
	echo "What is linked into vault-plugin-secrets-clanmeeting, and its licences."
	module "Go and its standard library" "$(go env GOROOT)"
	echo "$linked" | LC_ALL=C sort -u | while read -r path folder; do
		module "$path" "$folder"
	done
} >"$1"
