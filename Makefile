# Two commands do everything: `make book` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV ?= .venv
TORCH_BACKEND ?= auto
PROFILE ?= quick
DATA_ROOT ?= data
DEVICE ?= cpu
SEED ?= 0
PORT ?= 8000
THREADS ?= 1
# Recipes read settings from the environment, in quotes: no shell takes them apart.
export PROFILE DATA_ROOT DEVICE SEED PORT THREADS
# Images of containers often set it. Each process would compile all libraries anew: uv leaves them as text.
unexport PYTHONDONTWRITEBYTECODE
ifneq ($(words $(VENV)),1)
$(error VENV must be one path without spaces, not "$(VENV)")
endif

bin := $(VENV)/bin
ready := $(VENV)/.ready-$(TORCH_BACKEND)
ifeq ($(filter $(TORCH_BACKEND),auto cpu),)
$(error TORCH_BACKEND is auto or cpu, not "$(TORCH_BACKEND)": these are the two whose files are known by digest)
endif
# Only Linux has a CPU build of its own.
cpu_lock := $(if $(filter $(TORCH_BACKEND)-$(shell uname -s),cpu-Linux),requirements-cpu.lock)

.DEFAULT_GOAL := help
.PHONY: book test coverage drills reproduce processors lint sync format check-pages bench serve lock dependencies clean \
  distclean help setup

book: setup  ## set up, execute all chapters, build the HTML: build/html/index.html
	@$(bin)/python -m retrieval_geometry build --profile="$$PROFILE" --data-root="$$DATA_ROOT" --device="$$DEVICE" \
	  --seed="$$SEED" --threads="$$THREADS"

test: setup  ## set up, run all tests
	@$(bin)/python -m pytest -n auto --durations=10

coverage: setup  ## run all tests, and fail if they take less than 97 % of the lines and branches of the package
	@$(bin)/python -m coverage erase
	@$(bin)/python -m coverage run -m pytest -n auto --durations=25
	@# Coverage does not see machine code: the tests of the compiled loops once more, as Python.
	@NUMBA_DISABLE_JIT=1 $(bin)/python -m coverage run -m pytest tests/image_models/test_smt.py tests/distances \
	  -k "smt or (entropic and not layer and not silent) or (sinkhorn and gradient)"
	@$(bin)/python -m coverage combine --quiet
	@$(bin)/python -m coverage report

drills: setup  ## kill, starve and damage builds of a small book (ON="--long" for all faults)
	@$(bin)/python -m tests.drills $(ON)

reproduce: setup  ## build HEAD once more in a clean folder and say what differs (THREADS=2 for two threads)
	@$(bin)/python -m tests.reproduce --threads="$$THREADS"

processors: setup  ## run tests and quick results as on other processors (ON="--short" for a short run)
	@$(bin)/python -m tests.on_processors $(ON)

lint: setup  ## style, types, and notebooks in step with their chapters
	@$(bin)/ruff check . && $(bin)/ruff format --check . && $(bin)/python -m mypy && $(bin)/python -m retrieval_geometry.book check-pairs

sync: setup  ## write the paired notebooks from the chapters
	@$(bin)/python -m retrieval_geometry.book sync

format: setup  ## put the code into house style
	@$(bin)/ruff check --fix . && $(bin)/ruff format .

check-pages: setup  ## check the built pages, in Chromium as well where it is installed
	@$(bin)/python -m retrieval_geometry.book check-pages --browser

bench: setup  ## time the distances against other libraries (BENCH="--quick" for a short run)
	@$(bin)/python -m benchmarks $(BENCH)

serve: book  ## build the book and serve it on http://localhost:8000 (PORT=...)
	@$(bin)/python -m http.server --bind 127.0.0.1 --directory build/html "$$PORT"

lock: setup  ## resolve the dependencies of pyproject.toml anew
	@$(bin)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes \
	  --no-annotate --no-header --upgrade pyproject.toml --output-file requirements.lock
	@sed -n 's/^\(torch\(vision\)\{0,1\}==[0-9.]*\).*/\1/p' requirements.lock | $(bin)/uv pip compile --quiet - --no-deps \
	  --python-platform linux --torch-backend=cpu --generate-hashes --no-annotate --no-header --output-file requirements-cpu.lock
	@$(bin)/uv pip compile --quiet --python-version 3.12 --generate-hashes --no-annotate --no-header --upgrade \
	  .github/audit.in --output-file .github/audit.lock
	@$(MAKE) setup dependencies

dependencies: setup  ## write DEPENDENCIES.md: what is installed, and its licences
	@$(bin)/python -m tests.dependencies

setup: $(ready)

# Everything goes into $(VENV), each file checked against the digest in a lock; pip comes with Python, setuptools
# from the lock. A set-up that was cut short is repeated, a finished one costs nothing.
$(ready): requirements.lock requirements-cpu.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed ($(PYTHON) is not); name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@rm -f $(VENV)/.ready-*
	@$(bin)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { \
	  echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "setting up $(VENV) (once; a minute or two, by the network)"
	@awk '/^[^ ]/ { ours = /^uv==/ } ours' requirements.lock > $(VENV)/installer.lock
	@$(bin)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/installer.lock
	@awk 'FNR == 1 && NR > 1 { others = 1 } /^[^ ]/ { skip = others && /^(torch|torchvision|triton|nvidia-|cuda-)/ } \
	  !skip' $(cpu_lock) requirements.lock > $(VENV)/all.lock
	@$(bin)/uv pip sync --quiet --python $(bin)/python --require-hashes $(if $(cpu_lock),--torch-backend=cpu) $(VENV)/all.lock
	@$(bin)/uv pip install --quiet --python $(bin)/python --no-deps --no-build-isolation --editable .
	@touch $@

clean:  ## remove what the build made
	@rm -rf build .snakemake

distclean: clean  ## remove the environment as well
	@rm -rf -- $(VENV)

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1 \t\2/p' Makefile | expand -t 22
	@echo "  options: PROFILE=$(PROFILE) DATA_ROOT=$(DATA_ROOT) DEVICE=$(DEVICE) SEED=$(SEED) PYTHON=$(PYTHON) TORCH_BACKEND=$(TORCH_BACKEND) (or cpu)"
