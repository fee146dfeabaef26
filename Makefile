# `make` lists the targets. Each makes what it needs: nothing has to be run before it.
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
GOLDEN ?= ../shared/golden
SAMPLES ?= ../shared/samples
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo train eval test test-slow test-slurm check format parity bench notebooks wheel clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(INSTALLED)  ## makes .venv and installs facelm with all its extras

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	@touch $@

demo: setup  ## draws faces, trains HRNetV2-W18 on the CPU, evaluates, prints the table
	$(BIN)/python -m facelm.train experiment=demo

train: setup  ## make train ARGS="experiment=hrnetv2_w18 data.root=data/300w"
	$(BIN)/python -m facelm.train $(ARGS)

eval: setup  ## make eval ARGS="checkpoint=outputs/... data.root=data/300w"
	$(BIN)/python -m facelm.evaluate $(ARGS)

test: setup  ## the tests, without the slow ones
	$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist worksteal $(ARGS)

test-slow: setup  ## the slow tests: make demo whole, installation in an empty environment, long trainings
	$(BIN)/python -m pytest -q -m slow $(ARGS)

test-slurm: setup  ## the scripts of docs/running.md on a SLURM of two nodes on this machine (Debian's packages, as root)
	$(BIN)/python -m pytest -q -m slow tests/slurm $(ARGS)

check: setup  ## ruff and mypy --strict
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

format: setup  ## rewrites the code in the house style
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

parity: setup  ## agreement with mmpose and the HRNet authors, number by number: make parity GOLDEN=FOLDER SAMPLES=FOLDER
	FACELM_PARITY=1 FACELM_GOLDEN=$(abspath $(GOLDEN)) FACELM_SAMPLES=$(abspath $(SAMPLES)) $(BIN)/python -m pytest -q tests/parity $(ARGS)

bench: setup  ## the benchmarks, a table each
	$(BIN)/python -m benchmarks $(ARGS)

notebooks: setup  ## runs the notebooks on drawn faces
	$(BIN)/python -m pytest -q tests/test_notebooks.py

wheel: setup  ## dist/facelm-*.whl
	$(BIN)/python -m build --wheel --no-isolation

clean:  ## removes the environment, builds and caches; keeps outputs/ and data/
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
	find src tests benchmarks -name __pycache__ -type d -exec rm -rf {} +
