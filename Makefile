# `make` prints what there is; see README.md.

PYTHON = /usr/bin/python3
PREFIX = /usr/local
DESTDIR =
VENV = build/venv
# Programs for root: nothing in front of them if we are root already.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# make test TESTS=tests/runtime/test_state.py ARGS='-k paused'
TESTS = tests
ARGS =
RUNTIME_TOOLS =
# make conformance, bench, fuzz, reliability RUNTIMES='runc crun other=/path/to/it'
RUNTIMES =

.DEFAULT_GOAL := help
.PHONY: help build install demo check test conformance bench fuzz mutations reliability clean prepare-demo prepare-check prepare-test

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

build: ## write dist/anocir, one executable file (installs shiv below build/ if need be)
	$(PYTHON) build.py

install: build ## install it to PREFIX/bin (default /usr/local; DESTDIR works)
	install -D -m 755 dist/anocir $(DESTDIR)$(PREFIX)/bin/anocir

demo: prepare-demo build ## set up everything, build, and run a container that prints what it sees
	$(SUDO) $(PYTHON) tests/demo.py

check: prepare-check build ## linters, types, unit and repository tests: no root, no network
	$(VENV)/bin/python -m pytest tests/unit tests/repo $(ARGS)

test: prepare-test build ## all tests that this machine can run (as root); installs what they need
	$(VENV)/bin/python -m pytest -rs $(TESTS) $(ARGS)

conformance: build ## run a built checkout of runtime-tools: RUNTIME_TOOLS=DIR
	@[ -n "$(RUNTIME_TOOLS)" ] || { echo "usage: make conformance RUNTIME_TOOLS=DIR"; exit 2; }
	$(SUDO) $(PYTHON) tests/conformance/run.py --suite $(RUNTIME_TOOLS) $(ARGS) $(or $(RUNTIMES),$(RUNTIME),dist/anocir)

bench: build ## measure against runc and crun
	$(SUDO) $(PYTHON) tests/bench/bench.py $(ARGS) $(or $(RUNTIMES),dist/anocir runc crun)

fuzz: prepare-check build ## 10,000 mutated configurations, and the property tests with many more examples
	$(VENV)/bin/python -m pytest tests/unit --hypothesis-profile fuzz --timeout 0 $(ARGS)
	$(SUDO) $(PYTHON) tests/reliability/fuzz.py --count 10000 $(or $(RUNTIMES),dist/anocir)

mutations: prepare-demo prepare-check build ## break features one at a time: does a test notice each?
	$(SUDO) $(VENV)/bin/python tests/mutations.py $(ARGS)

reliability: build ## kills, injected failures, races, damage: the whole table, an hour or two (see README)
	$(SUDO) $(PYTHON) tests/reliability/measure.py $(ARGS) $(or $(RUNTIMES),dist/anocir)

clean: ## remove what was built, the private virtual environment too
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find anocir tests -name __pycache__ -prune -exec rm -rf {} +

prepare-demo:
	@tests/prepare.sh demo

prepare-check:
	@tests/prepare.sh check

prepare-test:
	@tests/prepare.sh test
