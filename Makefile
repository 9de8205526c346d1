.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format tensorboard bench bench-quick bench-accuracy peers clean pins

VENV := .venv
BENCH ?= loading prediction splits overheads compare
BIN := $(VENV)/bin
PEERS_VENV := .venv-peers
PEERS_INSTALLED := $(PEERS_VENV)/.installed
IMAGES = $(if $(ROOT),--root $(ROOT))
INSTALLED := $(VENV)/.installed
USABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(USABLE)' 2>/dev/null && { echo $$p; break; }; done)

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(INSTALLED)  ## create .venv and install all dependencies

demo: $(INSTALLED)  ## train, test and report on a model with embedded data, in a minute
	$(BIN)/python train.py experiment=demo

test: $(INSTALLED)  ## run the quick tests, offline
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-all: $(INSTALLED)  ## run all tests, the slow ones included
	$(BIN)/python -m pytest

lint: $(INSTALLED)  ## check formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)  ## format, and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tensorboard: $(INSTALLED)  ## serve outputs/ in TensorBoard on http://127.0.0.1:6006
	$(BIN)/tensorboard --logdir outputs --host 127.0.0.1 --port 6006

bench: $(INSTALLED) $(PEERS_INSTALLED)  ## compare with other tools, in an hour (BENCH=compare ARGS="--only probe" ROOT=photos WEIGHTS=file)
	@for name in $(BENCH); do \
		case $$name in compare|gpu) given='$(IMAGES)$(if $(WEIGHTS), --weights $(WEIGHTS))';; \
			loading|prediction) given='$(IMAGES)';; *) given=;; esac; \
		$(BIN)/python benchmarks/$$name.py $$given $(ARGS) || exit 1; done

bench-quick: $(INSTALLED) $(PEERS_INSTALLED)  ## run a few comparisons, in minutes, without writing results
	@$(BIN)/python benchmarks/compare.py --quick $(IMAGES) $(if $(WEIGHTS),--weights $(WEIGHTS)) $(ARGS)

bench-accuracy: $(INSTALLED) $(PEERS_INSTALLED)  ## compare accuracy and time of whole runs, in hours (ROOT=photos WEIGHTS=file)
	@$(BIN)/python benchmarks/accuracy.py $(IMAGES) $(if $(WEIGHTS),--weights $(WEIGHTS)) $(ARGS)

peers: $(PEERS_INSTALLED)  ## create .venv-peers with the tools that benchmarks compare with

clean:  ## remove environments and build files; keeps outputs/
	rm -rf $(VENV) $(PEERS_VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

pins: $(INSTALLED)  ## update the pinned versions in requirements.txt and benchmarks/peers/requirements.txt
	$(BIN)/uv pip compile --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate \
		--extra dev --upgrade pyproject.toml --output-file requirements.txt
	$(BIN)/uv pip compile --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate \
		--constraint requirements.txt --upgrade benchmarks/peers/requirements.in \
		--output-file benchmarks/peers/requirements.txt

$(PEERS_INSTALLED): benchmarks/peers/requirements.txt | $(INSTALLED)
	test -x $(PEERS_VENV)/bin/python || $(PYTHON) -m venv $(PEERS_VENV)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(PEERS_VENV)/bin/python -r $<
	@touch $@

$(INSTALLED): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 found; type make PYTHON=/path/to/python3.11" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.txt \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	$(BIN)/python -m compileall -q src
	@touch $(INSTALLED)
