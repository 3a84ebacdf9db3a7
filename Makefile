# Everything runs from .venv, made here from the lock; nothing outside this folder is used or changed.
PYTHON ?= python3.11
BIN := .venv/bin
DEMO := $(BIN)/python -m flows.generate --demo

# Nothing outside this folder is written: no cache of pip's, and no home of the rustc that pip asks for.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_CACHE_DIR := 1
export RUSTUP_HOME := $(CURDIR)/.venv/rustup

.PHONY: demo test check lint types layers benchmark lock clean

demo: .venv/installed  ## write a small dataset with a model server of our own
	@$(DEMO)

test: .venv/installed  ## all tests, on up to four cores
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: lint types layers  ## all that is not a test

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy

layers: .venv/installed
	$(BIN)/lint-imports

benchmark: .venv/installed  ## the table of the README
	$(BIN)/python -m tests.benchmarks.pipeline

lock: .venv/installed  ## the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-header --quiet --output-file requirements.lock
	@# What the image holds: the same versions, without what only developing needs.
	$(BIN)/uv pip compile pyproject.toml --extra server --extra s3 --universal --python-version 3.11 \
	    --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links --no-header --quiet \
	    --constraint requirements.lock --output-file deployments/requirements.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/installed: requirements.lock pyproject.toml
	@echo "Installing into .venv, once; this takes a minute or two."
	@$(PYTHON) -m venv .venv
	@# The lock is complete. pip's resolver takes sqlalchemy[asyncio] for unpinned (pypa/pip#9644), so it is not asked.
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
