# Everything there is to run, and all that CI runs. `make` alone lists it.
# Arguments pass through: make test ARGS="tests/unit -k route"

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# one stamp an environment: what the demo needs is there sooner than all that tests and docs need
RUN := $(VENV)/.ready-run
DEV := $(VENV)/.ready-dev

# in `make -j demo test` the demo waits for the full environment, or pip would change the one it
# runs in under its feet
ifneq ($(filter test lint docs bench chaos,$(MAKECMDGOALS)),)
DEMO := $(DEV)
else
DEMO := $(RUN)
endif

# an environment whose Python is gone, as after an upgrade of the system's, counts as not made
ifeq ($(shell $(BIN)/python -c 'print(1)' 2>/dev/null),)
$(shell rm -f $(RUN) $(DEV))
endif

.DEFAULT_GOAL := help
.PHONY: demo test lint docs bench chaos clean help
.DELETE_ON_ERROR:

help:
	@echo 'make demo   run the demo, on a broker that it finds or starts'
	@echo 'make test   run the tests (ARGS="-k name" picks some)'
	@echo 'make lint   check format, style, types and layers'
	@echo 'make docs   build the docs into docs/_build/html'
	@echo 'make bench  measure, beside other libraries; takes half an hour (ARGS="--quick", --growth)'
	@echo 'make chaos  break brokers, links and workers for 20 minutes (ARGS="--seconds 120")'
	@echo 'make clean  remove what the others made'

demo: $(DEMO)
	$(BIN)/python -m examples.demo $(ARGS)

# in several processes, for most tests wait (tests/sharing.py); ARGS="-n 0" is in one
test: $(DEV)
	$(BIN)/python -m pytest -q -n auto $(ARGS)

# layers without a cache: it does not notice a module that has become part of a package since
lint: $(DEV)
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy amqtask pytest_amqtask.py tests docs/conf.py $(wildcard examples)
	$(BIN)/python -c 'from importlinter.cli import lint_imports_command as lint; lint()' --no-cache

docs: $(DEV)
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html $(ARGS)

bench: $(DEV)
	$(BIN)/python -m tests.bench $(ARGS)

chaos: $(DEV)
	$(BIN)/python -m tests.acceptance.chaos $(ARGS)

clean:
	rm -rf $(VENV) .venv-bench .venv.lock docs/_build build dist .pytest_cache .mypy_cache .ruff_cache \
	  .import_linter_cache .hypothesis .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- the environment ----------------------------------------------------------

# Names a Python that is new enough and can make an environment, or says what to install. Each
# candidate is run: a name on PATH may be a shim for a version that is not there.
define find_python
old=; bare=; python=; \
for each in python3.14 python3.13 python3.12 python3.11 python3 python; do \
  command -v $$each >/dev/null 2>&1 || continue; \
  if ! $$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
    old="$$old $$each"; continue; fi; \
  if ! $$each -c 'import ensurepip, venv' >/dev/null 2>&1; then bare=$$each; continue; fi; \
  python=$$each; break; \
done; \
if [ -z "$$python" ] && [ -n "$$bare" ]; then \
  echo "make: $$bare cannot make environments: install its venv module (Debian, Ubuntu: apt install python3-venv), or uv" >&2; exit 1; fi; \
if [ -z "$$python" ]; then \
  echo "make: no Python 3.11 or later here ($${old:+too old or broken:$$old, }none other found): install python3.11 or later (Debian, Ubuntu: apt install python3 python3-venv), or uv" >&2; exit 1; fi
endef

# Installs $(1) into the environment, and makes that first when it is missing or broken. Two makes
# at once take turns, where flock exists.
define install
if command -v flock >/dev/null 2>&1; then exec 9>.venv.lock; flock 9; fi; \
if [ $@ -nt pyproject.toml ] && $(BIN)/python -c '' 2>/dev/null; then exit 0; fi; \
if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
  echo "make: making $(VENV)" >&2; rm -rf $(VENV); \
  if command -v uv >/dev/null 2>&1; then uv venv -q --python '>=3.11,<3.15' $(VENV) || exit 1; \
  else $(find_python); $$python -m venv $(VENV) || exit 1; fi; \
fi; \
echo "make: installing $(1) into $(VENV)" >&2; \
if command -v uv >/dev/null 2>&1; then \
  uv pip install -q --python $(BIN)/python -e '$(1)' || exit 1; \
else \
  $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null || exit 1; \
  $(BIN)/python -m pip install -q --disable-pip-version-check -e '$(1)' || exit 1; \
fi; \
touch $@
endef

$(RUN): pyproject.toml
	@$(call install,.)

$(DEV): $(RUN)
	@$(call install,.[dev])
