#!/bin/sh
# Makes .venv-moto: moto's server and boto3, apart from Remit's own dependencies, at the versions in
# moto.txt.
set -eu
cd "$(dirname "$0")/../.."
python3 -m venv .venv-moto
.venv-moto/bin/pip install --quiet --disable-pip-version-check --no-deps \
    --only-binary=:all: --requirement tests/tools/moto.txt
.venv-moto/bin/python -c "import boto3, moto.server, moto.s3, moto.sts"
