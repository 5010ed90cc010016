# `make train` and `make test` work from a fresh clone; what is set up once is not set up again.

PYTHON   ?= python3
VENV     := .venv
BIN      := $(VENV)/bin
READY    := $(VENV)/.ready
RIVAL    := $(VENV)/.rival

SCENARIO ?= 3m
BENCH    ?= engine core rollout ponder autoregressive torso
ARGS     ?=

# Two cores are better spent on processes than on threads within a matrix product.
export OMP_NUM_THREADS ?= 1
# Ray: a local cluster needs no tokens, and no usage statistics leave the machine.
export RAY_AUTH_MODE ?= disabled
export RAY_USAGE_STATS_ENABLED ?= 0

.DEFAULT_GOAL := help
.PHONY: help setup train test test-slow lint format bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  SCENARIO=8m trains elsewhere, RUN=FOLDER names the run, ARGS='...' goes to the command,"
	@echo "  PYTHON=python3.12 picks the interpreter of a new $(VENV)."

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v < (3, 14))' || { \
	  echo "Python 3.11 to 3.13 is needed, and $(PYTHON) is not one ($$($(PYTHON) --version 2>&1))." \
	       "Name one that is: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -c constraints.txt -e '.[test,lint]'
	@touch $@

setup: $(READY) ## the virtual environment, with everything in it

# The first run of this scenario that is not finished (no result.json yet): a new one, or one to resume.
train: $(READY) ## train on SCENARIO (3m) into runs/; an unfinished run goes on where it stopped
	@run=$(RUN); n=1; \
	if [ -z "$$run" ]; then \
	  run=runs/$(SCENARIO); \
	  while [ -e $$run/result.json ]; do n=$$((n + 1)); run=runs/$(SCENARIO)-$$n; done; \
	fi; \
	resume=$$(test ! -e $$run || echo --resume); \
	set -x; $(BIN)/perceiver-policy train --scenario $(SCENARIO) --run-dir $$run $$resume $(ARGS)

test: $(READY) ## the tests, but the slow ones
	$(BIN)/pytest $(ARGS)

test-slow: $(READY) ## the slow tests
	$(BIN)/pytest -m slow $(ARGS)

lint: $(READY) ## ruff (rules and format) and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(READY) ## put the code into the form `lint` asks for
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The rival that the engine is measured beside, which nothing else needs.
$(RIVAL): $(READY)
	$(BIN)/pip install -c constraints.txt -e '.[bench]'
	@touch $@

bench: $(RIVAL) ## measure BENCH (all of them) into benchmarks/results/
	@mkdir -p benchmarks/results
	@set -e -x; for name in $(BENCH); do \
	  $(BIN)/perceiver-policy benchmark $$name --json benchmarks/results/$$name.json $(ARGS); \
	done

clean: ## remove the virtual environment, builds and caches; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
