# Everything runs in .venv, which this file creates and keeps up to date.
# PYTHON selects the interpreter: make test PYTHON=python3.13

comma := ,
PYTHON ?= python3
# The PyTorch that test-all installs. Another build: TORCH="torch --index-url ..."
TORCH ?= torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
VERSION := $(shell $(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null)
# The build above is not available everywhere for Python 3.13, so it is not installed.
ASK_TORCH := $(filter 3.11.% 3.12.%,$(VERSION))
BACKENDS := jax,tensorflow$(if $(ASK_TORCH),$(comma)torch)
# An editable install finds new modules, but not new packages.
SOURCES := pyproject.toml CMakeLists.txt $(wildcard native/*.* src/shortlist/*/__init__.py \
           src/shortlist/*/*/__init__.py src/shortlist/*/*/*/__init__.py)

# Code shared by the benchmarks, and the scripts that tune settings.
NOT_BENCHMARKS := harness workers tune_accuracy tune_defaults

.DELETE_ON_ERROR:
.PHONY: help demo test test-all check sanitize install bench dist clean

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: $(STAMPS)/demo ## Train on MovieLens and serve; CHECK=1 sends one request and exits.
	@mkdir -p build
	@$(BIN)/shortlist demo $(if $(CHECK),--check --json build/demo.json)

test: $(STAMPS)/test ## Runs the tests but the slow ones, under each installed backend.
	@BIN=$(BIN) sh scripts/test.sh fast

test-all: $(STAMPS)/all ## Installs all backends; runs every test; fails on a skip; sanitizers.
	@BIN=$(BIN) sh scripts/test.sh all --fail-on-skip
	@sh scripts/sanitize.sh

check: $(STAMPS)/test ## Check style, formatting and types.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy src
	@$(BIN)/clang-format --dry-run -Werror native/*.h native/*.cc native/tests/*.cc

sanitize: ## Run the native tests under the address, undefined and thread sanitizers.
	@sh scripts/sanitize.sh

install: $(STAMPS)/all ## Install everything that tests and benchmarks need into .venv.

bench: $(STAMPS)/all ## Run every benchmark; results are in build/bench/.
	@mkdir -p build/bench
	@for script in $(filter-out $(NOT_BENCHMARKS:%=benchmarks/%.py),$(wildcard benchmarks/*.py)); do \
	  echo "bench: $$script"; \
	  $(BIN)/python $$script --json build/bench/$$(basename $$script .py).json || exit 1; \
	done

dist: $(STAMPS)/python-$(VERSION) ## Build the wheel and test it in an empty environment.
	@BIN=$(BIN) sh scripts/dist.sh

clean: ## Remove build results and caches; the next make installs again.
	@rm -rf build dist $(STAMPS) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} +

# The stages of .venv. Each runs again when the interpreter, the project file or the
# native sources change.

$(STAMPS)/python-$(VERSION):
	@PYTHON="$(PYTHON)" sh scripts/venv.sh $(VENV)
	@mkdir -p $(STAMPS)
	@touch $@

$(STAMPS)/demo: $(STAMPS)/python-$(VERSION) $(SOURCES)
	@echo "install: installing Shortlist with JAX and the server, into $(VENV)"
	@$(PIP) install -e '.[jax,serve]'
	@touch $@

# A larger stage includes the smaller ones.
$(STAMPS)/test: $(STAMPS)/python-$(VERSION) $(SOURCES)
	@echo "install: installing Shortlist with JAX, the server and the test tools, into $(VENV)"
	@$(PIP) install -e '.[jax,serve,dev]'
	@touch $(STAMPS)/demo $@

$(STAMPS)/all: $(STAMPS)/python-$(VERSION) $(SOURCES)
	@echo "install: installing Shortlist with $(BACKENDS), the server and the test tools, into $(VENV)"
	@$(if $(ASK_TORCH),$(PIP) install $(TORCH))
	@$(PIP) install -e '.[$(BACKENDS),serve,dev]'
	@touch $(STAMPS)/demo $(STAMPS)/test $@
