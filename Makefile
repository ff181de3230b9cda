# `make` prints what can be made. Everything that a target needs, it installs: system packages with apt-get, the rest
# under .toolchain, .venv and target.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build test test-matrix fuzz demo compose image bench soak lint format clean system-packages

help: ## Print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: system-packages ## Build dist/sigv4_filter.wasm and dist/credential-refresher
	build/cargo-wasm build --locked --release --lib
	cargo build --locked --release --bin credential-refresher
	mkdir -p dist
	build/optimize-wasm target/wasm/wasm32-unknown-unknown/release/sigv4_filter.wasm dist/sigv4_filter.wasm
	install -m 755 target/release/credential-refresher dist/
	build/check-wasm dist/sigv4_filter.wasm

test: build ## Run all tests: unit, property, and integration in a real Envoy
	cargo test --locked --workspace
	integration/setup
	integration/setup-s3s-fs
	.venv/bin/python -m pytest integration

test-matrix: build ## Run the integration tests against Envoy 1.36 to 1.40, one after another
	integration/setup
	.venv/bin/python integration/test-matrix $(ENVOY_RELEASES)

fuzz: build ## Look for inputs that break the filter's promises, FUZZ_SECONDS (60) for each target, natively and in wasm
	build/system-packages c++
	integration/setup
	build/fuzz

demo: build ## Sign requests through a real Envoy (KEEP=1 leaves it running to play with)
	envoy/demo/run

compose: build ## Bring envoy/docker-compose.yaml up, pulling nothing, check it, take it down (KEEP=1 leaves it up)
	integration/setup
	integration/compose/run

image: build ## Make OCI images of filter and refresher under dist/, with bills of materials and licenses
	build/bill-of-materials
	build/image

bench: build ## Measure what signing costs, against plain Envoy and its native signer
	build/system-packages wrk
	build/cargo-wasm build --locked --release --example empty_filter
	build/cargo-wasm build --locked --release --lib --manifest-path integration/bench/sha256/Cargo.toml
	RUSTFLAGS='--cfg sha2_backend="soft"' cargo build --locked --release --bin sha256-native \
		--manifest-path integration/bench/sha256/Cargo.toml --target-dir target/bench/native
	mkdir -p target/bench/sha256
	cp target/wasm/wasm32-unknown-unknown/release/sha256_filter.wasm target/bench/native/release/sha256-native \
		target/bench/sha256/
	integration/setup
	.venv/bin/python integration/bench/run

soak: build ## Rotate credentials each second under load, and kill and reload things: no request may be lost
	cargo build --locked --example soak_load --example soak_upstream
	integration/setup
	.venv/bin/python integration/soak/run

lint: system-packages ## Check formatting, lints and dependencies
	build/lint

format: system-packages ## Format the Rust and the Python
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml
	build/lint-tools
	.toolchain/lint/bin/ruff format .

clean: ## Remove what was built (not the tools under .toolchain and .venv)
	rm -rf dist target fuzz/target

system-packages:
	@build/system-packages
