#!/bin/sh
# Installs the fronts that `python -m bench.upstream` stands Remit beside, each in an environment of
# its own, at the versions and hashes in fastmcp.txt and contextforge.txt. Remake these with
# `uv pip compile --universal --python-version 3.11 --generate-hashes --only-binary :all:
# --no-annotate --no-header NAME.in -o NAME.txt`. The bench says so and goes on where one is missing.
set -eu
cd "$(dirname "$0")"
for name in fastmcp contextforge; do
    python3 -m venv --clear "../../.venv-bench-$name"
    "../../.venv-bench-$name/bin/pip" install --quiet --disable-pip-version-check --no-input \
        --no-deps --require-hashes --only-binary=:all: --requirement "$name.txt"
done
