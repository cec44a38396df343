# PIP_ARGS is passed to pip, e.g. PIP_ARGS="--index-url https://… " for another torch build.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_ARGS ?=
ARGS ?=
PYTEST_ARGS ?=
INSTALL := -m pip install --quiet --disable-pip-version-check $(PIP_ARGS)

# make test-torch TORCH=2.14.1 [TRANSFORMERS=5.17.0]: an environment of its own, everything else as pinned.
TORCH ?=
TRANSFORMERS ?=
OTHER := torch-$(TORCH)$(TRANSFORMERS:%=-transformers-%)
OTHER_VENV := .venv-$(OTHER)
UNPINNED := torch|transformers|tokenizers|huggingface_hub|setuptools
TORCH_TESTS := $(addprefix tests/lora_alpha/,trainer_callback training models curvature dynamics)

.PHONY: demo up test test-all test-wheel test-torch test-frameworks check format bench tree constraints clean mutate mutate-constants

demo: $(VENV)/.installed
	$(BIN)/lora-alpha demo $(ARGS)

up: $(VENV)/.installed
	$(BIN)/lora-alpha up $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow and not frameworks" $(PYTEST_ARGS)

test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-wheel: $(VENV)/.installed-dev
	PIP_ARGS="$(PIP_ARGS)" $(BIN)/python -m pytest tests/install $(PYTEST_ARGS)

test-frameworks: .venv-frameworks/.installed
	.venv-frameworks/bin/python -m pytest -m frameworks tests/frameworks $(PYTEST_ARGS)

test-torch: $(OTHER_VENV)/.installed
	$(OTHER_VENV)/bin/python -m pytest $(TORCH_TESTS) $(PYTEST_ARGS)

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

# Pins what is installed now: upgrade something in $(VENV), run the tests, then this.
constraints: $(VENV)/.installed-dev
	{ echo "# The set of versions that the tests run with, direct and indirect; written by \`make constraints\`."; \
	$(BIN)/python -m pip list --format=freeze --exclude pip --exclude lora-alpha | sed 's/+.*//'; } > constraints.new
	mv constraints.new constraints.txt

# MODULE="lora_alpha/analysis/optimum.py …" for others than the guarded ones; see docs/mutation.md.
MODULE ?=

mutate: .venv-mutate/.installed
	.venv-mutate/bin/python -m tests.mutation $(MODULE) $(ARGS)

mutate-constants: $(VENV)/.installed-dev
	$(BIN)/python -m tests.mutation --constants $(MODULE) $(ARGS)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python $(INSTALL) --constraint constraints.txt --editable '.[all]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python $(INSTALL) --constraint constraints.txt --editable '.[all,test,check]'
	touch $@

$(OTHER_VENV)/.installed: pyproject.toml constraints.txt
	$(if $(TORCH),,$(error say which torch: make test-torch TORCH=2.14.1))
	$(PYTHON) -m venv $(OTHER_VENV)
	grep -vE '^($(UNPINNED))==' constraints.txt > $(OTHER_VENV)/constraints.txt
	$(OTHER_VENV)/bin/python $(INSTALL) --constraint $(OTHER_VENV)/constraints.txt \
	torch==$(TORCH) $(TRANSFORMERS:%=transformers==%) --editable '.[all,test]'
	touch $@

# mutmut beside, not in, what the tests and the constraints are made from.
SITE := -c "import sysconfig; print(sysconfig.get_path('purelib'))"
.venv-mutate/.installed: $(VENV)/.installed-dev
	$(PYTHON) -m venv .venv-mutate
	.venv-mutate/bin/python $(INSTALL) --constraint constraints.txt --editable '.[mutate]'
	$(BIN)/python $(SITE) > "$$(.venv-mutate/bin/python $(SITE))/tested.pth"
	touch $@

# Trainers without what they pin (their pins contradict each other): their configurations' own classes are
# what is tested. What these need beside the tests' set stands here.
FRAMEWORKS := axolotl==0.19.0 llamafactory==0.9.5 unsloth==2026.10.9 \
	omegaconf==2.4.0 antlr4-python3-runtime==4.13.2 addict==2.4.0
.venv-frameworks/.installed: $(VENV)/.installed-dev
	$(PYTHON) -m venv .venv-frameworks
	.venv-frameworks/bin/python $(INSTALL) --no-deps $(FRAMEWORKS)
	$(BIN)/python $(SITE) > "$$(.venv-frameworks/bin/python $(SITE))/tested.pth"
	touch $@

clean:
	rm -rf $(VENV) .venv-mutate .venv-frameworks .venv-torch-* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
