# Everything here works on a clean Debian or Ubuntu machine with a Rust toolchain: what the
# build needs and is missing is installed first, and named before it is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# RocksDB compiles for a long time, so its objects are kept outside the checkout and shared by
# all checkouts (CONTRIBUTING.md, "Building").
export CARGO_TARGET_DIR := $(shell tools/target-dir)

# A virtual environment with redis-py, for the tests that drive a node with a real client, and with
# moto, to which they archive as to S3.
PYTHON_ENV := $(CARGO_TARGET_DIR)/../python
export QUORATE_PYTHON := $(PYTHON_ENV)/bin/python3

CARGO_FLAGS ?= --locked
ARGS ?=
# How long `make verify-long` simulates. Runs add up in ~/.cache/quorate/verify/ledger.jsonl.
HOURS ?= 2

.PHONY: help
help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: run
run: need-build ## Run a three-node cluster on this machine (Ctrl-C stops it)
	@cargo build --release $(CARGO_FLAGS) --workspace --bin quorate
	@exec "$(CARGO_TARGET_DIR)/release/quorate" dev $(ARGS)

.PHONY: test
test: need-build need-test lint check-rules ## Everything that CI checks: lint, then all tests
	cargo build --release $(CARGO_FLAGS) --workspace --bins
	cargo test --release $(CARGO_FLAGS) --workspace

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: lint
lint: need-build ## Formatting, clippy, and the purity of the protocol crate
	cargo fmt --all -- --check
	cargo clippy --release $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	tools/check-protocol-is-pure

.PHONY: check-rules
check-rules: ## Try every Prometheus alert on made-up series
	deploy/prometheus/check "$(CARGO_TARGET_DIR)/../promtool"

.PHONY: bench
bench: need-build need-test need-bench ## Compare with etcd and Redis on this machine
	cargo build --release $(CARGO_FLAGS) --workspace --bins
	"$(CARGO_TARGET_DIR)/release/bench" $(ARGS)

.PHONY: bench-backup
bench-backup: need-build need-test ## Measure backups and restores (QUORATE_BENCH_BACKUP_BYTES, 1 GiB)
	cargo build --release $(CARGO_FLAGS) --workspace --bins
	cargo test --release $(CARGO_FLAGS) --workspace --test cluster -- --ignored --nocapture \
		figures_of_backups

.PHONY: bench-nodes
bench-nodes: need-build need-test ## Measure joins and restarts (QUORATE_BENCH_BYTES, 1 GiB)
	cargo build --release $(CARGO_FLAGS) --workspace --bins
	cargo test --release $(CARGO_FLAGS) --workspace --test cluster -- --ignored --nocapture \
		figures_of_joins figures_of_restarts

.PHONY: verify-long
verify-long: need-build need-test ## The long forms of the tests of `make test`
	cargo build --release $(CARGO_FLAGS) --workspace --bins
	QUORATE_STEADY_MINUTES=10 cargo test --release $(CARGO_FLAGS) --package quorate-cluster-tests \
		--test cluster -- --nocapture no_election_happens
	QUORATE_BOUNDED_SECONDS=600 cargo test --release $(CARGO_FLAGS) --package quorate-cluster-tests \
		--test cluster -- --nocapture cost_no_memory
	QUORATE_S3_STRIDE=1 cargo test --release $(CARGO_FLAGS) --package quorate-cluster-tests \
		--test cluster -- --nocapture fails_at_any_request
	QUORATE_ATTRIBUTION_PAIRS=120 cargo test --release $(CARGO_FLAGS) --package quorate-cluster-tests \
		--test cluster -- --nocapture costs_next_to_nothing
	"$(CARGO_TARGET_DIR)/release/modelcheck"
	"$(CARGO_TARGET_DIR)/release/modelcheck" --mutants
	"$(CARGO_TARGET_DIR)/release/simulate" --mutants --seeds 5000
	"$(CARGO_TARGET_DIR)/release/simulate" --hours $(HOURS)
	PROPTEST_CASES=100000 cargo test --release $(CARGO_FLAGS) --package quorate-protocol --test hostile

.PHONY: check-deploy
check-deploy: need-build need-deploy ## Break a compose cluster, and a node under systemd
	deploy/docker/check
	deploy/systemd/check

.PHONY: clean-dev
clean-dev: ## Delete the cluster of `make run` and its data
	@if [ -x "$(CARGO_TARGET_DIR)/release/quorate" ] && [ -d dev-cluster ]; then \
		"$(CARGO_TARGET_DIR)/release/quorate" dev --stop --reset; \
	fi
	rm -rf dev-cluster

.PHONY: need-build need-test need-bench need-deploy
need-build:
	@tools/need build
need-test:
	@tools/need test
	@tools/need python "$(PYTHON_ENV)"
need-bench:
	@tools/need bench
need-deploy:
	@tools/need deploy
