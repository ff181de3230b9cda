# `make` prints what can be made. Everything that a target needs, it gets: system packages with apt-get, the rest under
# .toolchain, .venv and target. V=1 shows all output; without, it is in target/logs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help requirements build check test test-matrix test-clients test-install nightly fuzz demo smoke-aws compose image bench soak lint format clean

# Root's chroot and debootstrap, should the PATH lack them.
export PATH := $(PATH):/usr/sbin

FILTER := target/wasm/wasm32-unknown-unknown/filter/sigv4_filter.wasm
REFRESHER := target/release/credential-refresher
CARGO := build/with-rust.sh cargo
# Of cargo's tests: a dot for each, and its output if it fails.
NATIVE_TESTS := $(CARGO) test --locked --workspace --all-features $(if $(filter-out 0,$(V)),,-- --quiet)

help: ## Print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

requirements: ## Check what building and testing need, and install what is missing; every target does this first
	@build/requirements.sh

build: requirements ## Build dist/sigv4_filter.wasm and dist/credential-refresher
	@build/step.sh 'compile the filter' build/cargo-wasm.sh build --locked --profile filter --package sigv4-filter
	@build/step.sh 'compile the refresher' $(CARGO) build --locked --release --package credential-refresher
	@build/step.sh 'optimize the filter' build/optimize-wasm.sh $(FILTER) target/wasm/sigv4_filter.wasm
	@build/check_wasm.py target/wasm/sigv4_filter.wasm
	@# Each file gets its name only when it is complete.
	@install -D -m 644 target/wasm/sigv4_filter.wasm dist/.partial && mv dist/.partial dist/sigv4_filter.wasm
	@install -D -m 755 $(REFRESHER) dist/.partial && mv dist/.partial dist/credential-refresher

check: requirements ## Check formatting and run the native tests: before each commit, two minutes once built
	@build/step.sh 'check formatting' build/check-format.sh
	@build/step.sh 'compile the native tests' $(CARGO) test --locked --workspace --all-features --no-run
	@build/step.sh --tests 'native tests' $(NATIVE_TESTS)

test: build ## Run all tests: unit, property, and integration in a real Envoy: before each push
	@build/step.sh 'compile the native tests' $(CARGO) test --locked --workspace --all-features --no-run
	@build/step.sh --tests 'native tests' $(NATIVE_TESTS)
	@build/step.sh 'install the Python packages' integration/setup.sh
	@build/step.sh 'build s3s-fs' integration/setup-s3s-fs.sh
	@build/step.sh --tests 'integration tests' .venv/bin/python -m pytest integration

test-matrix: build ## Run the integration tests against Envoy 1.36 to 1.40, one after another
	@build/step.sh 'install the Python packages' integration/setup.sh
	.venv/bin/python -m integration.matrix $(ENVOY_RELEASES)

test-clients: build ## Run the nightly tests: the clients of docs/clients.md that are too large to install for each change
	@build/requirements.sh clients
	@build/step.sh 'install the Python packages' integration/setup.sh
	@build/step.sh 'install the clients' integration/setup.sh clients
	@build/step.sh --tests 'clients' .venv/bin/python -m pytest integration -m nightly

test-install: ## Run make demo and make test on a bare Debian 12, as root and as a user with sudo: needs root, takes hours
	python3 -m integration.install

nightly: ## Run what is too slow for each change: test-matrix, test-clients, long fuzz and soak, test-install
	$(MAKE) test-matrix
	$(MAKE) test-clients
	$(MAKE) fuzz FUZZ_SECONDS=600
	$(MAKE) soak SOAK_REQUESTS=1000000 SOAK_SECONDS=300
	$(MAKE) test-install

fuzz: build ## Look for inputs that break the filter's promises, FUZZ_SECONDS (60) for each target, natively and in wasm
	@build/requirements.sh c++
	@build/step.sh 'install the Python packages' integration/setup.sh
	build/fuzz.sh

demo: build ## Sign requests through a real Envoy (KEEP=1 leaves it running to play with)
	@build/step.sh 'install the Python packages' integration/setup.sh
	@envoy/demo/run.sh

smoke-aws: build ## Send read-only calls to the real AWS, with your own credentials: STS, S3 and DynamoDB
	@build/step.sh 'install the Python packages' integration/setup.sh
	@.venv/bin/python -m integration.smoke_aws

compose: build ## Bring envoy/docker-compose.yaml up, pulling nothing, check it, take it down (KEEP=1 leaves it up and says how to use it)
	@build/step.sh 'install the Python packages' integration/setup.sh
	integration/compose/run.sh

image: build ## Make OCI images of filter and refresher under dist/, with bills of materials and licenses
	build/bill_of_materials.py
	build/image.py

bench: build ## Measure what signing costs, against Envoy's native signer and others (PARTS="latency sdk": only these)
	@build/requirements.sh load
	@build/step.sh 'compile the empty filter' build/cargo-wasm.sh build --locked --profile filter --package empty-filter
	@build/step.sh 'compile SHA-256 for wasm' build/cargo-wasm.sh build --locked --profile filter --lib \
		--package sha256-bench
	@RUSTFLAGS='--cfg sha2_backend="soft"' build/step.sh 'compile SHA-256' $(CARGO) build --locked --release \
		--bin sha256-native --package sha256-bench --target-dir target/bench/native
	@mkdir -p target/bench/sha256
	@cp target/wasm/wasm32-unknown-unknown/filter/sha256_filter.wasm target/bench/native/release/sha256-native \
		target/bench/sha256/
	@build/step.sh 'install the Python packages' integration/setup.sh
	.venv/bin/python -m integration.bench $(PARTS)

soak: build ## Rotate credentials each second under load, and kill and reload things: no request may be lost
	@build/step.sh 'compile the load and its upstream' $(CARGO) build --locked --package soak
	@build/step.sh 'install the Python packages' integration/setup.sh
	.venv/bin/python -m integration.soak

lint: requirements ## Check formatting, lints and dependencies
	build/lint.sh

format: requirements ## Format the Rust and the Python
	build/lint-tools.sh
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml
	.toolchain/lint/bin/ruff format .

clean: ## Remove what was built (not the tools under .toolchain and .venv)
	rm -rf dist target fuzz/target
