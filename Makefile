# `make quickstart` and `make test` work from a bare clone: each makes .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1
export OMP_NUM_THREADS ?= 2
# Many processes of the tests import the same files
export PYTHONDONTWRITEBYTECODE :=

RAW ?= data/raw/instruments
OUTPUT ?= runs/instruments
RECIPE := $(BIN)/python examples/recipes/run.py examples/recipes

.PHONY: notebook test-python quickstart reproduce-instruments reproduce-toys reproduce-microlens ablate-microlens test test-fast test-minimum test-newest options lint docs clean

$(VENV)/installed: pyproject.toml setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

quickstart: $(VENV)/installed
	$(BIN)/etegrec quickstart --output-dir runs/quickstart

# The tables of README.md, docs/quality.md and docs/experiments.md: RAW names the folder of Instruments.inter.json, of
# Toys.inter.json, or of Microlens.inter.json and Microlens.item.json
reproduce-instruments: $(VENV)/installed
	$(RECIPE)/instruments --raw $(RAW) --output-dir $(OUTPUT) --variants all --tables test

reproduce-toys: RAW = data/raw/toys
reproduce-toys: OUTPUT = runs/toys
reproduce-toys: $(VENV)/installed
	$(RECIPE)/toys --raw $(RAW) --output-dir $(OUTPUT) --variants all --tables test_seen_left_out

reproduce-microlens: RAW = data/raw/microlens
reproduce-microlens: OUTPUT = runs/microlens
reproduce-microlens: export HF_HUB_OFFLINE = 0
reproduce-microlens: $(VENV)/installed
	$(RECIPE)/microlens --raw $(RAW) --output-dir $(OUTPUT) --variants all --tables test

ablate-microlens: RAW = data/raw/microlens
ablate-microlens: OUTPUT = runs/microlens
ablate-microlens: export HF_HUB_OFFLINE = 0
ablate-microlens: $(VENV)/installed
	$(RECIPE)/microlens-ablations --raw $(RAW) --output-dir $(OUTPUT)-ablations --variants all --tables test

# What `etegrec COMMAND --help` reads: after options changed
options: $(VENV)/installed
	$(BIN)/python -m etegrec_hf.cli.describe

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Runs examples/quickstart.ipynb and keeps its outputs: after its code changed
notebook: $(VENV)/installed
	$(BIN)/python docs/execute_notebook.py

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test: lint docs
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

test-fast: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not slow"

# The wheel in new environments that are thrown away, at both ends of the declared versions
test-minimum: $(VENV)/installed
	PYTHON=$(PYTHON) .ci/ends minimum

test-newest: $(VENV)/installed
	PYTHON=$(PYTHON) .ci/ends newest

# What isn't slow under another Python: `make test-python PYTHON=python3.13`. Of torch, pip may choose a build with CUDA
test-python:
	$(PYTHON) -m venv build/python
	build/python/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	OMP_NUM_THREADS=1 build/python/bin/pytest -n 2 --dist worksteal -m "not slow"
	rm -rf build/python

clean:
	rm -rf $(VENV) runs
