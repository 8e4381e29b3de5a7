#!/bin/sh
# Builds a Kubernetes API server (with etcd and kubectl) and External Secrets if they are
# not in .cache yet, and prints their folders, one per line. They are built unmodified from
# the Go modules that the go.mod files in scripts/modules pin, and kept in .cache by
# version.
set -eu

say() { echo "$*" >&2; }
fail() { say "error: $*"; exit 1; }

top=$(cd "$(dirname "$0")/.." && pwd)
command -v go >/dev/null || fail "go is needed to build Kubernetes' API server; see https://go.dev/doc/install"
system=$(go env GOOS)-$(go env GOARCH)
part=
trap '[ -z "$part" ] || rm -rf "$part"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# pinned MODULE: its version in the go.mod of this folder
pinned() { go list -m -f '{{.Version}}' "$1"; }

# build FILE PACKAGE LDFLAGS
build() {
	go build -v -trimpath -ldflags "-s -w $3" -o "$1" "$2" 2>&1 |
		awk -v about=2000 -f "$top/scripts/progress.awk" >&2
	[ -x "$1" ] || fail "building $2 failed; the lines above say why"
}

cd "$top/scripts/modules/kubernetes"
kubernetes=$(pinned k8s.io/kubernetes)
etcd=$(pinned go.etcd.io/etcd/server/v3)
apiserver=$top/.cache/kubernetes-$kubernetes-etcd-$etcd-$system
if [ ! -d "$apiserver" ]; then
	say "Building Kubernetes' API server $kubernetes, kubectl, and etcd $etcd, once. It takes 3 to 10"
	say "minutes on two cores, downloads 100 MB, and needs 2 GB of memory."
	part=$apiserver.$$
	mkdir -p "$part"
	# The API server does not start without its version.
	minor=${kubernetes#v*.}
	major=${kubernetes%%.*}
	stamp=k8s.io/component-base/version
	stamps="-X $stamp.gitVersion=$kubernetes -X $stamp.gitMajor=${major#v} -X $stamp.gitMinor=${minor%%.*}"
	build "$part/kube-apiserver" k8s.io/kubernetes/cmd/kube-apiserver "$stamps"
	build "$part/kubectl" k8s.io/kubernetes/cmd/kubectl "$stamps"
	build "$part/etcd" go.etcd.io/etcd/server/v3 ""
	[ "$("$part/kube-apiserver" --version)" = "Kubernetes $kubernetes" ] || fail "the built API server is not $kubernetes"
	"$part/etcd" --version | grep -q "${etcd#v}" || fail "the built etcd is not $etcd"
	mv "$part" "$apiserver"
	part=
fi
say "Kubernetes' API server $kubernetes and etcd $etcd: $apiserver"

cd "$top/scripts/modules/external-secrets"
module=github.com/external-secrets/external-secrets
version=$(pinned $module)
secrets=$top/.cache/external-secrets-$version-$system
if [ ! -d "$secrets" ]; then
	say "Building External Secrets $version, once. It takes 3 to 10 minutes on two cores,"
	say "downloads 330 MB, and needs 3 GB of memory."
	part=$secrets.$$
	mkdir -p "$part/crds"
	build "$part/external-secrets" $module ""
	"$part/external-secrets" --help >/dev/null || fail "the built External Secrets does not run"
	cp "$(go list -m -f '{{.Dir}}' $module)"/config/crds/bases/*secrets.io_*.yaml "$part/crds"
	chmod -R u+w "$part/crds" # the module cache is read-only
	mv "$part" "$secrets"
	part=
fi
say "External Secrets $version: $secrets"

echo "$apiserver"
echo "$secrets"
