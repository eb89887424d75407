# Everything runs in .venv; `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Models this small are slower on several threads than on one, and tests run side by side.
ONE_THREAD := OMP_NUM_THREADS=1
DEMO := checkpoints/digits-small-cnn-standard-seed0 checkpoints/digits-small-cnn-adr-seed0

.PHONY: install demo test lint bench bench-gpu reproduce clean

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
	$(ONE_THREAD) $(BIN)/adrbench train digits --method standard --epochs 10
	$(ONE_THREAD) $(BIN)/adrbench train digits --method adr --epochs 10
	$(ONE_THREAD) $(BIN)/adrbench attack $(DEMO:%=%/best.pt) --suite pgd-20 --eps 0.025,0.05,0.1,0.15
	$(BIN)/adrbench report --table radius
	$(ONE_THREAD) $(BIN)/python -c 'import adrbench; model = adrbench.load_model("$(lastword $(DEMO))"); \
		print(adrbench.evaluate(model, *adrbench.load_examples("digits"), suite="cw", eps=0.1, name="adr"))'

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(ONE_THREAD) $(BIN)/pytest --slow --numprocesses 2 --dist loadgroup --quiet

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks.all $(QUICK)

bench-gpu: $(VENV)/installed
	$(BIN)/python -m benchmarks.gpu $(QUICK) $(if $(WEIGHTS),--weights "$(WEIGHTS)") \
		$(if $(IMAGES),--images "$(IMAGES)")

reproduce: $(VENV)/installed
	$(BIN)/python -m benchmarks.reproduce $(STUDIES)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
