#!/bin/sh
# Runs the examples against a real Vault. A library of each of the five languages verifies
# the tokens. If something is missing, it names everything at once.
set -eu
cd "$(dirname "$0")/.."

missing=
need() { # a Debian package, and a command that works if it is installed
	package=$1
	shift
	"$@" >/dev/null 2>&1 || missing="$missing $package"
}
python_works() { "$1" -c 'import hvac, jwt, cryptography'; }

# A Python that is not Debian's does not see Debian's packages.
python=${EXAMPLES_PYTHON:-python3}
python_works "$python" 2>/dev/null || [ -n "${EXAMPLES_PYTHON:-}" ] || python=/usr/bin/python3
gson=${EXAMPLES_GSON:-/usr/share/java/gson.jar}

need nodejs node --eval 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'
need npm npm --version
need jq jq --version
need openssl openssl version
need php-cli php --version
need php-curl php -r 'exit(function_exists("curl_init") ? 0 : 1);'
need "python3-hvac python3-jwt python3-cryptography" python_works "$python"
need ruby ruby --version
need ruby-jwt ruby -rjwt -e ''
need "default-jdk-headless" javac --version
need libgoogle-gson-java test -f "$gson"
if [ -n "$missing" ]; then
	echo "error: the examples need these packages of Debian or Ubuntu, or the same from elsewhere:$missing" >&2
	echo "EXAMPLES_PYTHON can name another Python, EXAMPLES_GSON another gson.jar." >&2
	exit 1
fi

vault=$(scripts/vault.sh)
modules=$(scripts/node-modules.sh)
export VAULT_BIN="$vault" NODE_PATH="$modules" EXAMPLES_PYTHON="$python" EXAMPLES_GSON="$gson"
# For the tests' own build of the plugin.
[ "${SIGNER:-}" != openssl ] || export GOFLAGS="${GOFLAGS:-} -tags=openssl"
cd scripts
exec env CGO_ENABLED=1 go test -race -count=1 -parallel=8 -timeout 30m -v -tags acceptance,examples -run '^(TestExamples|TestMigratingGuide|TestAgent)' ./acceptance
