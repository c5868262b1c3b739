# Two commands for everybody: `make demo` and `make test`. `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/sh

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.up-to-date

WORKLOAD ?= fleet
PROVIDER ?=
TRACE ?=
DEMO_SECONDS ?= 20

.PHONY: help
help: ## List what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## Make .venv with everything the demo and the tests need; does nothing when it is up to date
	@sh tools/install-brokers

$(STAMP): requirements.lock pyproject.toml
	@sh tools/make-venv $(PYTHON) $(VENV)
	@echo "installing the locked dependencies into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: demo
demo: setup ## 28 agents through a real RabbitMQ, a real Redis and real HTTP (WORKLOAD=trace, PROVIDER=groq)
	@$(BIN)/python -m sandbox.demo --workload $(WORKLOAD) --seconds $(DEMO_SECONDS) \
		$(if $(TRACE),--trace $(TRACE)) $(if $(PROVIDER),--provider $(PROVIDER))

.PHONY: test
test: setup ## All tests, against a real RabbitMQ and a real Redis; three processes, each with its own
	@$(BIN)/python -m pytest $(or $(ARGS),-n 3 --dist worksteal)

.PHONY: test-long
test-long: setup ## Brokers stopped, killed, cut off, filled and failing over, and workers rolled, under load (6 minutes)
	@$(BIN)/python -m pytest -m long $(or $(ARGS),-n 2 --dist loadfile)

.PHONY: test-matrix
test-matrix: setup ## The tests on this machine's RabbitMQ and Redis, then on Docker's; needs both
	@sh tools/test-matrix $(BIN)/python $(or $(ARGS),-n 3 --dist worksteal)

.PHONY: test-compose
test-compose: setup ## compose.yaml for real: build, three replicas, scaling, stopping; needs Docker
	@$(BIN)/python -m pytest tests/containers/acceptance.py $(ARGS)

.PHONY: test-cluster
test-cluster: setup ## A RabbitMQ cluster and Redis with Sentinel, nodes away in turn under load; needs Docker
	@$(BIN)/python -m pytest -s tests/containers/cluster.py tests/containers/sentinel.py $(ARGS)

.PHONY: fuzz
fuzz: setup ## Malformed messages of every kind to real workers; each must have one end (COUNT=100000 SEED=1)
	@$(BIN)/python -m tests.fuzz --count $(or $(COUNT),100000) --seed $(or $(SEED),1)

.PHONY: chaos
chaos: setup ## Workers die under load; every call and request is accounted for (KILLS=1000 SEED= FAULTS=all LEASE=real)
	@$(BIN)/python -m tests.chaos --kills $(or $(KILLS),1000) $(if $(SEED),--seed $(SEED)) \
		$(if $(FAULTS),--faults $(FAULTS)) $(if $(LEASE),--lease $(LEASE)) $(ARGS)

.PHONY: invoice
invoice: setup ## Mixed calls, faults and kills; each settled record equals the provider's invoice (CALLS=100000 SEED=)
	@$(BIN)/python -m tests.chaos.invoice --calls $(or $(CALLS),100000) $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: soak
soak: setup ## The same load for minutes; memory, connections, tasks, files and keys stay flat (MINUTES=10)
	@$(BIN)/python -m tests.chaos.soak --minutes $(or $(MINUTES),10) $(ARGS)

.PHONY: mutants
mutants: setup ## Takes one guard after the other out of the code; some test must then fail (ARGS="--only fence")
	@$(BIN)/python -m tests.mutants $(ARGS)

.PHONY: model
model: setup ## One flight searched exhaustively, on the real scripts (minutes; ARGS=--holes: the way into each hole)
	@$(BIN)/python -m tests.model $(or $(ARGS),--big)

.PHONY: bench
bench: setup ## Cache hits against a bare aio-pika RPC echo, in alternating rounds (ARGS="--rounds 9")
	@OPTIMIZER_BROKERS=$(or $(OPTIMIZER_BROKERS),private) $(BIN)/python -m benchmarks.rpc $(ARGS)

.PHONY: bench-goodput
bench-goodput: setup ## Who answers how many requests in time where quotas are scarce; 13 minutes (TRACE=file.csv; first: make litellm)
	@$(BIN)/python -m benchmarks.goodput $(if $(TRACE),--trace $(TRACE)) \
		$(if $(LITELLM_PYTHON),--litellm-python $(LITELLM_PYTHON)) $(ARGS)

# The last release before those of March 2026 that carried malware (github.com/BerriAI/litellm/issues/24512).
LITELLM ?= litellm==1.82.6
LITELLM_VENV := .litellm
LITELLM_PYTHON ?= $(wildcard $(LITELLM_VENV)/bin/python)

.PHONY: litellm
litellm: ## LiteLLM for bench-goodput, in an environment apart from ours (.litellm)
	@$(PYTHON) -m venv $(LITELLM_VENV)
	@$(LITELLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: $(LITELLM)

.PHONY: check
check: setup ## Format, lint, types, import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

.PHONY: format
format: setup ## Put the code into its form, and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: lock
lock: ## Compile requirements.lock anew from pyproject.toml (needs uv)
	@uv pip compile pyproject.toml --extra all --group dev --generate-hashes --no-emit-index-url --no-header \
		--universal --python-version 3.11 --upgrade --output-file requirements.lock

.PHONY: clean
clean: ## Remove .venv, caches and what the demo kept
	@rm -rf $(VENV) $(LITELLM_VENV) .optimizer .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
