# Every target builds its own virtual environment from constraints.txt; nothing has to be there
# but Python 3.11 or newer and a package index. PYTHON=, VENV= and SECONDS= may be set.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SECONDS ?= 60
FIRST_SEED ?= 8000
SEEDS ?= 4
FIRST_WORLD ?= 100000
WORLDS ?= 500
MINUTES ?= 5
FUZZ_SECONDS ?= 15
URL ?=
PYTEST_ARGS ?=
TESTS ?=
# Much of the suite waits for real servers; XDIST= runs it in one process.
XDIST ?= -n 3 --dist loadfile
CONSTRAINTS ?= constraints.txt

# An exported PIP_CONSTRAINT holds for the isolated build of this package too.
PIP := PIP_CONSTRAINT=$(CONSTRAINTS) PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet

.PHONY: help demo test test-oldest test-pythons lint types bench efficacy worlds sensitivity soak fuzz format clean collector dashboard dashboard-figure aiohttp-tests walk architecture

help:
	@echo "make demo              a minute of faults, outage and recovery, live (SECONDS=, URL=)"
	@echo "make test              all tests (PYTEST_ARGS=, XDIST=)"
	@echo "make test-oldest       tests with the oldest supported dependencies (TESTS=)"
	@echo "make test-pythons      most tests, on every newer Python that is here (ACROSS=, NEWER=)"
	@echo "make aiohttp-tests     aiohttp's own client tests, with our middleware in every session"
	@echo "make lint              ruff"
	@echo "make types             mypy --strict"
	@echo "make fuzz              foreign input, found by a fuzzer (FUZZ_SECONDS=)"
	@echo "make walk              the way of one call through the package: files, calls, call tree"
	@echo "make collector         build the collector of collector-config/ with Go, once"
	@echo "make clean             remove virtual environments and caches"
	@echo "make help              this list"
	@echo
	@echo "These targets rewrite tracked files:"
	@echo "make format            ruff's fixes and layout; rewrites the sources"
	@echo "make bench             what it costs, and how it does on the wire, beside the alternatives"
	@echo "                       (BEFORE=); rewrites benchmarks/RESULTS.md, benchmarks/WIRE.md, README.md"
	@echo "make efficacy          how well it decides, beside the known policies, in simulation"
	@echo "                       (FIRST_SEED=, SEEDS=); rewrites docs/EFFICACY.md, two pictures, README.md"
	@echo "make worlds            whether it does harm, in worlds drawn at random"
	@echo "                       (FIRST_WORLD=, WORLDS=); rewrites docs/WORLDS.md, docs/harm.png"
	@echo "make sensitivity       every constant of the policy halved and doubled; rewrites docs/SENSITIVITY.md"
	@echo "make soak              minutes of mixed faults, and whether anything grows (MINUTES=);"
	@echo "                       rewrites docs/soak.png"
	@echo "make dashboard         the panels of tools/dashboard.py; rewrites collector-config/grafana/dashboard.json"
	@echo "make architecture      the figure and the modules in docs/; rewrites docs/ARCHITECTURE.md"
	@echo "make dashboard-figure  the dashboard's panels, drawn; rewrites docs/dashboard.png"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml $(CONSTRAINTS)
	$(PIP) --editable ".[demo]"
	@touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml $(CONSTRAINTS)
	$(PIP) --editable ".[test]"
	@touch $@

$(VENV)/.bench: $(BIN)/python pyproject.toml $(CONSTRAINTS)
	$(PIP) --editable ".[bench]"
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/python examples/demo --seconds $(SECONDS) $(if $(URL),--url "$(URL)")

test: $(VENV)/.test
	$(BIN)/python -m pytest $(XDIST) $(PYTEST_ARGS)

# The other end of the ranges in pyproject.toml. TESTS= narrows it. Left out are the benchmarks, and
# what looks at OpenTelemetry's own instrumentation, which takes no meter provider of ours there.
test-oldest:
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt PYTEST_ARGS="$(PYTEST_ARGS) \
	  --ignore=tests/benchmarks \
	  --deselect=tests/wire/test_sessions.py::test_opentelemetrys_instrumentation_sees_one_call $(TESTS)"

# What does not need the collector or a whole minute, on every newer Python that is here. greenlet,
# which only httpbin wants, is another one there.
ACROSS ?= tests/test_*.py tests/policy tests/origin tests/http tests/telemetry tests/wire tests/memory src
test-pythons:
	@set -e; for python in $(or $(NEWER),$$($(PYTHON) -m tools.pythons)); do \
	  venv=.venv-$$(basename "$$(dirname "$$(dirname "$$python")")"); \
	  mkdir -p "$$venv"; grep -v '^greenlet=' $(CONSTRAINTS) > "$$venv/constraints.txt"; \
	  $(MAKE) test PYTHON="$$python" VENV="$$venv" CONSTRAINTS="$$venv/constraints.txt" \
	    PYTEST_ARGS="$(PYTEST_ARGS) $(ACROSS)"; \
	done

# Mixed faults for MINUTES; fails if anything grows. Says where the samples are.
soak: $(VENV)/.bench
	$(BIN)/python -m benchmarks.soak --minutes $(MINUTES) --picture docs/soak.png

# A coverage-guided fuzzer on what reads foreign input, FUZZ_SECONDS for each target (CPython 3.11
# to 3.13, as the fuzzer's wheels are). Its corpus is outside the repository.
fuzz: $(BIN)/python pyproject.toml $(CONSTRAINTS)
	$(PIP) --editable ".[fuzz]"
	$(BIN)/python -m tools.fuzz --seconds $(FUZZ_SECONDS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.test
	$(BIN)/mypy src tests examples benchmarks tools

# BEFORE= names revisions whose success path is measured beside the present one, in the same run.
BEFORE ?=
bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks --out benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks.wire --document benchmarks/WIRE.md
	$(BIN)/python -m benchmarks.readme
	$(if $(BEFORE),$(BIN)/python -m benchmarks.before $(BEFORE))

# Seeds from 8000 on are for judging: nothing was tuned on them.
efficacy: $(VENV)/.bench
	$(BIN)/python -m benchmarks.efficacy --first-seed $(FIRST_SEED) --seeds $(SEEDS) --jobs 2 \
	  --document docs/
	$(BIN)/python -m benchmarks.readme

# Worlds from 100000 on are for judging: nothing was tuned on them.
worlds: $(VENV)/.bench
	$(BIN)/python -m benchmarks.efficacy.worlds --first $(FIRST_WORLD) --count $(WORLDS) --jobs 2 \
	  --document docs/
	$(BIN)/python -m benchmarks.readme

# Numbers that nothing was tuned on and nothing is judged on.
sensitivity: $(VENV)/.bench
	$(BIN)/python -m benchmarks.efficacy.worlds.sensitivity --first 20000 --count 60 --jobs 2 \
	  --document docs/SENSITIVITY.md

dashboard: $(VENV)/.test
	$(BIN)/python -m tools.dashboard collector-config/grafana/dashboard.json

# The way of one call through the package.
walk: $(VENV)/.test
	$(BIN)/python -m tools.walk

# What docs/ARCHITECTURE.md shows of the code.
architecture: $(VENV)/.test
	$(BIN)/python -m tools.house docs/ARCHITECTURE.md

# aiohttp's own client tests, with our middleware in every session.
aiohttp-tests: $(VENV)/.test
	$(BIN)/python -m tools.aiohttp_suite

# The dashboard's panels, drawn from the end-to-end test's Prometheus.
dashboard-figure: $(VENV)/.test
	DASHBOARD_FIGURE=docs/dashboard.png $(BIN)/python -m pytest tests/pipeline/test_pipeline.py

# The collector of collector-config/builder.yaml: built with Go, once, outside the repository.
collector:
	$(PYTHON) -m tools.collector

clean:
	rm -rf $(VENV) .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis
