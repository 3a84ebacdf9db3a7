# Everything runs from .venv, made here from the lock; nothing outside this folder is used or changed.
PYTHON ?= python3.11
BIN := .venv/bin
TRAINERS := .venv-trainers/bin
DEMO := $(BIN)/python -m flows.generate --demo

# Nothing outside this folder is written: no cache of pip's, and no home of the rustc that pip asks for.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_CACHE_DIR := 1
export RUSTUP_HOME := $(CURDIR)/.venv/rustup

COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --quiet
# Of torch 2.13.0's wheel for CPUs, CPython 3.11 and Linux on x86-64, which is not on PyPI.
TORCH_FOR_CPUS := 6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b

.PHONY: demo test test-trainers check lint types layers benchmark lock clean

demo: .venv/installed  ## write a small dataset with a model server of our own
	@$(DEMO)

test: .venv/installed  ## all tests, on up to four cores
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-trainers: .venv/installed .venv-trainers/installed  ## TRL's trainers take what is exported
	$(TRAINERS)/python -m pytest -c tests/trainers/pytest.ini tests/trainers

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
	$(COMPILE) pyproject.toml --group dev --output-file requirements.lock
	@# What the image holds: the same versions, without what only developing needs.
	$(COMPILE) pyproject.toml --extra server --extra s3 --no-annotate \
	    --constraint requirements.lock --output-file deployments/requirements.lock
	@# PyPI's torch for Linux wants CUDA's libraries, the wheel for CPUs does not: they are kept apart.
	$(COMPILE) tests/trainers/requirements.in --no-annotate --output-file tests/trainers/requirements.lock
	awk '/^[^ ]/ {cuda = /^(cuda|nvidia|triton)/} cuda' tests/trainers/requirements.lock > tests/trainers/cuda.lock
	awk '/^[^ ]/ {cuda = /^(cuda|nvidia|triton)/} !cuda {print} \
	    /^torch==/ {print "    --hash=sha256:$(TORCH_FOR_CPUS) \\"}' tests/trainers/requirements.lock > .lock
	mv .lock tests/trainers/requirements.lock

clean:
	rm -rf .venv .venv-trainers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/installed: requirements.lock pyproject.toml
	@echo "Installing into .venv, once; this takes a minute or two."
	@$(PYTHON) -m venv .venv
	@# The lock is complete. pip's resolver takes sqlalchemy[asyncio] for unpinned (pypa/pip#9644), so it is not asked.
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv-trainers/installed: tests/trainers/requirements.lock tests/trainers/cuda.lock
	@echo "Installing the trainers into .venv-trainers, once; this takes some minutes."
	@$(PYTHON) -m venv .venv-trainers
	@$(TRAINERS)/python -m pip install --quiet --no-deps --require-hashes --requirement tests/trainers/requirements.lock
	@# Where pip finds the wheel for CPUs it takes that; PyPI's own cannot be imported without CUDA's libraries.
	@$(TRAINERS)/python -c 'import torch' 2>/dev/null || $(TRAINERS)/python -m pip install --quiet --no-deps \
	    --require-hashes --requirement tests/trainers/cuda.lock
	@touch $@
