"""The wall clock of one process, which jumps."""

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


class Clock:
    """Another time for a process that is started with `environment`."""

    def __init__(self, directory: Path):
        library, self._file = directory / "clock.so", directory / "clock"
        self.set(0)
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-Wall", "-o", library, SOURCE], check=True)
        self.environment = {"LD_PRELOAD": str(library), "SOAK_CLOCK": str(self._file)}

    def set(self, seconds: int) -> None:
        """Sets the clock off by so many seconds, from now on."""
        # In its place: the process has it mapped.
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(seconds.to_bytes(8, "little", signed=True))
