#!/bin/sh
# Sends requests through a real Envoy that signs them, to an AWS stand-in that verifies them, and shows the traffic.
# KEEP=1 leaves everything running until Ctrl-C, and prints commands to try.
set -eu
cd "$(dirname "$0")/../.."

lacks() {
    echo "The demo lacks $1. $2" >&2
    exit 1
}

[ -f dist/sigv4_filter.wasm ] || lacks "dist/sigv4_filter.wasm, the filter" "Build it and run the demo: make demo"
[ -x dist/credential-refresher ] || lacks "dist/credential-refresher" "Build it and run the demo: make demo"
command -v curl >/dev/null || lacks "curl" "Install it (Debian: apt-get install curl), then run again: make demo"

integration/setup.sh
exec .venv/bin/python -m integration.demo
