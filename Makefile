# `make demo` and `make test` are all a new checkout needs: each makes .venv, installs what it uses, and runs.
#
#   PYTHON=python3.12         which Python makes .venv (3.11 or newer)
#   PIP_ARGS="--index-url https://download.pytorch.org/whl/cpu"
#                             which build of torch .venv gets. Read once, when torch is installed: rm -rf .venv to choose
#                             again. Without it pip takes the plain build, which on Linux brings CUDA (several GB).
#   PYTEST_ARGS="-k pricing"  what pytest is told beside pyproject.toml

PYTHON ?= python3
TORCH ?= torch==2.13.0
PIP_ARGS ?=
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check
PACKAGE := pyproject.toml src/tokenauction/__init__.py  # what is installed depends on these; the code itself is linked

# Idle OpenMP threads sleep instead of spinning; it must be set before torch is imported.
export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test check lint format docs image train clean

help:
	@echo "make demo    watch two advertisers write one ad"
	@echo "make test    everything: lint, types, all tests"
	@echo "make check   the same without the slow tests"
	@echo "make lint    ruff and mypy alone"
	@echo "make docs    the docs as a site, in build/site"
	@echo "make image   a Docker image of the server (deploy/Dockerfile)"
	@echo "make format  let ruff rewrite the files"
	@echo "make train   train the shipped checkpoint again"
	@echo "make clean   remove what builds and test runs leave (rm -rf .venv for the rest)"

demo: $(VENV)/.demo
	$(BIN)/tokenauction demo

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: lint
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

image:
	docker build --file deploy/Dockerfile --tag tokenauction .
	docker run --rm tokenauction --version

train: $(VENV)/.demo
	$(BIN)/python -m tokenauction.models.training

clean:
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +

# The steps of the set-up; each leaves a stamp in .venv and runs again only when what it depends on changed.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "tokenauction needs Python 3.11 or newer; name one, as in: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make a virtual environment; on Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.torch: $(VENV)/.made
	$(PIP) "$(TORCH)" $(PIP_ARGS)
	@touch $@

$(VENV)/.demo: $(VENV)/.torch $(PACKAGE)
	$(PIP) --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.torch $(PACKAGE)
	$(PIP) --quiet --editable ".[dev,plot]"
	@touch $@ $(VENV)/.demo
