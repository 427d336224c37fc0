# Every target sets up what it needs. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
BENCH := .venv-bench
BENCH_READY := $(BENCH)/.ready
AGENTS ?=
SWEEP ?=
BUDGET ?=
ARGS ?=

# The shell gets SWEEP, AGENTS and BUDGET through its environment, unchanged: a file name may have spaces, or look like a
# command. Only ARGS is text for the shell, with words and quotes.
override SWEEP := $(value SWEEP)
override AGENTS := $(value AGENTS)
override BUDGET := $(value BUDGET)
export SWEEP AGENTS BUDGET

# A venv whose Python does not start, for example after an upgrade of the system's, is made anew.
ifneq ($(shell $(PYTHON) -c 'print(1)' 2>/dev/null),1)
$(shell rm -f $(READY))
endif

# Without bytecode, every import of torch takes several times longer.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test check lint types format sweep data agents analysis notebook publish report simulate gc bench \
  chaos audit fuzz lock lock-bench clean

help:  ## list the targets
	@awk -F ':.*## |^##@ ' '/^##@ / {printf "\n%s:\n", $$2} /^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ start

setup: $(READY)  ## make the environment in .venv/ (Python 3.11 to 3.13)

# Make the venv anew when its Python is gone; synchronise it when the lock has changed.
$(READY): requirements.lock scripts/find-python.sh
	@set -e; \
	if ! $(PYTHON) -m pip --version >/dev/null 2>&1; then \
	  python="$$(bash scripts/find-python.sh)"; \
	  echo "making $(VENV)/ with $$python"; \
	  "$$python" -m venv --clear $(VENV); \
	fi; \
	if ! $(VENV)/bin/uv --version >/dev/null 2>&1; then \
	  $(PYTHON) -m pip install --quiet --disable-pip-version-check uv; \
	fi; \
	echo "installing the locked packages (several GB on Linux, mostly for GPUs)"; \
	$(VENV)/bin/uv pip sync --quiet --require-hashes --python $(PYTHON) requirements.lock
	@touch $@

demo: $(READY)  ## a real sweep of every strategy on drawn images, with its report: about 5 minutes on 2 cores
	@$(PYTHON) agent.py sweeps/demo.yaml --race --agents 2; code=$$?; \
	if [ $$code -gt 1 ]; then exit $$code; fi; \
	$(PYTHON) -m analysis runs/demo && exit $$code

##@ sweeps

data: $(READY)  ## download the images and weights of a sweep: SWEEP=file.yaml
	@$(PYTHON) agent.py $${SWEEP:+"$$SWEEP"} --fetch $(ARGS)

# Without SWEEP: the newest unfinished sweep, on the W&B server if you are logged in, else here.
agents: $(READY)  ## run or continue a sweep: SWEEP=file.yaml, runs/name or W&B id (default: newest), AGENTS=n
	@$(PYTHON) agent.py $${SWEEP:+"$$SWEEP"} $${AGENTS:+--agents "$$AGENTS"} $(ARGS)

analysis: $(READY)  ## compare its runs, write reports/name/: SWEEP=runs/name or W&B id (default: newest)
	@$(PYTHON) -m analysis $${SWEEP:+"$$SWEEP"} $(ARGS)

##@ W&B

# Errors and secrets in the file are reported here: on the server an error would end run after run, and a secret stay.
sweep: $(READY)  ## check a sweep file and create its sweep on W&B: SWEEP=file.yaml (default: strategies.yaml)
	@test -f "$${SWEEP:-sweeps/strategies.yaml}" || { echo "$$SWEEP: no such sweep file. Available: $$(echo sweeps/*.yaml)" >&2; exit 2; }
	@$(PYTHON) agent.py "$${SWEEP:-sweeps/strategies.yaml}" --check
	@$(PYTHON) -m wandb sweep "$${SWEEP:-sweeps/strategies.yaml}"

publish: $(READY)  ## send what W&B has not got of an offline sweep: SWEEP=runs/name
	@$(PYTHON) -m finetune.publish $${SWEEP:+"$$SWEEP"} $(ARGS)

report: $(READY)  ## write the comparison as a W&B Report: SWEEP=runs/name or W&B id
	@$(PYTHON) -m analysis.wandb_report $${SWEEP:+"$$SWEEP"} $(ARGS)

##@ more

notebook: $(READY)  ## run notebooks/trials.ipynb on drawn images: ARGS="NAME=VALUE ..." changes its settings
	@$(PYTHON) -m notebooks.execute $(ARGS)

gc: $(READY)  ## free disk space: BUDGET=10GB (default: only useless files), ARGS=--dry-run to preview
	@$(PYTHON) -m finetune.gc $${BUDGET:+--budget "$$BUDGET"} $(ARGS)

##@ tests and checks

# One process more than cores, as tests with a server mostly wait. Each runs complete test files, and the longest files
# come first (tests/conftest.py).
PARALLEL := --numprocesses $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1))) --maxprocesses 4 \
  --dist loadfile --no-loadscope-reorder

test: $(READY)  ## the quick tests (no network, account or GPU needed)
	@$(PYTHON) -m pytest $(PARALLEL) -m "not slow" $(ARGS)

check: lint types  ## all checks: format, lint, types, quick and slow tests
	@$(PYTHON) -m pytest $(PARALLEL) $(ARGS)

lint: $(READY)  ## check format and lint, without changing anything
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .

types: $(READY)  ## the type check
	@$(VENV)/bin/mypy

format: $(READY)  ## format the code
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

fuzz: $(READY)  ## 2,000 random inputs for each parser: about 2 minutes
	@$(PYTHON) -m pytest --hypothesis-profile=thorough tests/finetune/test_fuzz.py tests/finetune/system/test_hostile_output.py $(ARGS)

chaos: $(READY)  ## kill and damage runs, count what is lost: 15 minutes; ARGS="--kills 20 --scale 0.1"
	@$(PYTHON) -m chaos $(ARGS)

simulate: $(READY)  ## simulate sweeps: how often the verdict errs, what it detects: 20 minutes
	@$(PYTHON) -m analysis.simulate $(ARGS)

# The peers of the benchmark have a venv of their own, with the same torch.
$(BENCH_READY): requirements-bench.lock | $(READY)
	@set -e; \
	if ! $(BENCH)/bin/python -c 'print(1)' >/dev/null 2>&1; then \
	  $(VENV)/bin/uv venv --quiet --clear --python $(PYTHON) $(BENCH); \
	fi; \
	echo "installing the locked packages into $(BENCH)/"; \
	$(VENV)/bin/uv pip sync --quiet --require-hashes --python $(BENCH)/bin/python requirements-bench.lock
	@touch $@

bench: $(BENCH_READY)  ## speed beside a plain loop, timm, fastai and Lightning: 15 minutes; ARGS=--full takes hours
	@$(BENCH)/bin/python -m benchmarks $(ARGS)

audit: $(READY)  ## look up known vulnerabilities of the locked packages
	@$(PYTHON) scripts/audit.py

##@ maintenance

lock: $(READY)  ## pin the newest versions that pyproject.toml allows, with hashes
	@$(VENV)/bin/uv pip compile pyproject.toml --extra dev --extra export --extra notebook --extra timm --universal --python-version 3.11 --upgrade \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet --output-file requirements.lock >/dev/null

lock-bench: $(READY)
	@$(VENV)/bin/uv pip compile pyproject.toml --extra dev --extra export --extra notebook --extra timm --extra bench --universal --python-version 3.11 --upgrade \
	  --constraint requirements.lock --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet \
	  --output-file requirements-bench.lock >/dev/null

clean:  ## delete environments and the caches of tools; runs/ and reports/ stay
	rm -rf $(VENV) $(BENCH) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
