# The set-up: a virtual environment in .venv. Every target makes it when it is missing.
PYTHON ?= python3
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Palate needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q -c constraints.txt torch
	.venv/bin/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: test test-slow check clean
test: .venv/ready
	.venv/bin/python -m pytest -m "not slow"

check: .venv/ready
	.venv/bin/ruff format --check palate tests
	.venv/bin/ruff check palate tests
	.venv/bin/mypy

clean:
	rm -rf runs dist build .pytest_cache .mypy_cache .ruff_cache
