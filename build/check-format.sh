#!/usr/bin/env bash
# Checks the formatting of Rust and Python; `make format` fixes it.
set -euo pipefail
cd "$(dirname "$0")/.."

build/lint-tools.sh

build/with-rust.sh cargo fmt --all --check
build/with-rust.sh cargo fmt --manifest-path fuzz/Cargo.toml --check
.toolchain/lint/bin/ruff format --check .
