# Every target works from a fresh clone with python3 (3.11 or later, with venv), git and make.
# It makes its own .venv from the hash-locked files in requirements/, again only when they change.

PYTHON ?= python3
JOBS   ?= 2
ARGS   ?=

VENV    := .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input
INSTALL := $(PIP) install --require-hashes --only-binary=:all:
PROJECT := $(PIP) install --no-deps --no-build-isolation --editable .
PYTEST  := $(BIN)/python -m pytest
COMPILE := .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 \
           --generate-hashes --no-header --no-emit-index-url

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test test-fast check bench soak fuzz lock clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.run ## the whole path on a real git repository, in under a minute
	@$(BIN)/remit demo $(ARGS)

test: $(VENV)/.dev ## every test; names those this machine lacks something for
	@$(PYTEST) -n $(JOBS) --dist loadfile $(ARGS)

test-fast: $(VENV)/.dev ## the tests that are not slow, in under two minutes (make check has its own)
	@$(PYTEST) -n $(JOBS) --dist loadfile -m "not slow" --ignore tests/house $(ARGS)

check: $(VENV)/.dev ## lint, format, types, import levels, and that docs and schemas are complete
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(PYTEST) -q tests/house $(ARGS)

bench: $(VENV)/.dev ## the table of docs/benchmarks.md, measured here
	@$(BIN)/python -m bench $(ARGS)

soak: $(VENV)/.dev ## the slow tests with the full chaos counts
	@REMIT_SOAK=1 $(PYTEST) -m slow $(ARGS)

fuzz: $(VENV)/.dev ## odd and broken input at the doors and from servers; longer: ARGS="--fuzz 200"
	@$(PYTEST) tests/fuzz --fuzz 20 $(ARGS)

lock: .venv-lock/.made ## resolve the dependencies again and write requirements/*.txt
	@$(COMPILE) $(ARGS) --group dev pyproject.toml -o requirements/dev.txt
	@$(COMPILE) -c requirements/dev.txt pyproject.toml -o requirements/run.txt
	@$(COMPILE) -c requirements/dev.txt --group build -o requirements/build.txt
	@$(COMPILE) $(ARGS) --group lock -o requirements/lock.txt

clean: ## remove what make has made
	@rm -rf $(VENV) .venv-lock build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# A stamp says that the environment matches the lock files it was made from.

$(VENV)/.made:
	@PYTHON="$(PYTHON)" requirements/preflight
	@echo "making $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made requirements/run.txt requirements/build.txt pyproject.toml
	@echo "installing what Remit needs, from requirements/run.txt"
	@$(INSTALL) -r requirements/run.txt -r requirements/build.txt
	@$(PROJECT)
	@touch $@

$(VENV)/.dev: $(VENV)/.made requirements/dev.txt pyproject.toml
	@echo "installing what Remit and its tests need, from requirements/dev.txt"
	@$(INSTALL) -r requirements/dev.txt
	@$(PROJECT)
	@touch $(VENV)/.run $@

.venv-lock/.made: requirements/lock.txt
	@PYTHON="$(PYTHON)" requirements/preflight
	@$(PYTHON) -m venv --clear .venv-lock
	@.venv-lock/bin/python -m pip --disable-pip-version-check --quiet --no-input \
	  install --require-hashes --only-binary=:all: -r requirements/lock.txt
	@touch $@
