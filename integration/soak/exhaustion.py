"""What a machine runs out of: space on its disk, and file descriptors."""

import contextlib
import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

FULL_DEVICE = Path("/dev/full")
DISK_KIB = 64
# What is left to a process when descriptors become few.
DESCRIPTORS_LEFT = 20
# No longer than a kernel keeps connections that nobody accepts, and credentials hold that nobody can renew.
WITHOUT_DESCRIPTORS = 0.5


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """Mounts a tmpfs of a few KiB and gives a file on it; where that is not allowed, the device that is always full."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_KIB}k", "soak", str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield FULL_DEVICE
        return
    try:
        yield directory / "access.log"
    finally:
        # A process that is about to end may keep the file open.
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


class FewDescriptors:
    """Takes a process's file descriptors, all but a few, and lets strangers take the rest, over and over."""

    def __init__(self):
        self.rounds = 0
        """Those in which it had none left."""

    def take(self, pid: int, port: int) -> None:
        """Lets the process run out of descriptors for a while."""
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        limit = _descriptors(pid) + DESCRIPTORS_LEFT
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
        try:
            with contextlib.ExitStack() as stack:
                for _ in range(4 * DESCRIPTORS_LEFT):
                    stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
                until = time.monotonic() + WITHOUT_DESCRIPTORS
                exhausted = False
                while time.monotonic() < until:
                    exhausted = exhausted or _descriptors(pid) >= limit
                    time.sleep(0.01)
                self.rounds += exhausted
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
