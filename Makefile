# From nothing to a result in one command: each target makes the virtual environment that it needs, once.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
# Variables, since a comma would end the argument of $(call install,...).
WITH_MODELS := .[classical,fast,train]
WITH_TESTS := .[classical,fast,onnx,oracle,test,train,video]
# What tests and benchmarks compare with, installed without dependencies, whose pins are outdated.
ORACLES := panopticapi-lite==0.2.0 cityscapesscripts==2.3.0 surface-distance==0.1

ifeq ($(VENV),none)
PY := $(PYTHON)
BASE := check-python
DEV := check-python
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
else
PY := $(VENV)/bin/python
BASE := $(VENV)/.segkit-base
DEV := $(VENV)/.segkit-dev
endif
# This file exists while something is installed into the environment. If it is found later, the environment is incomplete.
UNDER_WAY := $(VENV)/.segkit-installing
# What `make wheelhouse` collects, for which cluster and where. TESTS=1 adds what the tests need.
WHEELHOUSE ?= wheelhouse
PYTHON_VERSION ?=
PLATFORM ?= x86_64
EXTRAS ?= fast,train
WITHOUT ?=
MAX_MB ?=
TESTS ?=
# The environment of the light half: what `pip install segkit` brings, and pytest. No torch, no Detectron2.
LIGHT_VENV := $(VENV)-light
LIGHT_TESTS := tests/test_light.py $(addprefix tests/,cli utils structures formats fusion metrics classical report scoring curation runtime)
# A share of these that takes less than a minute.
LIGHT_SHARE := tests/test_light.py $(addprefix tests/,cli utils structures classical report runtime)
# Processes that run tests, of one thread each.
JOBS ?= 2
PARALLEL_PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist loadfile
PIP := $(PY) -m pip --disable-pip-version-check install -c $(CONSTRAINTS)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-all test-light test-matrix lint bench wheelhouse clean check-python remake

help: ## this list
	@echo "make TARGET [PYTHON=python3.12] [VENV=.venv]"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-15s%s\n", $$1, $$2}'
	@echo
	@echo "The first target makes VENV with PYTHON (3.10 to 3.13) and installs about 5 GB into it, in some minutes."
	@echo "The tests of the light half have an own environment, VENV-light: 400 MB."
	@echo "VENV=none takes PYTHON as it is and installs nothing; test-light then does nothing."

demo: $(BASE) ## toy scenes, training, evaluation and images in output/demo
	$(PY) -m segkit demo --output output/demo

test: lint ## lint, all tests that take seconds, and a share of test-light
	$(PARALLEL_PYTEST) -m "not slow"
	@$(MAKE) --no-print-directory test-light LIGHT_TESTS="$(LIGHT_SHARE)"

test-all: lint ## lint, and all tests
	$(PARALLEL_PYTEST)

ifeq ($(VENV),none)
test-light:
	@echo "VENV=none: the tests of the light half are left out, they need an environment of their own"
else
test-light: $(LIGHT_VENV)/.segkit-light ## tests of the light half where neither torch nor Detectron2 is installed
	SEGKIT_LIGHT=1 $(LIGHT_VENV)/bin/python -m pytest -m "not slow" $(LIGHT_TESTS)
endif

test-matrix: ## make test with each Python from 3.10 to 3.13 that is found, and with the oldest torch: 5 GB each
	$(PYTHON) tools/test_matrix.py

lint: $(DEV) ## style, types, and the import layers
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -c "from importlinter.cli import lint_imports_command as lint; lint()"

bench: $(DEV) ## each benchmark against its peer
	@[ "$(VENV)" = none ] || $(PIP) -q -e ".[fast,bench]"
	@for file in benchmarks/[!_]*.py; do echo "== $$file"; $(PY) $$file || exit 1; done

wheelhouse: ## the wheels that a cluster without internet needs, in WHEELHOUSE: docs/clusters.md
	@$(PYTHON) tools/make_wheelhouse.py --output "$(WHEELHOUSE)" --python-version "$(PYTHON_VERSION)" --platform "$(PLATFORM)" \
		--extras "$(EXTRAS)" --without "$(WITHOUT)" --max-mb "$(MAX_MB)" $(if $(filter-out 0,$(TESTS)),--extras test --alone "$(ORACLES)")

clean: ## remove caches and build products; output/ and VENV stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find segkit tests tools benchmarks datasets -name __pycache__ -type d -prune -exec rm -rf {} +

# VENV=none: the doctor's table is printed only if something is missing.
check-python:
	@table=$$($(PY) -m segkit doctor --train 2>&1) || { echo "$$table"; exit 1; }

ifneq ($(VENV),none)
# $(call install,COMMANDS): runs them while the file UNDER_WAY exists. The file stays if the commands are interrupted, and
# if the first installation fails. A later installation may fail (without a network, say): the environment stays usable.
install = [ -e $(UNDER_WAY) ] || complete=1; touch $(UNDER_WAY); trap 'exit 130' INT TERM; \
	{ $(1); } || { code=$$?; [ -z "$$complete" ] || rm -f $(UNDER_WAY); exit $$code; }; \
	rm -f $(UNDER_WAY); touch $@

# $(call make_venv,FOLDER): an empty environment in place of whatever environment is there.
make_venv = $(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "segkit needs Python 3.10 to 3.13: name one, as in make PYTHON=python3.12"; exit 1; }; \
	case $(notdir $(1)) in .venv*) ;; *) [ ! -e $(1) ] || [ -e $(1)/pyvenv.cfg ] \
		|| { echo "$(1) exists and is not a virtual environment: name another VENV"; exit 1; } ;; esac; \
	[ ! -e $(1) ] || { echo "$(1) is incomplete or outdated: it is replaced"; rm -rf $(1); }; \
	echo "Making $(1) with $$($(PYTHON) --version)"; \
	mkdir -p $(1) && touch $(1)/$(notdir $(UNDER_WAY)) && $(PYTHON) -m venv $(1)

# An incomplete environment is made again, and so is one whose Python has disappeared.
ifneq ($(shell [ ! -e $(UNDER_WAY) ] && $(PY) -c "" 2>/dev/null && echo complete),complete)
$(BASE): remake
endif

remake:
	@$(call make_venv,$(VENV))

# The environment is small: it is made again whenever the requirements change.
$(LIGHT_VENV)/.segkit-light: setup.py segkit/requirements.json $(CONSTRAINTS)
	@$(call make_venv,$(LIGHT_VENV))
	@$(LIGHT_VENV)/bin/python -m pip --disable-pip-version-check install -q -c $(CONSTRAINTS) -e ".[classical]" pytest hypothesis
	@touch $@

$(BASE): setup.py segkit/requirements.json $(CONSTRAINTS) segkit/engine/detectron2_installer.py
	@echo "Installing torch, Detectron2 and the rest into $(VENV): about 5 GB the first time ..."
	@$(call install,$(PIP) -q --upgrade pip "setuptools<81" wheel && $(PIP) -e "$(WITH_MODELS)" && $(PY) -m segkit doctor --install-detectron2)

$(DEV): $(BASE)
	@echo "Installing what the tests and checks need into $(VENV) ..."
	@$(call install,$(PIP) -q -e "$(WITH_TESTS)" && $(PIP) -q --no-deps $(ORACLES))
endif
