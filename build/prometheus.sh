#!/usr/bin/env bash
# Unpacks Debian's prometheus and promtool under .toolchain/prometheus; nothing is installed, and no service started.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly prefix=.toolchain/prometheus

[[ -x $prefix/usr/bin/promtool ]] || build/unpack-packages.sh $prefix prometheus -- ./usr/bin
