"""Child processes: started, awaited until ready, and ended afterwards."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# Variables that would send an AWS SDK to the developer's own account.
_AWS_VARIABLES = ("AWS_", "BOTO_")


def environment_without_aws(**variables: str) -> dict[str, str]:
    """Returns the environment without the machine's AWS settings, and with `variables`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_AWS_VARIABLES)}
    return {
        **clean,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
        **variables,
    }


def free_port() -> int:
    """Returns a port of 127.0.0.1 that was free a moment ago, for servers that can't choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 30.0, every: float = 0.05) -> None:
    """Returns when `condition` holds; raises a `TimeoutError` that names `what`."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(every)


class ProcessEnded(RuntimeError):
    """A process ended that should have stayed; the message holds the end of its log."""


class Process:
    """One child process in a session of its own, its output in a log file."""

    def __init__(
        self, name: str, command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
    ):
        self.name = name
        self.command = [str(part) for part in command]
        self.log_path = log
        self._environment = dict(environment) if environment is not None else environment_without_aws()
        self._child: subprocess.Popen | None = None

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )

    def wait_ready(self, condition: Callable[[], bool], timeout: float = 60.0) -> None:
        """Returns when `condition` holds; raises `ProcessEnded` if the process ends before."""

        def ready() -> bool:
            if not self.running:
                raise ProcessEnded(f"{self.name} ended with {self.exit_code}:\n{self.log_tail()}")
            return condition()

        try:
            wait_until(ready, f"{self.name} to be ready", timeout)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; its log ends with:\n{self.log_tail()}") from None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        """Returns the process's id while it runs."""
        assert self._child is not None, f"{self.name} was not started"
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        return None if self._child is None else self._child.poll()

    def wait(self, timeout: float) -> int:
        """Waits until the process ends by itself; returns its exit code."""
        assert self._child is not None, f"{self.name} was not started"
        return self._child.wait(timeout)

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.splitlines()[-lines:])

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process alone."""
        os.kill(self.pid, number)

    def stop(self, with_signal: signal.Signals = signal.SIGTERM, patience: float = 10.0) -> None:
        """Ends the process and all that it has started."""
        if self._child is None:
            return
        if self._child.poll() is None:
            self._child.send_signal(with_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
