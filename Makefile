# `make run` and `make test` are all the set-up there is: both create .venv where it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
WORKERS ?= 3
# Which torch: cpu, index, own, or a requirement of pip's; scripts/install.py says what each is.
TORCH ?=

.PHONY: run test check lint cluster gpu venv wheel format docs constraints clean force

run: $(VENV)/.installed
	$(BIN)/kbopt run $(ARGS)

# Tests that time kernels run one after the other, with the machine to themselves; ARGS chooses tests. Most of the
# others wait for processes that they started, so one worker more than two cores keeps the cores busy.
test: $(VENV)/.installed-dev
ifeq ($(ARGS),)
	@$(BIN)/python scripts/test.py $(WORKERS)
else
	$(BIN)/pytest $(ARGS)
endif

# Several machines on this one, in namespaces: also the faults for which `make test` has no time.
cluster: $(VENV)/.installed-dev
	$(BIN)/pytest -q --durations=0 -m cluster tests/cluster $(ARGS)

check: lint
	$(BIN)/pytest -q -m "not gpu and not slow" tests/core tests/store tests/tasks

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check --quiet . || { echo "run 'make format'"; exit 1; }
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir $(VENV)/site

# On a machine with a GPU and its own python3, torch, Triton and nvcc: nothing is installed.
gpu:
	$(PYTHON) -m pytest -m gpu tests/evaluation tests/adversarial $(ARGS)

venv: $(VENV)/.installed-dev

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

$(VENV)/.installed: pyproject.toml constraints.txt $(if $(TORCH),force)
	@$(PYTHON) scripts/install.py $(VENV) all "$(TORCH)"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PYTHON) scripts/install.py $(VENV) all,test,dev "$(TORCH)"
	@touch $@

wheel: $(VENV)/.installed
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

constraints: $(VENV)/.installed-dev
	@{ head -1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -v '^nvidia'; } > constraints.new
	@mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis site dist
