"""Feeds the seeds of a fuzz target, and the findings of its native runs, to the compiled filter:

    .venv/bin/python -m integration.fuzz_wasm TARGET SECONDS

The seeds come first, and inputs left after SECONDS are skipped. An input that breaks a promise is named, and stays in
its place.
"""

import sys
import time

from integration.harness.fuzz_inputs import Broken, Machine, found, seeds
from integration.stack.proxy import WASM


def main() -> int:
    target, seconds = sys.argv[1], float(sys.argv[2])
    known, fed, broken = seeds(target) + found(target), 0, 0
    machine = Machine(WASM)
    # The time is for inputs, not for the compiler.
    deadline = time.monotonic() + seconds
    for path in known:
        if time.monotonic() > deadline:
            break
        fed += 1
        try:
            machine.feed(target, path.read_bytes())
        except Broken as promise:
            print(f"fuzz: {path}: {promise}", file=sys.stderr)
            broken += 1
            machine = Machine(WASM)
    print(f"fuzz: {target}: {fed} of {len(known)} known inputs fed to {WASM.name}, {broken} break it")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
