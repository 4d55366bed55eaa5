# `make quickstart` and `make test` set up everything they need on a fresh machine.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3

.PHONY: quickstart test lint clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev,onnx,openvino]'
	touch $@

quickstart: $(VENV)/.installed
	$(BIN)/python examples/quickstart.py

test: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist datasets results runs .pytest_cache .mypy_cache .ruff_cache
