# Every target sets up what it needs: `make eval` or `make test` is all a fresh clone takes.
.PHONY: help setup eval test check format lint types doctor clean FORCE

READY := .venv/.ready
TEST_PROCESSES := 2
# A tree that was moved or copied is set up again: the scripts in .venv hold absolute paths.
STALE := $(if $(filter $(CURDIR),$(shell cat $(READY) 2>/dev/null)),,FORCE)

help:
	@echo "make eval    score the shipped policy on the main task   (options: make eval ARGS='episodes=4 video=false')"
	@echo "make test    run the tests                               (options: make test ARGS='-k wire')"
	@echo "make check   what CI runs: format, lint, types, tests"
	@echo "make format  rewrite the code as 'make check' wants it"
	@echo "make doctor  say what this machine has and what is wrong with it"
	@echo "make setup   only the set-up: .venv, torch, GL libraries"

setup: $(READY)

$(READY): pyproject.toml .ci/setup.sh $(STALE)
	@bash .ci/setup.sh
	@echo "$(CURDIR)" > $@

eval: setup
	@.venv/bin/cadence-eval 'tasks=[widowx_spoon_on_towel]' $(ARGS)

test: setup
	.venv/bin/pytest -n $(TEST_PROCESSES) --dist loadfile $(ARGS)

check: lint types test

lint: setup
	.venv/bin/ruff format --check
	.venv/bin/ruff check

types: setup
	.venv/bin/pyright

format: setup
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

doctor: setup
	@.venv/bin/cadence-doctor

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
