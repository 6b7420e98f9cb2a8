# Everything runs in .venv, which this file makes and keeps up to date.
# PYTHON selects the interpreter: make test PYTHON=python3.13

comma := ,
PYTHON ?= python3
# The build that test-all installs; give an index for another one: TORCH="torch ..."
TORCH ?= torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
VERSION := $(shell $(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null)
# No PyTorch is asked of Python 3.13: the build above is not made for it everywhere.
ASK_TORCH := $(filter 3.11.% 3.12.%,$(VERSION))
BACKENDS := jax,tensorflow$(if $(ASK_TORCH),$(comma)torch)
# An editable install finds new modules by itself, but not new packages.
SOURCES := pyproject.toml CMakeLists.txt $(wildcard native/*.* src/shortlist/*/__init__.py \
           src/shortlist/*/*/__init__.py src/shortlist/*/*/*/__init__.py)

# What the benchmarks share, and the script that chose the settings of one of them.
NOT_BENCHMARKS := harness workers tune_accuracy tune_defaults

.DELETE_ON_ERROR:
.PHONY: help demo test test-all check sanitize install bench dist clean

help: ## Lists the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: $(STAMPS)/demo ## Trains on MovieLens and serves it; CHECK=1 asks once and exits.
	@mkdir -p build
	@$(BIN)/shortlist demo $(if $(CHECK),--check --json build/demo.json)

test: $(STAMPS)/test ## Runs every suite whose backend or service is installed.
	@BIN=$(BIN) sh scripts/test.sh

test-all: $(STAMPS)/all ## Installs all backends; fails on a skip; runs the sanitizers.
	@BIN=$(BIN) sh scripts/test.sh --fail-on-skip
	@sh scripts/sanitize.sh

check: $(STAMPS)/test ## Lints, checks formats and types.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy src
	@$(BIN)/clang-format --dry-run -Werror native/*.h native/*.cc native/tests/*.cc

sanitize: ## Runs the kernels under address, undefined-behaviour and thread sanitizers.
	@sh scripts/sanitize.sh

install: $(STAMPS)/all ## Fills .venv with all that tests and benchmarks use.

bench: $(STAMPS)/all ## Runs every benchmark; results in build/bench/.
	@mkdir -p build/bench
	@for script in $(filter-out $(NOT_BENCHMARKS:%=benchmarks/%.py),$(wildcard benchmarks/*.py)); do \
	  echo "bench: $$script"; \
	  $(BIN)/python $$script --json build/bench/$$(basename $$script .py).json || exit 1; \
	done

dist: $(STAMPS)/python-$(VERSION) ## Builds the wheel; checks it in an empty environment.
	@BIN=$(BIN) sh scripts/dist.sh

clean: ## Removes what was built and cached; the next make installs again.
	@rm -rf build dist $(STAMPS) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} +

# The stages of .venv. Each is redone when the interpreter, the project file or the
# native sources change.

$(STAMPS)/python-$(VERSION):
	@PYTHON="$(PYTHON)" sh scripts/venv.sh $(VENV)
	@mkdir -p $(STAMPS)
	@touch $@

$(STAMPS)/demo: $(STAMPS)/python-$(VERSION) $(SOURCES)
	@echo "install: Shortlist with JAX and the server, into $(VENV)"
	@$(PIP) install -e '.[jax,serve]'
	@touch $@

# A larger stage counts as the smaller ones too.
$(STAMPS)/test: $(STAMPS)/python-$(VERSION) $(SOURCES)
	@echo "install: Shortlist with JAX, the server and the test tools, into $(VENV)"
	@$(PIP) install -e '.[jax,serve,dev]'
	@touch $(STAMPS)/demo $@

$(STAMPS)/all: $(STAMPS)/python-$(VERSION) $(SOURCES)
	@echo "install: Shortlist with $(BACKENDS), the server and the test tools, into $(VENV)"
	@$(if $(ASK_TORCH),$(PIP) install $(TORCH))
	@$(PIP) install -e '.[$(BACKENDS),serve,dev]'
	@touch $(STAMPS)/demo $(STAMPS)/test $@
