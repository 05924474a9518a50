# Everything runs through the virtual environment's Python, so a path with a space in it is fine.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed

.PHONY: install run test test-slow test-faults test-sourcecred mutants check format lock bench

install: $(STAMP)

$(STAMP): requirements-dev.lock pyproject.toml
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@if command -v npm >/dev/null 2>&1 && [ -f tests/node/package-lock.json ]; then \
		cd tests/node && npm ci --silent --no-audit --no-fund; fi
	@touch $(STAMP)

run: install
	@exec $(PY) -m app.cli dev

test: install
	$(PY) -m pytest -n 2 --dist worksteal -m "not slow" tests --ignore=tests/faults --ignore=tests/graphs/sourcecred

# What takes its time, and the longest fuzzing.
test-slow: install
	$(PY) -m pytest -n 2 --dist worksteal -m slow tests --ignore=tests/faults --ignore=tests/graphs/sourcecred
	METAGOV_FUZZ_EXAMPLES=100000 $(PY) -m pytest -n 2 tests/sdk/test_verify_fuzz.py

# Real processes are killed and stopped here, one test after the other.
test-faults: install
	$(PY) -m pytest -p no:randomly -s tests/faults

# The real SourceCred takes graphs of every rule set. Its npm tree is kept in ~/.cache/metagov; the first time takes minutes.
test-sourcecred: install
	$(PY) -m tests.graphs.sourcecred.install
	$(PY) -m pytest -n 2 tests/graphs/sourcecred

# Breaks one mechanism after the other on a copy, and sees that a test notices. Takes an hour; ROWS="4 19" does some.
mutants: install
	$(PY) -m tests.mutants $(ROWS)

check: install
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(PY) -m tests.support.migration_drift

format: install
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: install
	@$(PY) -m benchmarks

# The one place that needs uv: it writes the two lock files from pyproject.toml.
lock:
	$(PY) -m pip install --quiet uv
	$(PY) -m uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --quiet -o requirements.lock
	$(PY) -m uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --quiet --extra embedded --extra parquet --group dev -o requirements-dev.lock
