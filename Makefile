# Every target makes the environment (.venv) if it is missing, and again when pyproject.toml changed.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first Python that will do; TensorFlow has no build for a newer one than 3.13.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11, 4) <= sys.version_info[:3] < (3, 14))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
DEMO := data/demo
CORPUS ?= $(DEMO)
SHARDS ?= data/shards
BUILD ?=
FIT ?=
# Three processes, as some tests wait; a file of tests stays in one of them, and tests/conftest.py orders the files.
PROCESSES := -n 3 --dist loadfile --no-loadscope-reorder
CHANGED = $(shell { git diff --name-only HEAD; git ls-files --others --exclude-standard; } | cut -d / -f 2 | sort -u)
COMMITTED = $(shell git show --name-only --format= HEAD | cut -d / -f 2 | sort -u)
ROOM ?= $(or $(call rooms,$(CHANGED)),$(call rooms,$(COMMITTED)),tests/package)
rooms = $(sort $(foreach name,$(1) $(if $(filter %.py,$(1)),package),$(if $(wildcard tests/$(name)/test_*.py),tests/$(name))))
SOURCES := shardtrain tests tools docs
# What touches the system most; tests/package/test_systems.py, in `make test`, runs all commands so.
PORTABLE := tests/runtime tests/arrays tests/loader tests/shards/test_format.py tests/shards/test_compressed.py

.PHONY: help install shards fit inspect fmt lint type docs test test-fast test-portable soak faults faults-engines check bench bench-features bench-inputs bench-memory bench-reading bench-mixing bench-training bench-recipes bench-end-to-end bench-predicting bench-explaining bench-bundle bench-metrics bench-vectorizers bench-executors clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.development ## make the environment with everything for development

shards: .venv/.installed $(if $(filter $(DEMO),$(CORPUS)),$(DEMO)/train.csv) ## build shards of CORPUS=folder (the demo corpus) into SHARDS=data/shards; BUILD="--overwrite" adds options
	$(BIN)/python -m shardtrain build $(CORPUS) --out $(SHARDS) $(BUILD)

fit: $(SHARDS)/manifest.json ## train on SHARDS, building the demo's if there are none; FIT="--epochs 5" adds options
	$(if $(filter command,$(firstword $(origin CORPUS))),$(error make fit trains on $(SHARDS) and uses no CORPUS; build its shards first: make shards CORPUS=$(CORPUS) SHARDS=data/mine, make fit SHARDS=data/mine))
	$(BIN)/python -m shardtrain fit $(SHARDS) $(FIT)

inspect: $(SHARDS)/manifest.json ## show what is in SHARDS
	$(BIN)/python tools/inspect_shards.py $(SHARDS)

fmt: .venv/.development ## format the code
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

lint: .venv/.development ## check style, and which room imports which
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/lint-imports --no-logo

type: .venv/.development ## check types
	$(BIN)/mypy

docs: .venv/.documentation ## build the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

test: .venv/.development ## run the tests
	@tools/install_chromium.sh
	@tools/install_axe.sh
	$(BIN)/python -m pytest -m "not slow and not portable" $(PROCESSES)

test-fast: .venv/.development ## run the quick tests of ROOM=tests/loader, by default of the rooms that changed
	$(BIN)/python -m pytest -m "not (slow or heavy or portable)" $(PROCESSES) $(ROOM)

test-portable: .venv/.development ## run quick tests with the calls taken away that macOS does not have
	PYTHONPATH=$(CURDIR)/tests/support/macos $(BIN)/python -m pytest -m "not (slow or heavy)" $(PROCESSES) $(PORTABLE)
	$(BIN)/python -m pytest -m portable

soak: .venv/.development ## run the slow tests
	$(BIN)/python -m pytest -m slow --hypothesis-profile default

faults: .venv/.development ## fail the calls of commands and print the table; FAULTS="--every 20 build" for less
	$(BIN)/python tests/faults/table.py $(FAULTS)

faults-engines: .venv/.development ## kill workers, nodes and drivers of builds and print the table; FAULTS="--corpus data/ag_news" for others
	$(BIN)/python tests/faults/engines.py $(FAULTS)

check: lint type docs test test-portable ## everything that has to be green

bench: bench-features bench-inputs bench-memory bench-reading bench-mixing bench-training bench-recipes bench-end-to-end bench-predicting bench-explaining bench-bundle bench-metrics bench-vectorizers bench-executors ## run all benchmarks

bench-features: .venv/.development ## features against scikit-learn and Keras; BENCH="--synthetic-bytes 1GB" for more
	$(BIN)/python tools/bench/features.py $(BENCH)

bench-inputs: .venv/.development ## build from CSV, zst, JSON Lines and Parquet; BENCH="--synthetic-bytes 1GB" for more
	$(BIN)/python tools/bench/inputs.py $(BENCH)

bench-memory: .venv/.development ## peak memory of builds from hostile texts; BENCH="--limits 512MiB" for others
	$(BIN)/python tools/bench/memory.py $(BENCH)

bench-reading: .venv-bench/.installed ## reading against other loaders; BENCH="--rows 1000000 --cold" for more
	$(BIN)/python tools/bench/reading.py --environments .venv-bench $(BENCH)

bench-mixing: .venv/.development ## the default shuffle against permutations; BENCH="--corpus data/dbpedia" for more
	$(BIN)/python tools/bench/mixing.py $(BENCH)

bench-training: .venv/.development ## training against Keras, scikit-learn, fastText and others; BENCH="--part table --full" for more
	-$(BIN)/python -m pip install -qq --group bench-training
	$(BIN)/python tools/bench/training.py $(BENCH)

bench-recipes: .venv/.development ## accuracy of recipes and features; BENCH="--corpus data/ag_news" for more
	$(BIN)/python tools/bench/recipes.py $(BENCH)

bench-end-to-end: .venv/.development ## CSV to evaluated model against fastText and scikit-learn; BENCH="--corpus data/ag_news" for more
	$(BIN)/python -m pip install -qq --group bench-end-to-end
	$(BIN)/python tools/bench/end_to_end.py $(BENCH)

bench-predicting: .venv/.development ## speed and memory of predict on a file; BENCH="--synthetic-bytes 1GB" for more
	$(BIN)/python tools/bench/predicting.py $(BENCH)

bench-metrics: .venv/.development ## metrics against scikit-learn's, and their memory; BENCH="--corpus data/ag_news" for more
	$(BIN)/python tools/bench/metrics.py $(BENCH)

bench-vectorizers: .venv/.development ## shardtrain.sklearn against scikit-learn's vectorizers; BENCH="--bytes 500MB" for more
	$(BIN)/python tools/bench/vectorizers.py $(BENCH)

bench-explaining: .venv/.development .venv-bench/lime/.installed ## reasons against LIME; BENCH="--corpus data/ag_news" for others
	$(BIN)/python tools/bench/explaining.py --peers .venv-bench/lime/bin/python $(BENCH)

bench-executors: .venv/.development ## builds on processes, Dask and Ray; BENCH="--documents 300000" for more
	$(BIN)/python tools/bench/executors.py $(BENCH)

bench-bundle: .venv/.development ## exports of a run against fastText's quantised model; BENCH="--corpus data/ag_news" for others
	-$(BIN)/python -m pip install -qq --group bench-end-to-end
	$(BIN)/python tools/bench/bundle.py $(BENCH)

clean: ## remove the environment, caches and the demo corpus (never shards or runs)
	rm -rf .venv .venv-bench build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis $(DEMO)

$(DEMO)/train.csv: | .venv/.installed
	$(BIN)/python -m shardtrain demo --out $(DEMO)

$(SHARDS)/manifest.json: | .venv/.installed
	$(if $(filter command,$(firstword $(origin SHARDS))),$(error there are no shards in $(SHARDS); build them first: make shards CORPUS=folder SHARDS=$(SHARDS)))
	@$(MAKE) --no-print-directory shards

.venv/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 (3.11.4 or newer), 3.12 or 3.13 is needed; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --upgrade "pip>=25.1"
	$(BIN)/python -m pip install -qq --editable .
	$(BIN)/python -m compileall -q shardtrain  # also where PYTHONDONTWRITEBYTECODE is set: a tenth of a second per command
	@touch $@

.venv/.development: .venv/.installed
	$(BIN)/python -m pip install -qq --editable ".[completion,compress,onnx,parquet,tensorboard,tune]" --group dev
	@touch $@

.venv/.documentation: .venv/.development
	$(BIN)/python -m pip install -qq --group docs
	@touch $@

.venv-bench/lime/.installed: | .venv/.development
	$(PYTHON) -m venv .venv-bench/lime
	.venv-bench/lime/bin/python -m pip install -qq lime
	@touch $@

# uv, because these packages ask for old versions of each other's requirements and pip takes long to find out.
.venv-bench/.installed: pyproject.toml | .venv/.development
	$(PYTHON) -m venv .venv-bench/uv
	.venv-bench/uv/bin/python -m pip install -qq "uv>=0.5"
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["bench"], sep="\n")' | \
	while read -r peer; do \
		.venv-bench/uv/bin/uv venv -q --clear --python $(BIN)/python ".venv-bench/$${peer%%[>=]*}" && \
		.venv-bench/uv/bin/uv pip install -q --python ".venv-bench/$${peer%%[>=]*}" numpy anndata "$$peer" || \
		echo "not installed: $$peer" >&2; done
	@touch $@
