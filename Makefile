# The commands of this project; `make` alone lists them.
# Each makes the virtual environment first if there is none, if it was made in another folder, or if what it should
# hold has changed: see tools/setup.sh. The first of them takes a minute or two longer for that.

# Parameters of the task:   make run ARGS="--model multiply_add"
# Another task:             make run TASK=FreezeModel
# One night:                make night DATE=2026-11-25      (yesterday if no date is given)
# The missing nights:       make nights START=2026-11-01    (up to yesterday)
# Another Python:           make run PYTHON=/path/to/python3.12
# Without uv:               make run INSTALLER=pip

TASK ?= WriteReport
ARGS ?=
NIGHT_PARAMS ?= {}
VENV := .venv
BIN := $(VENV)/bin
# The tests of a file run in one process, so that what they share is made once, in the order of tests/conftest.py. A test
# often waits, so there are more processes than cores.
SPREAD := -n 4 --dist loadfile --no-loadscope-reorder
UNIT_TESTS := -n 2 -m 'not tensorflow and not stress'

# Some machines set it: then Python would compile every module again at every start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run night nights check lint types unit test all-tests docs bench runtimes matrix clean clean-output FORCE

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1|/p' $(firstword $(MAKEFILE_LIST)) | awk -F '|' '{ printf "%-18s %s\n", $$1, $$2 }'

run: $(VENV)/.installed ## run the main job: the default model from its data to a validated .pb and a report
	@$(BIN)/luigi --module pipeline $(TASK) $(ARGS)

night: DATE ?= $(shell date -u -d yesterday +%F)
night: $(VENV)/.installed ## run one night: NightlyRun on the data of DATE
	@$(BIN)/luigi --module pipeline NightlyRun --date $(DATE) $(ARGS)

nights: $(VENV)/.installed ## run every night from START to yesterday that is missing
	@$(BIN)/luigi --module pipeline RangeDailyBase --of NightlyRun --of-params '$(NIGHT_PARAMS)' \
		--start $(or $(START),$(error Say from when on: make nights START=2026-11-01)) --days-forward=-1 $(ARGS)

# All three at once; -k: each is finished, whatever the others find. -O, where make has it, keeps their lines together.
check: $(VENV)/.installed-dev ## check in a minute: ruff, mypy, and the unit tests that load no TensorFlow
	@$(MAKE) --no-print-directory -j 3 -k $(if $(filter output-sync,$(.FEATURES)),-O) lint types unit

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

unit: $(VENV)/.installed-dev
	$(BIN)/pytest $(UNIT_TESTS)

# mypy runs beside the tests: new, it takes as long as they take to load what they need.
test: lint ## check everything: ruff, mypy, all tests
	@$(MAKE) --no-print-directory -j 2 -k types all-tests

all-tests: $(VENV)/.installed-dev
	$(BIN)/pytest $(SPREAD)

docs: $(VENV)/.installed-dev ## build the documentation into site/; a broken link is an error
	$(BIN)/python docs/generate.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

runtimes: $(VENV)/.installed ## install TensorFlow 2.15, 2.18 and 2.20 beside this one, for [validation] runtimes (VERSIONS=...)
	@$(BIN)/python tools/environments.py runtimes $(VERSIONS)

matrix: $(VENV)/.installed ## run the chain under Python 3.11 to 3.13 and TensorFlow 2.20 and 2.21 (CELLS=3.12/2.20.0 ...)
	@$(BIN)/python tools/environments.py matrix $(CELLS)

bench: $(VENV)/.installed-dev ## run the benchmarks
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/chain.py
	$(BIN)/python benchmarks/spam_quality.py
	$(BIN)/python benchmarks/freeze.py
	$(BIN)/python benchmarks/first_answer.py
	$(BIN)/python benchmarks/validate.py
	$(BIN)/python benchmarks/two_workers.py
	$(BIN)/python benchmarks/costs.py
	$(BIN)/python benchmarks/batch.py

clean: ## remove the environment and what tools have stored; artifacts stay
	rm -rf $(VENV) .environments build site .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

clean-output: ## remove the artifacts, nights and deployed models in output/, after asking
	@sh tools/clean_output.sh

# A stamp holds the place of the environment that it was written in. In a folder that was moved or copied that is
# another one, and the environment's scripts start nothing, or the wrong Python: it has to be made again.
ifneq "$(shell cat $(VENV)/.installed 2> /dev/null)" "$(realpath $(VENV))"
$(VENV)/.installed $(VENV)/.installed-dev: FORCE
endif

$(VENV)/.installed: requirements.txt pyproject.toml
	@sh tools/setup.sh $(VENV) requirements.txt "make $(or $(firstword $(MAKECMDGOALS)),run)"

$(VENV)/.installed-dev: requirements-dev.txt requirements.txt pyproject.toml
	@sh tools/setup.sh $(VENV) requirements-dev.txt "make $(or $(firstword $(MAKECMDGOALS)),test)"
