# Works on a fresh machine with Python >= 3.10 alone; everything goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-lowest lint docs clean

# torch first and pinned: a plain requirement may draw a CUDA build of several gigabytes.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[demo,dev,docs]"
	touch $(READY)

demo: $(READY)
	HF_HUB_OFFLINE=1 $(BIN)/hf-negmine demo

# A file's tests share what is slow to make, so they stay together; the long files are not the ones with most tests.
test: $(READY)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The suite with the lowest versions that pyproject.toml allows, but for torch, whose old builds draw gigabytes.
LOWEST := .venv-lowest
test-lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints.txt torch
	$(LOWEST)/bin/python -m pip freeze | grep ^torch== > $(LOWEST)/torch.txt
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct \
		--override $(LOWEST)/torch.txt --editable ".[dev]"
	HF_HUB_OFFLINE=1 $(LOWEST)/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Nothing is loaded from elsewhere; every warning is an error. The pages lie in build/site.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) $(LOWEST) build/site demo-output
