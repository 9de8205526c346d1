.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format tensorboard bench clean pins

VENV := .venv
BENCH ?= loading splits plain_loop
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
USABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(USABLE)' 2>/dev/null && { echo $$p; break; }; done)

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(INSTALLED)  ## make .venv and install everything into it

demo: $(INSTALLED)  ## train, test and explain a model on embedded data, in a minute
	$(BIN)/python train.py experiment=demo

test: $(INSTALLED)  ## the tests, offline
	$(BIN)/python -m pytest -m "not slow"

test-all: $(INSTALLED)  ## the slow tests too
	$(BIN)/python -m pytest

lint: $(INSTALLED)  ## format check, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)  ## format and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tensorboard: $(INSTALLED)  ## show outputs/ in TensorBoard on http://127.0.0.1:6006
	$(BIN)/tensorboard --logdir outputs --host 127.0.0.1 --port 6006

bench: $(INSTALLED)  ## measure (all of benchmarks/, or BENCH=loading ARGS="--root photos")
	@for name in $(BENCH); do echo "\n## $$name" && $(BIN)/python benchmarks/$$name.py $(ARGS) || exit 1; done

clean:  ## remove caches and the environment; outputs/ stays
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

pins: $(INSTALLED)  ## resolve requirements.txt anew from pyproject.toml
	$(BIN)/uv pip compile --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate \
		--extra dev --upgrade pyproject.toml --output-file requirements.txt

$(INSTALLED): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 found; type make PYTHON=/path/to/python3.11" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $(INSTALLED)
