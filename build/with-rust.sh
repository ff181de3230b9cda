#!/usr/bin/env bash
# Runs a command with the Rust that build/rust-toolchain.sh provides:
#
#   build/with-rust.sh cargo test --locked
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

toolchain=$("$root/build/rust-toolchain.sh")
if [[ $toolchain == debian ]]; then
    prefix=$root/.toolchain/rustc-web/usr
    unset RUSTC RUSTDOC RUSTFMT
    export PATH="$prefix/bin:$PATH"
    libraries=("$prefix"/lib/*-linux-gnu)
    export LD_LIBRARY_PATH="${libraries[0]}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
exec "$@"
