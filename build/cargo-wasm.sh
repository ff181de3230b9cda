#!/usr/bin/env bash
# Runs cargo for wasm32-unknown-unknown with the Rust that build/rust-toolchain.sh provides:
#
#   build/cargo-wasm.sh build --locked --profile filter --package sigv4-filter
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

# The filter's compiler flags, all of them. The remappings keep this machine's paths out of the file, so that two
# machines with the same toolchain make the same bytes.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
rustflags=(
    # For SHA-256, which takes a quarter less time with it. Every V8 that Envoy was built with has it.
    "-Ctarget-feature=+simd128"
    "--remap-path-prefix=$root=."
    "--remap-path-prefix=$root/.toolchain/rustc-web/usr/src=/rustc"
    # Cargo names the sources below the project by their path from it.
    "--remap-path-prefix=.toolchain/rustc-web/usr/lib/rustlib/src=/rustc"
    "--remap-path-prefix=$cargo_home/registry/src=/registry"
)

toolchain=$(build/rust-toolchain.sh)
readonly subcommand=${1:?which cargo subcommand?}
shift
export CARGO_TARGET_DIR=$root/target/wasm
export CARGO_BUILD_TARGET=wasm32-unknown-unknown
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && echo "${rustflags[*]}")
export CARGO_ENCODED_RUSTFLAGS

build_std=()
if [[ $toolchain == debian ]]; then
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-22
    # Debian compiles no standard library for this target, and compiling it along is a nightly cargo's option.
    export RUSTC_BOOTSTRAP=1
    build_std=("-Zbuild-std=std,panic_abort")
fi
exec build/with-rust.sh cargo "$subcommand" "${build_std[@]}" "$@"
