#!/usr/bin/env bash
# Removes the exports that Envoy does not need from a compiled filter, and optimizes the rest with binaryen:
#
#   build/optimize-wasm.sh IN OUT
set -euo pipefail
cd "$(dirname "$0")/.."
readonly in=${1:?which .wasm?} out=${2:?where to?}

# A second run changes nothing.
[[ ! $out -nt $in || ! $out -nt build/optimize-wasm.sh ]] || exit 0

# The WebAssembly features that rustc uses as build/cargo-wasm.sh calls it. V8 has had them for years; binaryen needs
# the list.
features=(--enable-bulk-memory --enable-multivalue --enable-mutable-globals --enable-nontrapping-float-to-int
    --enable-reference-types --enable-sign-ext --enable-simd)

# The exports that Envoy calls. The linker exports more, and so keeps more code.
exports=(memory _initialize malloc proxy_abi_version_0_2_1 proxy_on_vm_start proxy_on_configure proxy_on_tick
    proxy_on_queue_ready proxy_on_context_create proxy_on_request_headers proxy_on_request_body
    proxy_on_request_trailers proxy_on_response_headers proxy_on_delete)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
{
    printf '['
    separator=
    for export in "${exports[@]}"; do
        printf '%s{"name": "%s", "root": true, "export": "%s"}' "$separator" "$export" "$export"
        separator=,
    done
    printf ']'
} >"$scratch/exports.json"

wasm-metadce "${features[@]}" --graph-file "$scratch/exports.json" "$in" -o "$scratch/called.wasm" >/dev/null
# rustc has already inlined enough: more inlining, and copies of functions for a constant, cost bytes and save no
# instruction of a request. A frequent constant becomes a local, which takes one byte instead of five; V8 compiles both
# to the same code.
wasm-opt -O3 --flexible-inline-max-function-size=4 --merge-similar-functions --const-hoisting --reorder-locals \
    "${features[@]}" "$scratch/called.wasm" -o "$scratch/optimized.wasm"
# The name appears when the file is complete.
cp "$scratch/optimized.wasm" "$out.partial"
mv "$out.partial" "$out"
