# Needs Python 3.10 or newer with venv, and a package index. No system package, no model hub.
PYTHON ?= python3
export UV_LINK_MODE ?= copy

.PHONY: demo test lint install
demo: install
	.venv/bin/speechtaxi demo

test: install
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist worksteal

lint: install
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyright
	.venv/bin/lint-imports

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv/bin/uv pip install --quiet --python .venv/bin/python --constraint constraints.txt --editable '.[demo,dev,faster,lora,ray,serve,vad]'
	touch $@
