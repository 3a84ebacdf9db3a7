# Everything runs from .venv, made here from the lock; nothing outside this folder is used or changed.
PYTHON ?= python3.11
BIN := .venv/bin
TRAINERS := .venv-trainers/bin
SERVERS := .venv-servers/bin
DEMO := $(BIN)/python -m flows.generate --demo

# Nothing outside this folder is written: no cache of pip's, and no home of the rustc that pip asks for.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_CACHE_DIR := 1
export RUSTUP_HOME := $(CURDIR)/.venv/rustup

COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --quiet
INSTALL := python -m pip install --quiet --no-deps --require-hashes --requirement

.PHONY: demo test test-servers test-trainers check lint types layers benchmark lock tables clean

demo: .venv/installed  ## write a small dataset with a model server of our own
	@$(DEMO)

test: .venv/installed  ## all tests, on up to four cores
	@$(BIN)/python -m tests.needs
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-servers: .venv/installed .venv-servers/installed  ## the command line against servers that others wrote
	$(BIN)/python -m pytest -c tests/servers/pytest.ini tests/servers

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
	$(COMPILE) tests/servers/requirements.in --no-annotate --output-file tests/servers/requirements.lock
	$(COMPILE) --no-deps tests/needs.in --no-annotate --output-file tests/needs.lock
	@# Torch stands apart, with what PyPI's wheels for Linux want of CUDA: where there are wheels for CPUs, they do.
	$(COMPILE) tests/trainers/requirements.in --no-annotate --output-file tests/trainers/all.lock
	awk '/^[^ ]/ {of_torch = /^(cuda|nvidia|torch|triton)/} of_torch' tests/trainers/all.lock > tests/trainers/torch.lock
	awk '/^[^ ]/ {of_torch = /^(cuda|nvidia|torch|triton)/} !of_torch' tests/trainers/all.lock \
	    > tests/trainers/requirements.lock
	rm tests/trainers/all.lock

tables: .venv/installed  ## what a new home of Prefect begins with, by the version that is installed
	$(BIN)/python -m tests.flows.tables > flows/process/prefect.sql.new
	mv flows/process/prefect.sql.new flows/process/prefect.sql

clean:
	rm -rf .venv .venv-servers .venv-trainers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/installed: requirements.lock pyproject.toml
	@echo "Installing into .venv, once; this takes a minute or two."
	@$(PYTHON) -m venv .venv
	@# The lock is complete. pip's resolver takes sqlalchemy[asyncio] for unpinned (pypa/pip#9644), so it is not asked.
	@$(BIN)/$(INSTALL) requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv-servers/installed: tests/servers/requirements.lock
	@echo "Installing model servers of others into .venv-servers, once; this takes some seconds."
	@$(PYTHON) -m venv .venv-servers
	@$(SERVERS)/$(INSTALL) tests/servers/requirements.lock
	@touch $@

.venv-trainers/installed: tests/trainers/requirements.lock tests/trainers/torch.lock tests/trainers/torch-cpu.lock
	@echo "Installing the trainers into .venv-trainers, once; this takes a minute or two."
	@$(PYTHON) -m venv .venv-trainers
	@# Where pip is told of wheels for CPUs; else 3 GB of CUDA's libraries come along.
	@$(TRAINERS)/$(INSTALL) tests/trainers/torch-cpu.lock 2>/dev/null || $(TRAINERS)/$(INSTALL) tests/trainers/torch.lock
	@$(TRAINERS)/$(INSTALL) tests/trainers/requirements.lock
	@touch $@
