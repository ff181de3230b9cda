#!/usr/bin/env bash
# Runs all fuzz targets, or the named ones, for FUZZ_SECONDS (60) each, on their earlier findings and on fuzz/seeds:
#
#   FUZZ_SECONDS=600 build/fuzz.sh path policy
#
# An input that breaks a property is kept in fuzz/artifacts, and the command to run it again is printed. After the fix,
# move the input to fuzz/seeds. A target's findings are then fed to the compiled filter, dist/sigv4_filter.wasm, for at
# most as long: on wasm32 other code panics.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly version=0.13.2 root=$PWD/.toolchain/cargo-fuzz seconds=${FUZZ_SECONDS:-60}

if ! "$root/bin/cargo-fuzz" --version 2>/dev/null | grep --quiet --fixed-strings "$version"; then
    echo "fuzz: installing cargo-fuzz $version into .toolchain" >&2
    build/with-rust.sh cargo install cargo-fuzz --version "$version" --locked --quiet --root "$root"
fi
PATH="$root/bin:$PATH"
fuzz() { build/with-rust.sh cargo fuzz "$@"; }

# Without a sanitizer, stable Rust is enough: outside of src/filter, which is not compiled here, all code is safe.
readonly options=(--sanitizer none)

targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(fuzz list)
((${#targets[@]})) || { echo "fuzz: no targets found" >&2; exit 1; }
fuzz build "${options[@]}"
for target in "${targets[@]}"; do
    echo "fuzz: $target for $seconds s"
    mkdir -p "fuzz/corpus/$target"
    fuzz run "${options[@]}" "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -max_len=4096 -verbosity=0 -print_final_stats=1
    .venv/bin/python -m integration.fuzz_wasm "$target" "$seconds"
done
