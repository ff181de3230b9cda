#!/usr/bin/env python3
"""Checks that a compiled filter is within its budget and contains no paths of the machine that built it. A test checks
that it imports only the proxy-wasm ABI.

    build/check_wasm.py dist/sigv4_filter.wasm
"""

import sys
from pathlib import Path

SIZE_BUDGET = 672 * 1024
# Parts of the sources' paths on the build machine; build/cargo-wasm.sh maps them to neutral ones.
MACHINE_PATHS = [b"registry/src/", b".toolchain/"]


def main() -> int:
    path = Path(sys.argv[1])
    module = path.read_bytes()
    faults = [
        f"contains a path of the machine that built it, {part.decode()}…" for part in MACHINE_PATHS if part in module
    ]
    if len(module) > SIZE_BUDGET:
        faults.append(f"is {len(module)} bytes large, over its budget of {SIZE_BUDGET}")
    for fault in faults:
        print(f"{path}: {fault}", file=sys.stderr)
    if not faults:
        print(f"{path}: {len(module) / 1024:.0f} KiB of {SIZE_BUDGET // 1024}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
