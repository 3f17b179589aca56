# The commands of this project; each sets up .venv on first use and whenever the pins change.
PYTHON ?= python3
BIN := .venv/bin
export INTERPLAY_DATA ?= ../shared/data

.PHONY: quickstart test coverage check format clean

quickstart: .venv/installed
	$(BIN)/interplay quickstart --overwrite

# Some places forbid to keep bytecode; then each of the many processes that the tests start would compile the sources again.
test: .venv/installed
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --durations=10

# Apart from the tests, since watching every line takes half as long again.
coverage: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --cov --cov-report=term --cov-fail-under=90

check: .venv/installed
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix src tests benchmarks examples
	$(BIN)/ruff format src tests benchmarks examples

clean:
	rm -rf .venv dist runs data .mypy_cache .ruff_cache .pytest_cache

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev]'
	$(BIN)/python -m interplay.backends.compile_kernels
	touch $@
