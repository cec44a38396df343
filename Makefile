# PIP_ARGS is passed to pip, e.g. PIP_ARGS="--index-url https://… " for another torch build.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_ARGS ?=
ARGS ?=
PYTEST_ARGS ?=

.PHONY: demo up test check format bench tree clean mutate mutate-constants

demo: $(VENV)/.installed
	$(BIN)/lora-alpha demo $(ARGS)

up: $(VENV)/.installed
	$(BIN)/lora-alpha up $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tree:
	$(PYTHON) docs/tree.py

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks $(ARGS)

# MODULE="lora_alpha/analysis/optimum.py …" for others than the guarded ones; see docs/mutation.md.
MODULE ?=

mutate: $(VENV)/.installed-mutate
	$(BIN)/python -m tests.mutation $(MODULE) $(ARGS)

mutate-constants: $(VENV)/.installed-dev
	$(BIN)/python -m tests.mutation --constants $(MODULE) $(ARGS)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --editable '.[test,check]'
	touch $@

$(VENV)/.installed-mutate: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --editable '.[mutate]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
