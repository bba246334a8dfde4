# `make demo` and `make test` are all a person types. Every target first makes .venv and installs what is
# missing; when nothing is, that takes a fraction of a second.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint docs format benchmark

BIN := .venv/bin
ARGS ?=

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## make .venv and install what is missing
	@sh scripts/setup.sh

demo: setup ## train, evaluate and replay a tracking policy from nothing
	@$(BIN)/robot-attn demo $(ARGS)

test: ## run the whole test suite
	@sh scripts/setup.sh tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

lint: setup ## check style, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# Strictly: a dead link, an anchor that is not there or a name that no entry documents is an error. No network.
docs: setup ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs --quiet build --strict $(ARGS)

format: setup ## rewrite the code in the checked format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

benchmark: setup ## measure rendering, tasks, training, attention and the families against their peers
	@$(BIN)/robot-attn benchmark render $(ARGS)
	@$(BIN)/robot-attn benchmark envs $(ARGS)
	@$(BIN)/robot-attn benchmark train $(ARGS)
	@$(BIN)/robot-attn benchmark extractor $(ARGS)
	@$(BIN)/robot-attn benchmark attention $(ARGS)
	@$(BIN)/robot-attn benchmark pointing $(ARGS)
	@$(BIN)/robot-attn benchmark overlay $(ARGS)
	@$(BIN)/robot-attn benchmark watch $(ARGS)
