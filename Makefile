# `make demo` and `make test` are all it takes; each sets up what it needs. PYTHON is any Python 3.11 or later.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Worker processes start much faster when bytecode is kept.
unexport PYTHONDONTWRITEBYTECODE
unexport PYTHONPATH

.PHONY: demo test check display bench soak faults build services docs acceptance constraints clean help

help: ## this list
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 22

demo: $(VENV)/.runtime ## migrate the repository's own fleet of SQLite tenants, and stop a broken revision at a canary
	@rm -rf .orchestrate/demo .orchestrate/ledger.db*
	orchestrate status
	orchestrate upgrade --all --provision
	orchestrate status
	@echo; echo "# Once more: nothing is due, so nothing is done."
	orchestrate upgrade --all
	@demo/rollout

test: $(VENV)/.development services ## the whole suite, on real servers
	pytest -n $(WORKERS) --dist worksteal --durations=25

check: $(VENV)/.development docs ## linters, types, import contracts, docs
	ruff check
	ruff format --check
	mypy
	lint-imports

docs: $(VENV)/.development ## every command documented, every link resolves
	pytest -q tests/docs

services: $(VENV)/.development ## install the database servers that the tests need, where that can be done
	@python -m tests.services.install

acceptance: $(VENV)/.development services ## someone else's history on a fleet of ours
	python -m tests.acceptance.optuna

# TENANTS=10000
display: $(VENV)/.development services ## what a terminal shows of a large fleet, against its databases
	ORCHESTRATE_TEST_TENANTS=$(or $(TENANTS),10000) pytest -q tests/acceptance/test_terminal.py

bench: $(VENV)/.development services ## a fleet of PostgreSQL schemas against the floor and plain Alembic; the page of a report
	python -m benchmarks.fleet
	python -m benchmarks.report_page

# HARNESS=kills|points|states ENGINE=postgresql|mariadb|sqlite|all SEED=1 TENANTS=60
# kills: KILLS=200 AGAIN=0.35 SERVER=1 TERMINATE=1; points: EVERY=1; states: EXAMPLES=200
soak: $(VENV)/.development services ## kill it at random moments, or everywhere; docs/explanation/reliability.md
	python -m tests.soak $(or $(HARNESS),kills) $(if $(ENGINE),--engine $(ENGINE)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(TENANTS),--tenants $(TENANTS)) $(if $(KILLS),--kills $(KILLS)) $(if $(AGAIN),--again $(AGAIN)) \
	  $(if $(SERVER),--server) $(if $(TERMINATE),--terminate) $(if $(EVERY),--every $(EVERY)) \
	  $(if $(EXAMPLES),--examples $(EXAMPLES))

# ROUNDS=100 SEED=1 ONLY='resets pooler' for the scenarios whose names begin like that
faults: $(VENV)/.development services ## cut its connections, take its servers away, put rivals beside it
	python -m tests.faults $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SEED),--seed $(SEED)) $(ONLY)

build: $(VENV)/.development ## wheel and source distribution
	@rm -rf dist
	python -m build --outdir dist

constraints: ## renew the pinned versions
	@rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install -qq --upgrade pip
	build/constraints/bin/python -m pip install -q --group dev --editable '.[postgres,mysql]' hatchling
	@head -n 1 constraints.txt > build/constraints.txt
	build/constraints/bin/python -m pip freeze --exclude-editable | grep -v '^#' >> build/constraints.txt
	mv build/constraints.txt constraints.txt

clean: ## remove everything that the other targets made
	rm -rf $(VENV) .orchestrate .services build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find orchestrator tests alembic -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.runtime: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "# Installing orchestrate and what it needs into $(VENV)"
	$(PIP) install -qq -c constraints.txt --editable .
	@touch $@

$(VENV)/.development: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "# Installing orchestrate, the drivers, and the tools for tests and checks into $(VENV)"
	$(PIP) install -qq -c constraints.txt --group dev --editable '.[postgres,mysql]'
	@touch $@ $(VENV)/.runtime

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11; say which one to use: make PYTHON=python3.12 …" >&2; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  { apt-get update -q; apt-get install -y -q python3-venv; } && $(PYTHON) -m venv --clear $(VENV); } || \
	  { echo "No virtual environment could be made; install venv first (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@$(PIP) install -qq --upgrade 'pip>=25.1'  # the first with --group
	@touch $@
