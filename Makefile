# Each target sets up all that it needs, on a machine that has Python 3.11 and pip.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: train test lint unit local cluster long benchmarks docs image gpu-check constraints clean browser

train: $(VENV)/.trainer
	$(BIN)/launcher run

test: lint unit local cluster

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python docs/reference.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

unit: $(VENV)/.test browser
	$(BIN)/python -m pytest tests/unit -n auto --maxprocesses 4 --dist worksteal

# Two at a time: a process that starts up, waits or is killed leaves half of the machine idle.
local: $(VENV)/.test
	$(BIN)/python -m pytest tests/local -m "not long" -n 2 --dist loadfile

# Runs against KUBECONFIG when MASKFLEET_TEST_CLUSTER=1; otherwise says that it did not run.
cluster: $(VENV)/.test
	$(BIN)/python -m pytest tests/cluster -m "not long"

# A soak of kills, lost machines, training through faults on a cluster, a thousand simulated workers: an hour or so, and
# an otherwise idle machine and cluster.
long: $(VENV)/.test
	$(BIN)/python -m pytest tests/local tests/cluster -m long

benchmarks: $(VENV)/.test
	$(BIN)/python -m tests.benchmarks

# Writes the reference from the code, and all pages as a site into build/site.
docs: $(VENV)/.test
	$(BIN)/python docs/reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Needs docker, podman or buildah.
image: $(VENV)/.trainer
	$(BIN)/launcher build

# The gpu image's packages in an empty environment: 7 GB of disk, and some minutes. Needs no GPU.
gpu-check:
	rm -rf build/gpu
	$(PYTHON) -m venv build/gpu
	build/gpu/bin/python -m pip install --quiet --constraint constraints.txt '.[gpu]'
	PYTHONPATH=. build/gpu/bin/python docker/gpu_check.py

# The newest versions that setup.cfg allows, of all that every extra brings: for any platform and Python from 3.11 on.
constraints: | $(BIN)/python
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --strip-extras --no-annotate \
	  --custom-compile-command 'make constraints' --output-file constraints.txt setup.cfg

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m pip install --user virtualenv && $(PYTHON) -m virtualenv $(VENV); }

$(VENV)/.trainer: setup.cfg constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[trainer]'
	touch $@

$(VENV)/.test: setup.cfg constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[trainer,test,docs]'
	touch $@ $(VENV)/.trainer

# The report is looked at in a real browser, where one is or can be installed.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium fonts-dejavu-core >/dev/null; } || echo "there is no chromium: the test of the report's page will not run"

clean:
	rm -rf $(VENV) build ./*.egg-info
