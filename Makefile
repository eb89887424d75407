# Everything runs in .venv; `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Models this small are slower on several threads than on one, and tests run side by side.
ONE_THREAD := OMP_NUM_THREADS=1

.PHONY: install demo test lint bench reproduce clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/installed-dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/installed

demo: $(VENV)/installed
	$(ONE_THREAD) $(BIN)/adrbench train digits --method at
	$(ONE_THREAD) $(BIN)/adrbench train digits --method adr+wa
	$(ONE_THREAD) $(BIN)/adrbench attack --suite pgd --n 100 \
		checkpoints/digits-small-cnn-at-seed0 checkpoints/digits-small-cnn-adr+wa-seed0
	$(ONE_THREAD) $(BIN)/adrbench attack --suite autoattack --n 100 \
		checkpoints/digits-small-cnn-at-seed0 checkpoints/digits-small-cnn-adr+wa-seed0
	$(BIN)/adrbench report results

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(ONE_THREAD) $(BIN)/pytest --slow --numprocesses 2 --dist loadgroup --quiet

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks.all $(QUICK)

reproduce: $(VENV)/installed
	$(BIN)/python -m benchmarks.reproduce $(STUDIES)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
