# Each target does its own set-up; a second call starts at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Files of tests are shared out to two processes.
PYTEST := $(BIN)/python -m pytest -q --numprocesses=2 --dist=loadfile

.PHONY: setup demo reproduce-demo test test-all test-faults test-beam lint format clean

setup: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/python launch/demo.py

reproduce-demo: $(INSTALLED)
	$(BIN)/python launch/reproduce.py --plan=demo --all

test: lint
	$(PYTEST) -m "not slow"

test-all: lint
	$(PYTEST)

# What may happen to a run: signals, kills, hangs, NaN (docs/faults.md).
test-faults: $(INSTALLED)
	$(BIN)/python -m pytest -q -rP tests/faults tests/watchdog_test.py \
	  tests/environment_test.py tests/launch/supervise_test.py

# Builds Beam's own environment, unless VIE_JAX_BEAM_PYTHON names one.
test-beam: $(INSTALLED)
	$(BIN)/python -m pytest -q tests/data/prepare_beam_test.py

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The marker is written last: a set-up that was cut short is done again.
$(INSTALLED): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' || \
	  { echo "vie_jax needs Python 3.11.4 or later; this is $$($(PYTHON) --version). Name another: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) .jax_cache demo reproduce-demo
