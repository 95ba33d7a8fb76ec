#!/bin/sh
# Installs MCP servers from the registries, and an OpenID provider at which people consent beside those
# in Node, each kind in an environment of its own, at the versions
# and hashes in python.txt, python-old.txt and node/package-lock.json. Nothing of them is run here.
# Remake the first two with `uv pip compile --universal --python-version 3.11 --generate-hashes
# --only-binary :all: --no-annotate --no-header NAME.in -o NAME.txt`.
set -eu
cd "$(dirname "$0")"
command -v npm >/dev/null || {
    echo "install.sh: npm is missing; install it with: apt-get install npm" >&2
    exit 1
}
# Debian's, because a sandbox shows /usr and no home directory: there, the environment is mounted.
python=/usr/bin/python3
[ -x "$python" ] || python=python3
install() {
    "$python" -m venv --clear "$2"
    "$2/bin/pip" install --quiet --disable-pip-version-check --no-input --no-deps \
        --require-hashes --only-binary=:all: --requirement "$1"
}
install python.txt ../../.venv-servers
install python-old.txt ../../.venv-servers-old
cd node
npm ci --no-audit --no-fund --omit=dev
node_modules/.bin/node --version
