"""Runs a command with the system calls that a systemd unit allows, on machines without systemd:

python seccomp.py UNIT COMMAND [ARGUMENT...]
"""

import ctypes
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

NUMBERS = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
_X86_64 = 0xC000003E
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _PERMISSION_DENIED = 0x7FFF0000, 0x00050001
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER_MODE = 38, 22, 2


def allowed(unit: Path) -> set[str]:
    """Returns the system calls that the unit's SystemCallFilter lines allow."""
    calls: set[str] = set()
    for line in unit.read_text().splitlines():
        if line.startswith("SystemCallFilter="):
            groups = line.partition("=")[2]
            of_groups = set().union(*(_expand(group) for group in groups.removeprefix("~").split()))
            calls = calls - of_groups if groups.startswith("~") else calls | of_groups
    # systemd always allows these.
    return calls | _expand("@default")


def _expand(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    command = ["systemd-analyze", "syscall-filter", name]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    members = [line.strip() for line in listed if line.strip() and not line.strip().startswith("#")]
    return set().union(*(_expand(member) for member in members))


def _restrict(calls: set[str]) -> None:
    numbers = dict(re.findall(r"^#define __NR_(\w+) (\d+)$", NUMBERS.read_text(), re.MULTILINE))

    def instruction(code: int, value: int, if_equal: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_equal, otherwise, value)

    # In the kernel's data, the architecture is at offset 4, and the call's number at 0.
    program = [
        instruction(_LOAD, 4),
        instruction(_JUMP_IF_EQUAL, _X86_64, if_equal=1),
        instruction(_RETURN, _PERMISSION_DENIED),
        instruction(_LOAD, 0),
    ]
    for name in sorted(calls & set(numbers)):
        program += [instruction(_JUMP_IF_EQUAL, int(numbers[name]), otherwise=1), instruction(_RETURN, _ALLOW)]
    program.append(instruction(_RETURN, _PERMISSION_DENIED))
    code = ctypes.create_string_buffer(b"".join(program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in [(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SECCOMP, _FILTER_MODE, header, 0, 0)]:
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    _restrict(allowed(Path(sys.argv[1])))
    os.execv(sys.argv[2], sys.argv[2:])
