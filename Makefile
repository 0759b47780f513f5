# `make quickstart` and `make test` work from a bare clone: each makes .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1
export OMP_NUM_THREADS ?= 2

.PHONY: quickstart test test-fast lint docs clean

$(VENV)/installed: pyproject.toml setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

quickstart: $(VENV)/installed
	$(BIN)/etegrec quickstart --output-dir runs/quickstart

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test: lint docs
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

test-fast: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow"

clean:
	rm -rf $(VENV) runs
