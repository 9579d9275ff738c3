# Each target does its own set-up; a second call starts at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TOOLS := $(VENV)/tools
# Files of tests are shared out to two processes, in the order of conftest.py.
PYTEST := $(BIN)/python -m pytest -q --numprocesses=2 --dist=loadfile \
  --no-loadscope-reorder

# Images of containers often set it: each process would then compile the modules
# that it imports once more, 7 s of the 11 s until a training has them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo reproduce-demo test test-all test-faults test-beam lint format audit lock clean

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
	$(BIN)/python -m pytest -q -rP tests/faults tests/processes/watchdog_test.py \
	  tests/machine/environment_test.py tests/launch/supervise_test.py

# Builds Beam's own environment, unless VIE_JAX_BEAM_PYTHON names one.
test-beam: $(INSTALLED)
	$(BIN)/python -m pytest -q tests/data/prepare_beam_test.py

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Known holes of what constraints.txt names, by PyPI's own database. A package
# that it does not know of is an error, too.
audit: $(TOOLS)
	$(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes \
	  -r requirements.lock

# The versions of constraints.txt with their hashes.
lock: $(TOOLS)
	head -n 3 requirements.lock > requirements.lock.tmp
	$(TOOLS)/bin/uv pip compile --quiet --generate-hashes --no-deps \
	  --no-header --no-annotate --python-version 3.11 constraints.txt \
	  >> requirements.lock.tmp
	mv requirements.lock.tmp requirements.lock

$(TOOLS): $(INSTALLED)
	$(PYTHON) -m venv --clear $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check \
	  pip-audit==2.10.1 uv==0.13.9

# The marker is written last: a set-up that was cut short is done again. Most of
# the modules are never imported. Python compiles those that are, here what a
# training imports: whoever runs main.py may have Python keep nothing.
$(INSTALLED): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11, 4) <= sys.version_info < (3, 14))' || \
	  { echo "vie_jax needs Python 3.11, from 3.11.4 on, 3.12 or 3.13; this is $$($(PYTHON) --version). Name another: make PYTHON=python3.12"; exit 1; }
	@echo 'Installing into $(VENV): some minutes, 3 GB.'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-compile --constraint constraints.txt --editable '.[test]'
	TF_ENABLE_ONEDNN_OPTS=0 $(BIN)/python -c 'import vie_jax.train'
	touch $@

clean:
	rm -rf $(VENV) .jax_cache demo reproduce-demo
