# Everything a newcomer or CI needs, with nothing but Python 3.11+, git and make: a plain virtual environment and pip.
# The first run of a target sets up .venv (a minute or two) and says so.

PYTHON ?= python3
VENV ?= .venv
PEERS ?= .venv-peers
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DISTRIBUTIONS := protocol agent converter server
SOURCES := $(foreach d,$(DISTRIBUTIONS),$(d)/src)
PYPROJECTS := $(foreach d,$(DISTRIBUTIONS),$(d)/pyproject.toml)

BENCH ?= all
BENCH_ARGS ?=
CAMPAIGN_ARGS ?=
NAME ?= crash
POINTS ?= 150
SEED ?= 1
DEMO_ARGS ?=
PYTEST_ARGS ?=

.PHONY: help setup peers demo test test-quick check format lint types imports bench campaign wheels deb clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Shoal needs Python 3.11 or newer; set PYTHON=/path/to/python3"; exit 1; }
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "python3 cannot make virtual environments; on Debian: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }

$(VENV)/.run: $(BIN)/python $(PYPROJECTS) constraints.txt
	@echo "installing Shoal and what it runs on into $(VENV) (the first time takes a minute or two) ..."
	@$(PIP) install --quiet --constraint constraints.txt $(foreach d,$(DISTRIBUTIONS),--editable $(d))
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt
	@echo "installing the tools of the tests ..."
	@$(PIP) install --quiet --constraint constraints.txt --requirement requirements-dev.txt
	@touch $@

setup: $(VENV)/.dev  ## the virtual environment with everything in it

$(PEERS)/.done: requirements-peers.txt
	@echo "installing the programs that the tests try against ours into $(PEERS) ..."
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip --disable-pip-version-check install --quiet --requirement requirements-peers.txt
	@touch $@

peers: $(PEERS)/.done  ## programs nobody here wrote, in an environment of their own; tests that need them skip without

demo: $(VENV)/.run  ## the main job end to end: a fleet of thirty devices, a drift, a bad release and its rollback
	@$(BIN)/shoal-server demo $(DEMO_ARGS)

test: $(VENV)/.dev  ## the whole suite; what this machine lacks is skipped with a printed reason
	@$(BIN)/python -m pytest --numprocesses auto --dist loadgroup $(PYTEST_ARGS)

test-quick: $(VENV)/.dev  ## under three minutes: unit, property, contract and architecture tests, on SQLite
	@$(BIN)/python -m pytest --numprocesses auto --dist loadgroup -m "not slow and not postgres" $(PYTEST_ARGS) \
		tests/unit tests/property tests/contract tests/architecture

check: format lint types imports test  ## format, lint, types, imports, tests: what CI holds

format: $(VENV)/.dev
	@$(BIN)/ruff format --check .

lint: $(VENV)/.dev
	@$(BIN)/ruff check .

types: $(VENV)/.dev
	@$(BIN)/mypy $(SOURCES)

imports: $(VENV)/.dev
	@$(BIN)/lint-imports

bench: $(VENV)/.dev  ## BENCH=agent|download|bulk|drift_power|drift_false_alarms|drift_causes|drift_real|quality|http|ingest|pack|profile|two_versions, all without it; BENCH_ARGS=--full
	@$(BIN)/python benchmarks/run.py $(BENCH) $(BENCH_ARGS)

campaign: $(VENV)/.dev  ## NAME=convert|crash|drift|faults POINTS=n SEED=s: long seeded sweeps; CAMPAIGN_ARGS=--help
	@$(BIN)/python tests/campaigns/$(NAME).py --points $(POINTS) --seed $(SEED) $(CAMPAIGN_ARGS)

wheels: $(VENV)/.run  ## dist/*.whl of all four parts, to install elsewhere by file: pip install dist/shoal_protocol-*.whl dist/shoal_agent-*.whl
	@rm -f dist/shoal_*.whl
	@$(PIP) wheel --quiet --no-deps --wheel-dir dist $(foreach d,$(DISTRIBUTIONS),./$(d))
	@ls dist/shoal_*.whl

deb: wheels  ## dist/shoal-agent_*.deb, the agent as a package for this Debian or Ubuntu release
	@PIP="$(PIP)" CONSTRAINTS=constraints.txt deploy/debian/build dist dist

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) $(PEERS) .venv-bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
