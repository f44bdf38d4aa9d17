# make train   the main job: LeNet-5 on real handwritten digits (no download of data)
# make test    the tests
# Both make an environment in .venv first. `make help` lists the rest.

VENV ?= .venv
LOCK ?= requirements.lock
PYTHON_VERSION ?= >=3.11,<3.14
BIN := $(VENV)/bin
UV := $(or $(shell command -v uv 2>/dev/null),.tools/bin/uv)
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install train test test-slow test-oldest test-newest lint lock bench plan notebooks docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed  ## make the environment

.tools/bin/uv:
	@echo "uv is not installed: getting it into .tools"
	@python3 -m venv .tools
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.installed: $(LOCK) pyproject.toml | $(filter .tools/%,$(UV))
	@echo "making the environment in $(VENV)"
	@$(UV) venv --quiet --clear --python '$(PYTHON_VERSION)' $(VENV)
	@VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --require-hashes -r $(LOCK)
	@VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --no-deps -e .
	@touch $@

train: install  ## train LeNet-5 on handwritten digits; ARGS="--config=... " for anything else
	@$(BIN)/python train.py $(ARGS)

test: install  ## run the tests (minutes)
	@$(BIN)/python -m pytest -q -n $(WORKERS) $(ARGS)

test-slow: install  ## run the long tests as well
	@$(BIN)/python -m pytest -q -n $(WORKERS) -m "slow or not slow" $(ARGS)

test-oldest:  ## run the tests with the oldest versions that are supported
	@$(MAKE) --no-print-directory test VENV=.venv-oldest LOCK=requirements-oldest.lock PYTHON_VERSION=3.11

# A few tests of every package; the depths of networks and NaNs in compiled steps depend on versions.
SHORT := analysis/test_compare data/test_catalog data/test_crops data/readers/test_folders \
  evaluation/test_ensembles metrics/test_metrics models/test_lenet ops/test_conv_winograd \
  ops/test_dispatch reporting/test_console runtime/test_compilation_cache test_faces test_imports \
  test_layers training/test_checkpoints training/test_members training/test_nonfinite \
  training/test_optimizers training/test_workdir weights/test_files weights/test_layout

test-newest:  ## run some tests of every package with Python 3.13
	@$(MAKE) --no-print-directory test VENV=.venv-newest PYTHON_VERSION=3.13 \
	  ARGS="$(SHORT:%=tests/%.py) $(ARGS)"

lint: install  ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# Their figures go to .cache, those of benchmarks/README.md stay. TORCH=python compares with PyTorch.
bench: export BENCH_RESULTS = $(CURDIR)/.cache/benchmarks
bench: install  ## short forms of the benchmarks (minutes); see benchmarks/
	@$(BIN)/python benchmarks/training_cpu.py --rounds 2 --seconds 0.2
	@$(BIN)/python benchmarks/grouped_conv.py --rounds 1
	@$(BIN)/python benchmarks/forms.py --rounds 2 --seconds 0.1
	@$(BIN)/python benchmarks/members.py --models lenet5 --steps 2 --rounds 2
	@$(BIN)/python benchmarks/startup.py --models lenet5 --runs 1
	@$(BIN)/python benchmarks/small_sets.py --runs 1 --save
	@$(BIN)/python benchmarks/input_pipeline.py --rounds 2 --seconds 0.5 --save
	@$(BIN)/python benchmarks/gpu.py --smoke
	@if [ -n "$(TORCH)" ]; then $(BIN)/python benchmarks/against_torch.py --quick --torch-python $(TORCH); fi
	@$(BIN)/python benchmarks/tables.py --print

# libtpu goes into an environment of its own: it is large, and JAX would look for a TPU.
PLAN_VENV := .venv-plan

$(PLAN_VENV)/.installed: $(LOCK) pyproject.toml | $(filter .tools/%,$(UV))
	@echo "making the environment in $(PLAN_VENV)"
	@$(UV) venv --quiet --clear --python '$(PYTHON_VERSION)' $(PLAN_VENV)
	@VIRTUAL_ENV=$(PLAN_VENV) $(UV) pip install --quiet --require-hashes -r $(LOCK)
	@VIRTUAL_ENV=$(PLAN_VENV) $(UV) pip install --quiet -e '.[tpu]'
	@touch $@

plan: $(PLAN_VENV)/.installed  ## compile three networks for four TPU chips that are not there (minutes)
	@$(PLAN_VENV)/bin/jaxcnn plan lenet_digits --on v5e:2x2
	@$(PLAN_VENV)/bin/jaxcnn plan cifar_resnet train.bn_sync=local --on v5e:2x2
	@$(PLAN_VENV)/bin/jaxcnn plan resnet_imagenet model.dtype=bfloat16 train.batch_size=512 \
	  train.bn_sync=local --on v5e:2x2

notebooks: install  ## run the notebooks (minutes each); ARGS="--fast 01" for a quick one
	@$(BIN)/python notebooks/execute.py $(ARGS)

# Executes the notebooks whose code has changed. ARGS="-D nb_execution_mode=off" leaves out outputs.
docs: install  ## build the site into docs/_build
	@$(BIN)/python -m sphinx -W --keep-going -q $(ARGS) -b html docs docs/_build
	@$(BIN)/python docs/check_links.py docs/_build
	@echo "docs/_build/index.html"

lock: | $(filter .tools/%,$(UV))  ## update the versions of the dependencies
	@$(UV) pip compile pyproject.toml --extra test --extra docs --universal --python-version 3.11 --upgrade \
	  --generate-hashes --no-emit-index-url --no-header --quiet -o requirements.lock
	@$(UV) pip compile pyproject.toml --extra test --extra docs --resolution lowest-direct --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --quiet -o requirements-oldest.lock

clean:  ## remove environments and caches
	@rm -rf .venv .venv-oldest .venv-newest .venv-plan .tools .cache .pytest_cache .mypy_cache .ruff_cache dist build
