# Everything a newcomer or a machine runs here; `make help` lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules

# The Python that makes .venv: the first of these that is 3.11 or newer; or say `make demo PYTHON=...`
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

.NOTPARALLEL:
.PHONY: help demo test faults probes lint types docs site wheel bench lock clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: .venv/demo.stamp ## run the main job on a simulated factory; ARGS="--keep" and others pass on
	@$(BIN)/testbed demo $(ARGS)

test: ## lint, types and every test; TEST_JOBS=3 side by side, ARGS="-k name" passes on to pytest
	@tests/services/install --without-influxd
	tests/services/influxd/build >/dev/null & # the tests that need them wait for them
	builds=$$!
	tests/services/telegraf/build >/dev/null &
	builds="$$builds $$!"
	trap 'kill $$builds 2>/dev/null || true; wait $$builds || true' EXIT
	$(MAKE) .venv/dev.stamp .venv/site.stamp .venv/build.stamp
	$(MAKE) --jobs=2 lint types
	$(BIN)/python -m compileall -q $(PACKAGES)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(if $(filter true,$(CI)),--need-services) $(ARGS)

# Compiled beforehand: with PYTHONDONTWRITEBYTECODE set, each process that a test starts would compile them again.
PACKAGES = broker gateway simulators testbed testbed_api testbed_runner testbed_scenarios testbed_sdk

TEST_JOBS ?= 3
# One test at a time goes to each worker; a time limit is for a machine that has other tests to run.
SIDE_BY_SIDE = --numprocesses $(TEST_JOBS) --maxschedchunk 1 --timeout 60 --durations 25

faults: .venv/dev.stamp ## the fault suite at full size; FAULTS_JOBS=4 tests side by side, ARGS="-k cut" passes on
	@tests/services/install
	exec $(BIN)/python -m tests.faults --jobs $(FAULTS_JOBS) --full-size $(ARGS)

FAULTS_JOBS ?= 4

probes: .venv/dev.stamp ## the proof of isolation at full size; ARGS="--fuzz-s 1800" half an hour a decoder
	@tests/services/install
	exec $(BIN)/python -m pytest tests/probes --share 1 --trials 200 --keep-results $(ARGS)

lint: .venv/dev.stamp ## style, format and who may import whom
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tests.architecture.names

types: .venv/dev.stamp ## mypy --strict
	@$(BIN)/mypy

docs: .venv/dev.stamp .venv/site.stamp ## the documents: links resolve, and what they promise holds
	@$(BIN)/python -m pytest tests/docs $(ARGS)

site: .venv/site.stamp ## the documents as a site that needs no internet, in build/site
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --jobs auto --conf-dir docs/site \
		--doctree-dir build/doctrees . build/site
	echo "built build/site/index.html"

wheel: .venv/build.stamp ## the project as a wheel in dist: the SDK and `testbed`, few dependencies
	@rm -rf build/lib build/bdist.* dist
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .
	echo "built $$(echo dist/*.whl); install it: python -m pip install $$(echo dist/*.whl)"

bench: .venv/bench.stamp ## measure the data path; ARGS="--quick" in small, ARGS="--part latency" one part
	@tests/services/install
	$(BIN)/python -m compileall -q $(PACKAGES)
	exec $(BIN)/python -m benchmarks $(ARGS)

lock: .venv/dev.stamp ## write the lock files from pyproject.toml; ARGS=--upgrade takes new versions
	@$(PIP) install --quiet uv
	$(COMPILE) --extra dev pyproject.toml -o requirements-dev.lock
	$(COMPILE) --extra site -c requirements-dev.lock pyproject.toml -o requirements-site.lock
	$(COMPILE) --extra build -c requirements-dev.lock pyproject.toml -o requirements-build.lock
	$(COMPILE) --extra bench -c requirements-dev.lock pyproject.toml -o requirements-bench.lock
	$(COMPILE) --extra demo -c requirements-dev.lock pyproject.toml -o requirements.lock
	$(COMPILE) --extra server -c requirements-dev.lock pyproject.toml -o deploy/requirements.lock

COMPILE = $(BIN)/uv pip compile --quiet $(ARGS) --universal --generate-hashes --no-emit-index-url \
	--no-header --python-version 3.11

clean: ## remove what can be made again; data folders stay
	@rm -rf .venv build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/demo.stamp: requirements.lock pyproject.toml
	@$(call install,$<,--no-compile) # the demo loads a third of the modules, and compiles those
	echo "installed in $$SECONDS s; starting the demo" >&2
	touch $@

.venv/dev.stamp: requirements-dev.lock pyproject.toml
	@$(call install,$<)
	touch $@ .venv/demo.stamp # the demo's lock is a part of this one

.venv/bench.stamp: requirements-bench.lock pyproject.toml
	@$(call install,$<)
	touch $@ .venv/dev.stamp .venv/demo.stamp # the others' locks are parts of this one

.venv/site.stamp: requirements-site.lock pyproject.toml
	@$(call install,$<)
	touch $@

.venv/build.stamp: requirements-build.lock pyproject.toml
	@$(call install,$<)
	touch $@

# Install exactly what a lock file names, then the project itself; a .venv that does not start is made anew.
# $(1): the lock file, which names every package, so that pip resolves nothing. $(2): options of pip
define install
	python=
	for each in $(or $(PYTHON),$(PYTHONS)); do
		if "$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			python=$$each
			break
		fi
	done
	if [ -z "$$python" ]; then
		echo "no Python 3.11 or newer found; name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2
		exit 2
	fi
	if ! $(BIN)/python -c 'import pip' 2>/dev/null; then
		if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then
			echo "$$python has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2
			exit 2
		fi
		echo "making .venv with $$("$$python" --version)" >&2
		"$$python" -m venv --clear .venv
	fi
	total=$$(grep -c '^[a-z]' $(1)) count=0 next=0
	echo "installing up to $$total packages of $(1) into .venv" >&2
	$(PIP) install $(2) --progress-bar off --no-deps --require-hashes -r $(1) | while read -r word name _; do
		case "$$word $$name" in
		Collecting\ *) count=$$((count + 1)) ;;
		"Installing collected") name="unpacking" next=0 ;;
		*) continue ;;
		esac
		if [ $$SECONDS -ge $$next ]; then
			echo "  $$count of $$total: $$name" >&2
			next=$$((SECONDS + 4))
		fi
	done
	echo "installing the project" >&2
	$(PIP) install --quiet --no-deps --editable .
endef
