"""Load from wrk or h2load on a core of its own, the CPU time of Envoy's workers, and the latency of requests.

The cost is the CPU time of the worker threads, which the kernel counts in nanoseconds: other load of the machine
affects it less than it affects throughput.
"""

import contextlib
import math
import re
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from integration.stack.process import Process

# A browser's headers.
HEADERS = {
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "accept-language": "en-US,en;q=0.5",
    "accept-encoding": "gzip, deflate, br, zstd",
    "content-type": "application/json",
    "referer": "https://shop.example.com/orders",
    "cookie": "session=4f1c2b7a9d; theme=dark",
    "sec-fetch-dest": "document",
    "sec-fetch-mode": "navigate",
    "sec-fetch-site": "same-origin",
    "cache-control": "no-cache",
    "dnt": "1",
}
# What SDKs send to DynamoDB, and to S3.
DYNAMODB_HEADERS = {
    "user-agent": "aws-sdk-go-v2/1.41.0 os/linux lang/go#1.25.5 md/GOOS#linux md/GOARCH#amd64 api/dynamodb#1.53.5",
    "accept-encoding": "identity",
    "amz-sdk-invocation-id": "5c1f5b9e-3d5a-4d0c-9a53-6f8c2f1d7e40",
    "amz-sdk-request": "attempt=1; max=3",
    "content-type": "application/x-amz-json-1.0",
    "x-amz-target": "DynamoDB_20120810.PutItem",
}
S3_HEADERS = {
    "user-agent": "aws-sdk-go-v2/1.41.0 os/linux lang/go#1.25.5 md/GOOS#linux md/GOARCH#amd64 api/s3#1.93.2",
    "accept-encoding": "identity",
    "amz-sdk-invocation-id": "5c1f5b9e-3d5a-4d0c-9a53-6f8c2f1d7e40",
    "amz-sdk-request": "attempt=1; max=3",
    "x-amz-checksum-mode": "ENABLED",
}
PATH = "/orders/42/lines?limit=10&after=2026-01-01"
ENVOY_CORE, LOAD_CORE = "0", "1"
ATTEMPTS = 3


@dataclass
class Cost:
    """The cost of one request."""

    cpu_us: float
    requests_per_second: float


class Server(Protocol):
    """A process with listeners."""

    process: Process

    def port(self, listener: str) -> int: ...


class Load:
    """Drives the listeners of a server. Of its threads, those whose names begin with `workers` are measured."""

    def __init__(self, server: Server, *, pinned: bool = True, workers: str = "wrk:worker"):
        self._server = server
        self._pinned = pinned
        self._workers = workers
        self._scripts = tempfile.TemporaryDirectory(prefix="bench-")
        if pinned:
            pin = ["taskset", "-acp", ENVOY_CORE, str(server.process.pid)]
            subprocess.run(pin, check=True, capture_output=True)

    def measure(
        self,
        listener: str,
        seconds: float,
        *,
        body: int = 0,
        connections: int = 16,
        path: str = PATH,
        paths_differ: bool = False,
        headers: dict[str, str] = HEADERS,
    ) -> Cost:
        """Returns the cost of requests with a body of this many bytes, all for one path or each for another one."""
        url = f"http://127.0.0.1:{self._server.port(listener)}{path}"
        pin = ["taskset", "-c", LOAD_CORE] if self._pinned else []
        load = ["wrk", "-t1", f"-c{connections}", f"-d{math.ceil(seconds) + 1}s", "--timeout", "30s"]
        load += header_arguments(headers)
        if body or paths_differ:
            load += ["-s", str(self._script(body, paths_differ))]
        for _ in range(ATTEMPTS):
            before = self._worker_nanoseconds()
            output = run_for(seconds, [*pin, *load, url])
            spent = self._worker_nanoseconds() - before
            if "Non-2xx" in output or "Socket errors" in output:
                raise RuntimeError(f"{listener}: requests failed:\n{output}")
            # An interrupt that comes before wrk is ready for it ends it without a report.
            requests = re.search(r"([1-9]\d*) requests in", output)
            if requests:
                rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
                return Cost(spent / 1000 / int(requests[1]), float(rate[1]))
        raise RuntimeError(f"{listener}: no requests in {ATTEMPTS} attempts:\n{output}")

    def latencies(self, listener: str, seconds: int, *, rate: int) -> list[int]:
        """Sends `rate` requests per second over one connection; returns the latency of each in µs."""
        url = f"http://127.0.0.1:{self._server.port(listener)}{PATH}"
        with tempfile.NamedTemporaryFile("r", prefix="h2load-") as log:
            # Several clients would all send at the same ticks, and wait for one another.
            load = ["taskset", "-c", LOAD_CORE, "h2load", "--h1", "-t1", "-c1", f"-D{seconds}", f"--rps={rate}"]
            load += [f"--log-file={log.name}", *header_arguments(HEADERS), url]
            subprocess.run(load, check=True, capture_output=True)
            requests = [line.split() for line in log]
        if failed := {status for _, status, _ in requests if status != "200"}:
            raise RuntimeError(f"{listener}: requests failed with {', '.join(failed)}")
        # Without those at the start, which find the connection new.
        return [int(latency) for _, _, latency in requests[rate // 10 :]]

    def resident_mib(self) -> float:
        """Returns Envoy's resident memory."""
        status = Path(f"/proc/{self._server.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024

    def _worker_nanoseconds(self) -> int:
        threads = Path(f"/proc/{self._server.process.pid}/task").iterdir()
        workers = [thread for thread in threads if (thread / "comm").read_text().startswith(self._workers)]
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in workers)

    def _script(self, body: int, paths_differ: bool) -> Path:
        lines = [f'wrk.method, wrk.body = "POST", string.rep("x", {body})'] if body else []
        if paths_differ:
            path = '"/orders/" .. number .. "/lines?limit=10&after=2026-01-01"'
            lines += ["local number = 1000000", "function request()", "number = number + 1"]
            lines += [f"return wrk.format(nil, {path})", "end"]
        script = Path(self._scripts.name) / f"{body}-{paths_differ}.lua"
        script.write_text("\n".join(lines))
        return script


def run_for(seconds: float, command: list[str]) -> str:
    """Runs wrk, whose own -d counts whole seconds, and interrupts it: it ends with a report at its next tick of 0.1 s.
    Returns what it has written."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(seconds)
        running.send_signal(signal.SIGINT)
        return running.communicate()[0]


def header_arguments(headers: dict[str, str]) -> list[str]:
    """Returns the arguments by which curl, wrk and h2load send headers."""
    return [argument for name, value in headers.items() for argument in ("-H", f"{name}: {value}")]
