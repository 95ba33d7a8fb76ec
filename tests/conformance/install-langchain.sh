#!/bin/sh
# Makes .venv-langchain: langchain-mcp-adapters and the older `mcp` it brings, apart from Remit's own
# dependencies, at the versions in langchain.txt.
set -eu
cd "$(dirname "$0")/../.."
python3 -m venv .venv-langchain
.venv-langchain/bin/pip install --quiet --disable-pip-version-check --no-deps \
    --requirement tests/conformance/langchain.txt
.venv-langchain/bin/python -c "import langchain_mcp_adapters"
