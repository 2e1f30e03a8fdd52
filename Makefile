# Every target does its own set-up; a machine needs Python 3.11 or later, pip and make.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
EXTRAS := demo,dev,deploy,averaging,postgres

# Where the made-up district is written, 2 GB.
FEDCREDIT_DISTRICT ?= $(CURDIR)/build/district

# One thread a numerical library: the parties of a simulation share the machine.
export OMP_NUM_THREADS = 1

.DEFAULT_GOAL := help
.PHONY: help setup demo district consortium test slow images wan sbom check bench clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@ .venv/.demo

setup: $(STAMP)  ## a virtual environment in .venv with everything, pinned

demo: .venv/.demo  ## a bank, a tax office and a utility train one scorecard on real data
	$(BIN)/fedcredit simulate configs/simulations/demo.toml

$(FEDCREDIT_DISTRICT)/district.json: | .venv/.demo
	$(BIN)/fedcredit data district --enterprises 210000 --seed 1 --out $(FEDCREDIT_DISTRICT)

district: .venv/.demo $(FEDCREDIT_DISTRICT)/district.json  ## a made-up district: raw records of four institutions, 210,000 enterprises
	FEDCREDIT_DISTRICT=$(FEDCREDIT_DISTRICT) $(BIN)/fedcredit simulate configs/simulations/district.toml

consortium: $(STAMP)  ## the same between houses: coordinator and nodes as processes over mutual TLS, compared
	$(BIN)/python benchmarks/consortium.py

test: $(STAMP)  ## the newcomer's test suite
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

slow: $(STAMP)  ## the slower tests; on real data sets where FEDCREDIT_DATA is set
	$(BIN)/python -m pytest -m "slow and not images and not wan"

images: $(STAMP)  ## builds both images, runs a consortium of containers, lints files and chart
	$(BIN)/python -m pytest -m images

wan: $(STAMP)  ## seconds over long-distance lines against the model; needs root and a quiet machine
	$(BIN)/python -m pytest -m wan

sbom: | $(BIN)/python  ## bill of materials of a node, in build/sbom
	$(PYTHON) -m venv build/sbom/tools
	build/sbom/tools/bin/python -m pip install --quiet --disable-pip-version-check -r configs/consortium/sbom.txt
	$(PYTHON) -m venv --without-pip build/sbom/node
	build/sbom/tools/bin/python -m pip --python build/sbom/node/bin/python install --quiet --disable-pip-version-check \
	  -c constraints.txt '.[deploy,postgres]'
	build/sbom/tools/bin/python configs/consortium/sbom.py --name fedcredit-node \
	  --python build/sbom/node/bin/python --out build/sbom

check: $(STAMP)  ## format, lint, types, directions of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## the benchmarks' short forms
	$(BIN)/python benchmarks/group_sum.py --quick
	$(BIN)/python benchmarks/bfv_sum.py
	$(BIN)/python benchmarks/simulate.py
	$(BIN)/python benchmarks/boost.py --grid --sizes 10000,30000,100000

clean:  ## removes the virtual environment and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
