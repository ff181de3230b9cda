#!/usr/bin/env python3
"""Checks that a compiled filter is one that a proxy-wasm host can load: a WebAssembly module that imports from `env`
alone (the proxy-wasm ABI, so no WASI) and is no larger than its budget.

    build/check_wasm.py dist/sigv4_filter.wasm
"""

import sys
from enum import IntEnum
from pathlib import Path

SIZE_BUDGET = 600 * 1024
ALLOWED_MODULES = {"env"}
# Parts of the paths that sources have on the machine that builds; build/cargo-wasm.sh maps them to neutral ones.
MACHINE_PATHS = [b"registry/src/", b".toolchain/"]

# https://webassembly.github.io/spec/core/binary/modules.html
HEADER = b"\0asm\x01\0\0\0"
IMPORT_SECTION = 2
HAS_MAXIMUM = 0x01


class Kind(IntEnum):
    FUNCTION = 0
    TABLE = 1
    MEMORY = 2
    GLOBAL = 3
    TAG = 4


class Reader:
    """Reads the binary format's primitives one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def at_end(self) -> bool:
        return self.position == len(self.data)

    def take(self, length: int) -> bytes:
        taken = self.data[self.position : self.position + length]
        if len(taken) != length:
            raise ValueError(f"cut short at byte {len(self.data)}")
        self.position += length
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def unsigned(self) -> int:
        """An integer in LEB128."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def name(self) -> str:
        return self.take(self.unsigned()).decode()

    def skip_limits(self) -> None:
        flags = self.byte()
        self.unsigned()
        if flags & HAS_MAXIMUM:
            self.unsigned()


def imports(module: bytes) -> list[tuple[str, str]]:
    """The module and the name of everything that a WebAssembly module imports."""
    reader = Reader(module)
    if reader.take(len(HEADER)) != HEADER:
        raise ValueError("not a WebAssembly module")
    while not reader.at_end():
        section = reader.byte()
        content = Reader(reader.take(reader.unsigned()))
        if section == IMPORT_SECTION:
            return [read_import(content) for _ in range(content.unsigned())]
    return []


def read_import(reader: Reader) -> tuple[str, str]:
    module, name = reader.name(), reader.name()
    match reader.byte():
        case Kind.FUNCTION:
            reader.unsigned()
        case Kind.TABLE:
            reader.byte()
            reader.skip_limits()
        case Kind.MEMORY:
            reader.skip_limits()
        case Kind.GLOBAL:
            reader.take(2)
        case Kind.TAG:
            reader.byte()
            reader.unsigned()
        case kind:
            raise ValueError(f"{module}.{name} is imported as an unknown kind, {kind}")
    return module, name


def main() -> int:
    path = Path(sys.argv[1])
    module = path.read_bytes()
    try:
        imported = imports(module)
    except ValueError as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 1

    faults = [
        f"imports {source}.{name}, which is not of the proxy-wasm ABI"
        for source, name in imported
        if source not in ALLOWED_MODULES
    ]
    faults += [
        f"holds a path of the machine that built it, {part.decode()}…" for part in MACHINE_PATHS if part in module
    ]
    if len(module) > SIZE_BUDGET:
        faults.append(f"is {len(module)} bytes large, over its budget of {SIZE_BUDGET}")
    for fault in faults:
        print(f"{path}: {fault}", file=sys.stderr)
    if not faults:
        print(f"{path}: {len(module) / 1024:.0f} KiB of {SIZE_BUDGET // 1024}, {len(imported)} imports, all from env")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
