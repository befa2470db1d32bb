# `make demo` and `make test` do all the set-up themselves; both are quick when run again.
PYTHON_BIN := .venv/bin/python
export PYTHONUNBUFFERED = 1

.PHONY: help setup demo test test-slow lint format status lock

help:            ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/'

setup:           ## create .venv with what this machine can use
	@scripts/setup.sh

demo: setup      ## evaluate, build data, train, evaluate again, report: on the embedded model
	@$(PYTHON_BIN) recipes/demo.py

test: setup      ## the fast tests (under 15 minutes on two cores)
	@$(PYTHON_BIN) -m pytest -m "not slow and not gpu"

test-slow: setup ## the tests that take minutes each
	@$(PYTHON_BIN) -m pytest -m "slow and not gpu"

lint: setup      ## format check, lint, types
	@$(PYTHON_BIN) -m ruff format --check .
	@$(PYTHON_BIN) -m ruff check .
	@$(PYTHON_BIN) -m pyright

format: setup    ## format and sort imports
	@$(PYTHON_BIN) -m ruff check --fix --select I .
	@$(PYTHON_BIN) -m ruff format .

status: setup    ## write docs/status.md from docs/evidence.yaml
	@$(PYTHON_BIN) scripts/status.py

lock: setup      ## write requirements.lock anew from .venv
	@scripts/lock.sh
