# From nothing to a result in one command: each target makes the virtual environment that it needs, once.

PYTHON ?= python3
VENV ?= .venv
# A comma would end the argument of $(call install,...).
WITH_TESTS := .[export,fast,test]
# What tests and benchmarks compare with; without dependencies, whose pins are of another time.
ORACLES := panopticapi-lite==0.2.0 cityscapesscripts==2.3.0

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
# Lies in the environment while something is installed into it: who finds it finds a half environment.
UNDER_WAY := $(VENV)/.segkit-installing
PIP := $(PY) -m pip --disable-pip-version-check install -c constraints.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-all lint bench clean check-python anew

help: ## this list
	@echo "make TARGET [PYTHON=python3.12] [VENV=.venv]"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-11s%s\n", $$1, $$2}'
	@echo
	@echo "The first target makes VENV with PYTHON (3.10 to 3.13) and installs about 5 GB into it, in some minutes."
	@echo "VENV=none takes PYTHON as it is and installs nothing."

demo: $(BASE) ## toy scenes, training, evaluation and pictures in output/demo
	$(PY) -m segkit demo --output output/demo

test: lint ## lint, and all tests that take seconds
	$(PY) -m pytest -m "not slow"

test-all: lint ## lint, and all tests
	$(PY) -m pytest

lint: $(DEV) ## style, types, and who may import whom
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -c "from importlinter.cli import lint_imports_command as lint; lint()"

bench: $(DEV) ## each benchmark against its peer
	@[ "$(VENV)" = none ] || $(PIP) -q -e ".[fast,bench]"
	@for file in benchmarks/[!_]*.py; do echo "== $$file"; $(PY) $$file || exit 1; done

clean: ## remove caches and build products; output/ and VENV stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find segkit tests tools benchmarks datasets -name __pycache__ -type d -prune -exec rm -rf {} +

# VENV=none: the doctor is heard only where something is missing.
check-python:
	@told=$$($(PY) -m segkit doctor 2>&1) || { echo "$$told"; exit 1; }

ifneq ($(VENV),none)
# $(call install,COMMANDS): run them with the mark set. It stays where they are cut off, and where the first
# installation into an environment that was made for it fails; others survive a failure, for want of a network say.
install = [ -e $(UNDER_WAY) ] || kept=1; touch $(UNDER_WAY); trap 'exit 130' INT TERM; \
	{ $(1); } || { code=$$?; [ -z "$$kept" ] || rm -f $(UNDER_WAY); exit $$code; }; \
	rm -f $(UNDER_WAY); touch $@

# A half environment, and one whose Python is gone, are made anew.
ifneq ($(shell [ ! -e $(UNDER_WAY) ] && $(PY) -c "" 2>/dev/null && echo sound),sound)
$(BASE): anew
endif

anew:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "segkit needs Python 3.10 to 3.13: name one, as in make PYTHON=python3.12"; exit 1; }
	@case $(notdir $(VENV)) in .venv*) ;; *) [ ! -e $(VENV) ] || [ -e $(VENV)/pyvenv.cfg ] \
		|| { echo "$(VENV) is there and is no virtual environment: name another VENV"; exit 1; } ;; esac
	@[ ! -e $(VENV) ] || { echo "$(VENV) is incomplete: it is made anew"; rm -rf $(VENV); }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@mkdir -p $(VENV) && touch $(UNDER_WAY) && $(PYTHON) -m venv $(VENV)

$(BASE): setup.py constraints.txt tools/install_detectron2.py
	@echo "Installing torch, Detectron2 and the rest into $(VENV): about 5 GB the first time ..."
	@$(call install,$(PIP) -q --upgrade pip "setuptools<81" wheel && $(PIP) -e ".[fast]" && $(PY) tools/install_detectron2.py)

$(DEV): $(BASE)
	@echo "Installing what the tests and checks need into $(VENV) ..."
	@$(call install,$(PIP) -q -e "$(WITH_TESTS)" && $(PIP) -q --no-deps $(ORACLES))
endif
