#!/usr/bin/env bash
# Takes what Envoy need not call out of a compiled filter, and optimizes the rest with binaryen:
#
#   build/optimize-wasm.sh IN OUT
set -euo pipefail
cd "$(dirname "$0")/.."
readonly in=${1:?which .wasm?} out=${2:?where to?}

# A second run has nothing to do.
[[ ! $out -nt $in || ! $out -nt build/optimize-wasm.sh ]] || exit 0

# What rustc uses of WebAssembly as build/cargo-wasm.sh calls it, and V8 has had for years; binaryen has to be told.
features=(--enable-bulk-memory --enable-multivalue --enable-mutable-globals --enable-nontrapping-float-to-int
    --enable-reference-types --enable-sign-ext --enable-simd)

# What Envoy calls. The linker exports more, and with that keeps more.
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
# rustc has inlined what is worth it: more of that, and functions that differ in a constant alone, cost bytes and save no
# instruction of a request. A constant that is used often is a local, which is a byte where the constant has five; V8's
# compiler makes the same of both.
wasm-opt -O3 --flexible-inline-max-function-size=4 --merge-similar-functions --const-hoisting --reorder-locals \
    "${features[@]}" "$scratch/called.wasm" -o "$scratch/optimized.wasm"
# The name appears when the file is complete.
cp "$scratch/optimized.wasm" "$out.partial"
mv "$out.partial" "$out"
