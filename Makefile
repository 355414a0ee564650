# Everything happens inside this clone: packages in .venv, caches in .cache, results in runs.
.PHONY: help demo test test-gpu lint pages docs soak clean

export XDG_CACHE_HOME := $(CURDIR)/.cache
export TMPDIR := $(CURDIR)/.cache/tmp
export MPLCONFIGDIR := $(CURDIR)/.cache/matplotlib
export MYPY_CACHE_DIR := $(CURDIR)/.cache/mypy
export RUFF_CACHE_DIR := $(CURDIR)/.cache/ruff
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/.cache/hypothesis
_ := $(shell mkdir -p .cache/tmp)
unexport PYTHONPATH PYTHONHOME

help:
	@echo "make demo   learn five tasks with and without protection; less than a minute after the packages are there"
	@echo "make test   check style, types and tests"
	@echo "make test-gpu  check everything that runs on a GPU; about 5 minutes, writes results/gpu/CARD.json"
	@echo "make lint   check style and types only"
	@echo "make pages  make the pages that come from committed runs anew"
	@echo "make docs   run the tutorials and build the documentation site into build/site; a few minutes"
	@echo "make soak   random networks, altered files, killed runs, long streams, a simulated day; hours, resumable"
	@echo "make clean  remove packages and caches, keep runs/"

demo:
	@scripts/setup.sh demo
	.venv/bin/forgetless run demo --out runs/demo --resume

lint:
	@scripts/setup.sh dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# One thread per process: the tests are many small ones, and two processes share the cores.
test: lint
	OMP_NUM_THREADS=1 .venv/bin/pytest -n 2 -o cache_dir=.cache/pytest

pages:
	@scripts/setup.sh dev
	scripts/pages.sh

docs:
	@scripts/setup.sh docs
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build

# PYTHON=python3 runs it with a torch that is there already, such as a container's.
test-gpu:
	@[ -n "$(PYTHON)" ] || scripts/setup.sh dev
	$(or $(PYTHON),.venv/bin/python) scripts/test_gpu.py

soak:
	@scripts/setup.sh dev
	PYTHONPATH=tests/support OMP_NUM_THREADS=1 .venv/bin/python -m soak

clean:
	rm -rf .venv .cache build dist src/*.egg-info
