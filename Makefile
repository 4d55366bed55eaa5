# `make quickstart` and `make test` set up everything they need on a fresh machine.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3

# What the quickstart has learned.
LEARNED := results/DPCLIP/Surfaces/weave/latest/weights/lightning/model.ckpt

.PHONY: quickstart test test-app test-matrix lint docs clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev,docs,onnx,openvino]'
	touch $@

quickstart: $(VENV)/.installed
	$(BIN)/anomalib train --config configs/quickstart.yaml
	$(BIN)/anomalib test --config configs/quickstart.yaml --model.weights $(LEARNED) --model.k_shot 8 --default_root_dir results/good_photos
	DPCLIP_WEIGHTS=$(LEARNED) $(BIN)/dpclip benchmark --config configs/benchmark/quickstart.yaml --fresh true
	@echo "Heat maps and contact_sheet.png: results/good_photos/DPCLIP/Surfaces/weave/latest"

# Two processes of one thread each: threads of several processes on few cores would wait for each other. The longest files come
# first, so that no process waits for the other's in the end.
test: $(VENV)/.installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --nbmake --nbmake-timeout 900 examples tests src

# The commands of README and pages, twice in one folder; `make test` runs them once.
.PHONY: walk
walk: $(VENV)/.installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m walk tests/integration/test_pages.py

# The page in real headless Chromium (Debian: apt-get install chromium chromium-driver).
test-app: $(VENV)/.installed
	$(BIN)/pip install --quiet '.[app]' selenium
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/integration/test_app.py tests/unit/app

# The notebooks of examples/ alone; `make test` runs them too.
.PHONY: notebooks
notebooks: $(VENV)/.installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbmake --nbmake-timeout 900 -n 2 examples

# The built wheel in throw-away environments with other versions: make test-matrix [MATRIX=oldest] [MATRIX="open_clip_torch==2.24.0"]
test-matrix:
	scripts/test_matrix.sh $(if $(MATRIX),"$(MATRIX)")

# What the wheel holds, and what it must not.
.PHONY: test-wheel
test-wheel: $(VENV)/.installed
	$(BIN)/python -m pytest tests/integration/test_wheel.py

# What a release publishes.
.PHONY: dist
dist: test-wheel
	rm -rf dist
	$(BIN)/python -m build --no-isolation

lint: $(VENV)/.installed docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory lint-workflows

# By the schemas that come with check-jsonschema; no network.
.PHONY: lint-workflows
lint-workflows: $(VENV)/.installed
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/pre-commit validate-config .pre-commit-config.yaml

# The documents as a site in site/; fails on links that lead nowhere. Nothing is fetched.
docs: $(VENV)/.installed
	$(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) build dist site datasets results runs .pytest_cache .mypy_cache .ruff_cache
