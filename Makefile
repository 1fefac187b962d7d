# The few commands of the project; CI calls the same ones. Debian with Python 3.11 or newer suffices: as root,
# what is missing is installed. One virtual environment, brought up to date when a lock file changes.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
BROWSER := tests/e2e/browser
# What the tests drive besides Python; command:package where Debian's package has another name.
PROGRAMS := chromium nginx node:nodejs npm prometheus redis-server strace systemd-analyze:systemd
# What the long ones need besides: an image is built without a container engine.
LONG_PROGRAMS := buildah debootstrap
# More than there are cores: many tests wait for something. Who is through takes over from others: a few take long.
WORKERS := $(shell echo $$(($$(nproc) + 2)))
# These start programs and mostly wait; each file starts its own once, and so stays on one worker. After all others,
# the longest files first.
SLOW := $(wildcard tests/docs tests/faults tests/e2e tests/deploy)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/run.stamp ## 20 s of generated visitors through the proxy to a stand-in, nothing configured (ARGS="--seconds 60")
	@$(BIN)/outlit-proxy demo $(ARGS)

.PHONY: run
run: $(VENV)/run.stamp ## the proxy in the foreground (ARGS="--config FILE")
	@exec $(BIN)/outlit-proxy run $(ARGS)

.PHONY: test
test: check programs $(BROWSER)/node_modules/.package-lock.json ## every check and every test but the long ones
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(SLOW:%=--ignore=%)
	$(if $(SLOW),$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(SLOW))

.PHONY: test-long
test-long: $(VENV)/dev.stamp programs $(BROWSER)/node_modules/.package-lock.json ## the tests that take an hour; new random examples
	@.ci/need $(LONG_PROGRAMS)
	$(BIN)/pytest -n auto --dist worksteal --randomly $(SLOW:%=--ignore=%)
	$(BIN)/pytest -m long
	$(MAKE) simulate mutations
	$(MAKE) simulate ARGS="--engine redis --seeds 1000"
	$(MAKE) simulate ARGS="--engine cluster --seeds 200"
	$(MAKE) simulate ARGS="--engine valkey --seeds 200"

.PHONY: simulate
simulate: $(VENV)/dev.stamp ## ten thousand random lives of the proxy below HTTP (ARGS="--engine redis --seeds 100 --from 7")
	@$(BIN)/python -m tests.simulation $(ARGS)

.PHONY: mutations
mutations: $(VENV)/dev.stamp ## break each promise on purpose, and see that a test notices (ARGS="--only lane")
	@$(BIN)/python -m tests.mutations $(ARGS)

.PHONY: check
check: $(VENV)/dev.stamp ## lint, format, types, and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: bench
bench: $(VENV)/dev.stamp ## accepting, holding, delivering on both engines, as tables (ARGS="accept --rounds 9")
	@$(BIN)/python -m tests.bench $(ARGS)

.PHONY: reference
reference: $(VENV)/dev.stamp ## write what is generated: config/, the table of metrics, the chart's schema
	@$(BIN)/python -m proxy.settings.reference
	@$(BIN)/python -m tests.docs.metrics_table
	@$(BIN)/python -m tests.deploy.helm_chart

.PHONY: lock
lock: $(VENV)/dev.stamp ## write requirements/*.lock from pyproject.toml (ARGS=--upgrade for newer releases)
	$(LOCK) pyproject.toml -o requirements/run.lock
	$(LOCK) --group build -o requirements/build.lock
	$(LOCK) pyproject.toml --group dev -c requirements/run.lock -c requirements/build.lock -o requirements/dev.lock
LOCK = $(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-annotate $(ARGS)

.PHONY: image
image: ## the container image outlit-proxy:VERSION (ENGINE=podman, ENGINE=buildah)
	$(ENGINE) build --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) \
		--build-arg CREATED=$$(date -u +%Y-%m-%dT%H:%M:%SZ) -t outlit-proxy:$(VERSION) .
ENGINE ?= docker
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' proxy/__init__.py)

# --- what the commands above stand on -------------------------------------------------------------------

.PHONY: programs
programs:
	@.ci/need $(PROGRAMS)

$(VENV)/bin/python:
	@.ci/need $(PYTHON):python3-venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	@# Debian's Python comes without ensurepip; the package that brings it has no command of its own
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || .ci/need no-ensurepip:python3-venv
	$(PYTHON) -m venv $(VENV)

# The project itself is installed from the tree with the locked build backend: nothing unhashed is fetched.
$(VENV)/run.stamp: requirements/run.lock requirements/build.lock pyproject.toml proxy/__init__.py | $(VENV)/bin/python
	$(PIP) install -q --require-hashes -r requirements/run.lock -r requirements/build.lock
	$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.lock $(VENV)/run.stamp
	$(PIP) install -q --require-hashes -r requirements/dev.lock
	@touch $@

$(BROWSER)/node_modules/.package-lock.json: $(BROWSER)/package-lock.json | programs
	cd $(BROWSER) && npm ci --no-audit --no-fund
	@touch $@
