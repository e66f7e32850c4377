# Every target does its own set-up in .venv; a machine with python3 and make is enough.

# In CI a test that is skipped is a test that failed: everything that tests need is there.
no_skips := $(if $(CI),-p tests.no_skips)

# Tests wait for servers much of their time, so one process more than there are processors. The tests of a
# file stay together, in the order that tests/conftest.py gives them. ARGS=-n0 is everything in one process.
processes := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
parallel := --numprocesses $(processes) --dist loadfile --no-loadscope-reorder

.PHONY: help run test lint format bench bench-burst bench-edge bench-guarantees bench-restart chaos dist lock clean runtime dev

help:
	@echo 'make run     start the gateway with the orders example: http://127.0.0.1:8080/'
	@echo 'make test    run the tests             (ARGS="-k name" picks some)'
	@echo 'make lint    check style and types'
	@echo 'make format  put the code into the one style'
	@echo 'make bench   measure the fan-out       (needs a C compiler)'
	@echo 'make bench-burst                       what a burst from one address does to others'
	@echo 'make bench-edge                        what authentication and limits cost a command'
	@echo 'make bench-guarantees                  what each guarantee costs'
	@echo 'make bench-restart                     10,000 connections through restarts'
	@echo 'make chaos   ten minutes of faults     (ARGS="--seed 7 --minutes 2")'
	@echo 'make dev     set .venv up with all that the tests need'
	@echo 'make dist    build wheel and sdist in dist/'
	@echo 'make lock    write .ci/lock/ anew      (ARGS=--upgrade takes the newest versions)'
	@echo 'make clean   remove .venv and what tools leave behind; keeps .gateway, the data'

run: runtime
	@exec .venv/bin/gateway run $(ARGS)

test: dev
	.venv/bin/python -m pytest $(no_skips) $(parallel) $(ARGS)

lint: dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: dev
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: runtime
	.venv/bin/python benchmarks/fanout.py $(ARGS)

bench-burst: runtime
	.venv/bin/python -m benchmarks.burst $(ARGS)

bench-edge: runtime
	.venv/bin/python -m benchmarks.edge $(ARGS)

bench-guarantees: runtime
	.venv/bin/python -m benchmarks.guarantees $(ARGS)

bench-restart: runtime
	.venv/bin/python -m benchmarks.restart $(ARGS)

chaos: dev
	.venv/bin/python -m tests.e2e.chaos --write docs/chaos.md $(ARGS)

dist: dev
	.venv/bin/hatchling build

lock: runtime
	@sh .ci/update-lock $(ARGS)

clean:
	rm -rf .venv build dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

runtime dev:
	@sh .ci/setup $@
