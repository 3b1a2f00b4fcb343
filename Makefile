PYTHON ?= python3
export OMP_WAIT_POLICY = PASSIVE

.PHONY: setup demo test lint

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet -c constraints.txt -e '.[dev]'
	touch .venv/.ready

demo: setup
	.venv/bin/arcforge run recipes/laptop.toml

test: setup
	.venv/bin/pytest -n 2

lint: setup
	.venv/bin/ruff check src tests benchmarks
	.venv/bin/ruff format --check src tests benchmarks
	.venv/bin/pyright
