# `make reproduce` and `make test` each work alone on a fresh clone: they build .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

.PHONY: .venv test test-fast lint reproduce bench clean

.venv: $(STAMP)

# Written last, so that an interrupted installation is taken up again.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --durations 12

test-fast: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto -m 'not slow'

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

reproduce: $(STAMP)
	$(BIN)/linprobe reproduce fig5 --out runs/fig5
	$(BIN)/linprobe reproduce fig8 --out runs/fig8
	$(BIN)/python -m linprobe.experiments.findings runs/fig5 runs/fig8

bench: $(STAMP)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
