#!/usr/bin/env bash
# Installs the linters of build/lint-requirements.txt into .toolchain/lint, and Rust's own, if they are not there yet.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly venv=.toolchain/lint requirements=build/lint-requirements.txt

# rustup's minimal profile lacks these two; the Debian Rust has them.
if ! build/with-rust.sh cargo fmt --version >/dev/null 2>&1 || ! build/with-rust.sh cargo clippy --version >/dev/null 2>&1; then
    rustup component add rustfmt clippy
fi

# The copy is written last, so it exists only next to a complete installation of these versions.
if cmp --silent "$requirements" "$venv/installed.txt"; then
    exit 0
fi
echo "lint-tools: installing into $venv" >&2
python3 -m venv --clear "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --requirement "$requirements"
cp "$requirements" "$venv/installed.txt"
