PYTHON ?= python3

.PHONY: setup demo test lint

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet -c constraints.txt -e '.[dev]'
	touch .venv/.ready

demo: setup
	.venv/bin/arcforge run recipes/laptop.toml

test: setup
	OMP_NUM_THREADS=1 .venv/bin/pytest -n 2

lint: setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pyright
