# `make` prints what there is; see README.md.

PYTHON = /usr/bin/python3
PREFIX = /usr/local
DESTDIR =
VENV = build/venv
# Programs for root: nothing in front of them if we are root already.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# make test TESTS=tests/runtime/test_state.py ARGS='-k paused'; the same words for make check
TESTS =
ARGS =
CHECKS = $(or $(TESTS),tests/unit tests/repo)
SINCE =
# make critest CRITEST=FILE CRICTL=FILE
CRITEST =
CRICTL =
# What the tests read from the environment, for those who are not root: sudo drops it.
PASSED = CI SUITE RUNTIME ENGINE_TREES ENGINE_CALLS VM_CACHE HYPOTHESIS_PROFILE
RUNTIME_TOOLS =
RUNC =
CRUN =
# make build WHEELS=DIR, with the files of `pip download -d DIR shiv==1.0.8`, needs no network
WHEELS =
SEED = 1
COUNT = 1000
# make conformance, bench, fuzz, reliability RUNTIMES='runc crun other=/path/to/it'
RUNTIMES =

.DEFAULT_GOAL := help
.PHONY: help build install uninstall release demo check test changed conformance bats crun-tests differ bench fuzz mutations reliability critest clean \
    prepare-demo prepare-check prepare-test prepare-engines can-test

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

build: ## write dist/anocir, one executable file (installs shiv below build/ if need be; WHEELS=DIR)
	$(PYTHON) build.py $(if $(WHEELS),--wheels $(WHEELS))

install: ## copy what is built, man page and completions to PREFIX (default /usr/local; DESTDIR works)
	@[ -f dist/anocir ] || { echo "make install: there is no dist/anocir yet: make build first" >&2; exit 1; }
	install -D -m 755 dist/anocir $(DESTDIR)$(PREFIX)/bin/anocir.new
	mv $(DESTDIR)$(PREFIX)/bin/anocir.new $(DESTDIR)$(PREFIX)/bin/anocir
	$(PYTHON) -B build.py share --into $(DESTDIR)$(PREFIX)

uninstall: ## remove what install has put to PREFIX; state and configurations stay
	rm -f $(DESTDIR)$(PREFIX)/bin/anocir $(addprefix $(DESTDIR)$(PREFIX)/share/,man/man8/anocir.8 \
	    bash-completion/completions/anocir zsh/site-functions/_anocir fish/vendor_completions.d/anocir.fish)

release: ## build, and write what is published to dist/anocir-VERSION, with its sums
	$(PYTHON) build.py release $(if $(WHEELS),--wheels $(WHEELS))

demo: prepare-demo build ## set up everything, build, and run a container that prints what it sees
	$(SUDO) $(PYTHON) tests/demo.py

check: prepare-check build ## linters, types, unit and repository tests, without root (at first pip fetches tools)
	$(VENV)/bin/python -m pytest $(CHECKS) $(ARGS)

test: can-test prepare-test build ## all tests that this machine can run (as root); installs what they need
	$(if $(SUDO),$(SUDO) env $(foreach one,$(PASSED),$(if $($(one)),$(one)='$($(one))'))) \
	    $(VENV)/bin/python -m pytest -rs $(or $(TESTS),tests) $(ARGS)

changed: ## as make test, but only the tests of what differs from the last commit (SINCE=REVISION)
	@tests=$$($(PYTHON) -B tests/changed.py $(SINCE)); \
	    if [ -n "$$tests" ]; then $(MAKE) --no-print-directory test TESTS="$$(echo $$tests)"; \
	    else echo "nothing of anocir or its tests has changed"; fi

critest: prepare-engines build ## Kubernetes' tests of a runtime, built elsewhere: CRITEST=FILE CRICTL=FILE
	@[ -n "$(CRITEST)" ] && [ -n "$(CRICTL)" ] || { echo "usage: make critest CRITEST=FILE CRICTL=FILE"; exit 2; }
	$(SUDO) $(VENV)/bin/python -m tests.critest.run --critest $(CRITEST) --crictl $(CRICTL) $(ARGS) $(or $(RUNTIMES),$(RUNTIME),dist/anocir)

conformance: build ## run a built checkout of runtime-tools: RUNTIME_TOOLS=DIR
	@[ -n "$(RUNTIME_TOOLS)" ] || { echo "usage: make conformance RUNTIME_TOOLS=DIR"; exit 2; }
	$(SUDO) $(PYTHON) tests/conformance/run.py --suite $(RUNTIME_TOOLS) $(ARGS) $(or $(RUNTIMES),$(RUNTIME),dist/anocir)

bats: build ## run runc's own tests from a built checkout: RUNC=DIR
	@[ -n "$(RUNC)" ] || { echo "usage: make bats RUNC=DIR"; exit 2; }
	$(SUDO) $(PYTHON) tests/bats/run.py --suite $(RUNC) $(ARGS) $(or $(RUNTIMES),dist/anocir)

crun-tests: build ## run crun's own tests from a checkout with its helper built: CRUN=DIR
	@[ -n "$(CRUN)" ] || { echo "usage: make crun-tests CRUN=DIR"; exit 2; }
	$(SUDO) $(PYTHON) tests/crun/run.py --suite $(CRUN) $(ARGS) $(or $(RUNTIMES),dist/anocir)

differ: build ## compare two runtimes by random configurations: RUNTIMES='dist/anocir OTHER', SEED, COUNT
	$(SUDO) $(PYTHON) tests/differ/run.py --seed $(SEED) --count $(COUNT) $(ARGS) $(or $(RUNTIMES),dist/anocir runc)

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
	@tests/prepare.sh check $(CHECKS)

prepare-test:
	@tests/prepare.sh test $(TESTS)

prepare-engines:
	@tests/prepare.sh test tests/engines

can-test:
	@[ "$$(id -u)" = 0 ] || command -v sudo >/dev/null || { \
	    echo "make test: most tests make containers, which takes root, and there is no sudo here;" \
	        "make check runs those that need neither" >&2; exit 1; }
