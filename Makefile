# make run     the main job: the default model from its data to a validated .pb and a report
# make run ARGS="--model multiply_add"       the same with parameters
# make night   one night: NightlyRun on the data of DATE, yesterday if it is not given
# make nights START=2026-11-01    every night from then to yesterday that is not there yet
# make test    ruff, mypy, pytest
# make bench   the benchmarks of the README's table
# Each makes the virtual environment first if there is none, or if what it should hold has changed.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
TASK ?= WriteReport
ARGS ?=
NIGHT_PARAMS ?= {}

.PHONY: run night nights test bench clean

run: $(VENV)/.installed
	@$(BIN)/luigi --module pipeline $(TASK) $(ARGS)

night: DATE ?= $(shell date -u -d yesterday +%F)
night: $(VENV)/.installed
	@$(BIN)/luigi --module pipeline NightlyRun --date $(DATE) $(ARGS)

nights: $(VENV)/.installed
	@$(BIN)/luigi --module pipeline RangeDailyBase --of NightlyRun --of-params '$(NIGHT_PARAMS)' \
		--start $(or $(START),$(error Say from when on: make nights START=2026-11-01)) --days-forward=-1 $(ARGS)

test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 3 --dist loadfile

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/spam_quality.py
	$(BIN)/python benchmarks/freeze.py
	$(BIN)/python benchmarks/first_answer.py
	$(BIN)/python benchmarks/validate.py
	$(BIN)/python benchmarks/two_workers.py
	$(BIN)/python benchmarks/costs.py
	$(BIN)/python benchmarks/batch.py

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -q --disable-pip-version-check -r requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) output/*/ .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
