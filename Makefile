# The one entry: CI and people call these targets and nothing else. Each does all of its own set-up on a machine
# that has the Rust toolchain, Python 3.10 or newer, gcc and make.

PYTHON ?= python3
VENV := .venv
TOOLS := .tools/.venv
SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help run test test-rust test-python test-cpython crash model fuzz lint format docs bench clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

run: ## build, install into .venv, run the example
	@$(PYTHON) tools/environment.py
	@$(VENV)/bin/python examples/build_script.py

test: ## every test, Rust and Python; as root also a second time as an ordinary user
	@$(PYTHON) tools/test.py

test-rust: ## the Rust tests, as who you are
	@$(PYTHON) tools/test.py --only rust --as-is

test-python: ## the Python tests, as who you are
	@$(PYTHON) tools/test.py --only python --as-is

test-cpython: ## modules of CPython's own test suite inside a committing transaction, and outside
	@$(PYTHON) tools/environment.py
	@$(VENV)/bin/python tests/cpython/run.py

crash: ## kill the processes at every step; more rounds than `make test`
	@$(PYTHON) tools/test.py --only crash --as-is

model: ## random programs in and outside transactions; more rounds than `make test`
	@$(PYTHON) tools/test.py --only model --as-is

fuzz: ## look for inputs that break what we parse and print, SECONDS=60 for each fuzzer
	@$(PYTHON) tools/fuzz.py --seconds $(SECONDS)

lint: ## formatting, clippy, ruff, mypy, and the house rules
	@$(PYTHON) tools/lint.py

format: ## reformat Rust and Python
	@cargo fmt --all
	@cargo fmt --manifest-path fuzz/Cargo.toml
	@$(PYTHON) tools/environment.py --tools-only
	@$(TOOLS)/bin/ruff format -q .

docs: ## the Rust documentation in target/doc
	@RUSTDOCFLAGS="-D warnings" cargo doc -q --workspace --no-deps --document-private-items

bench: ## ratios against fork, bubblewrap and a bare overlay mount
	@$(PYTHON) tools/bench.py

clean: ## remove everything that was built
	@rm -rf target fuzz/target $(VENV) .tools
