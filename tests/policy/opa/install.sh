#!/bin/sh
# Builds the real OPA server that tests hold Remit against, at the version named here.
set -eu
cd "$(dirname "$0")"
version=v1.22.2
test -x bin/opa && bin/opa version | grep -q "^Version: ${version#v}$" && exit 0
command -v go >/dev/null || {
    echo "install.sh: go 1.26 or later is missing; install it from https://go.dev/dl" >&2
    exit 1
}
GOBIN="$PWD/bin" go install "github.com/open-policy-agent/opa@$version"
bin/opa version
