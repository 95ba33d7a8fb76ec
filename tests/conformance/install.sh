#!/bin/sh
# Installs the outside checks that need Node: Node 22 itself, the official conformance suite and the
# inspector, at the versions and hashes in node/package-lock.json. Nothing of them is run here.
set -eu
cd "$(dirname "$0")/node"
command -v npm >/dev/null || {
    echo "install.sh: npm is missing; install it with: apt-get install npm" >&2
    exit 1
}
npm ci --no-audit --no-fund --omit=dev
node_modules/.bin/node --version
