PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint format docs benchmark clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/installed  ## Classify a bundled clip with the bundled model
	$(BIN)/uniformerv2 predict examples/archery.mp4 --model models/demo
	@echo
	@echo "To train on videos of your own, one folder for each class:"
	@echo "  . .venv/bin/activate && pip install -c constraints.txt '.[train]'"
	@echo "  uniformerv2 train my_videos --dry-run"

test: .venv/installed-dev  ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-all: .venv/installed-dev  ## Run the tests, the slow ones too
	$(BIN)/python -m pytest -m "not gpu"

lint: .venv/installed-dev  ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/installed-dev  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/installed  ## Write the pages that are made from the code
	$(BIN)/python docs/make_pages.py

benchmark: .venv/installed-dev  ## Measure what docs/performance.md shows: make benchmark DATA=folder
	$(BIN)/python benchmarks/performance.py $(DATA)

clean:  ## Remove the environment and the caches
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage

.venv/installed: pyproject.toml constraints.txt
	@echo "Installing uniformerv2 and PyTorch into .venv: one to two minutes and 6 GB of disk the first time."
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/installed-dev: .venv/installed
	@echo "Installing what the tests need into .venv: about a minute the first time."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
