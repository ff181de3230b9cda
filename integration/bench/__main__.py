"""The cost of signing, compared with plain Envoy, a filter that does nothing, and Envoy's native signer.

All listeners of a table are in one Envoy, and are driven in turn, for several rounds, so that other load of the machine
affects all of them equally. Prints tables; writes them to target/bench/results.json and docs/performance.svg.
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from integration.bench import envoys, statistic
from integration.bench.load import DYNAMODB_HEADERS, S3_HEADERS, Load
from integration.bench.plot import bars
from integration.harness.peak import Peak
from integration.stack.client import curl
from integration.stack.envoy import Envoy
from integration.stack.process import REPOSITORY
from integration.stack.proxy import WASM

IDENTITIES = 100
SHA256 = REPOSITORY / "target/bench/sha256"


class Bench:
    """Runs the tables, and keeps their results."""

    def __init__(self, directory: Path, rounds: int, seconds: int):
        self.directory = directory
        self.rounds = rounds
        self.seconds = seconds
        self.results: dict[str, dict] = {}
        self.noisy: list[str] = []
        """The titles of tables with rows whose interval is too wide."""

    def run(self) -> None:
        self.no_body()
        self.like_services()
        self.real_upstream()
        self.bodies()
        self.sha256()
        self.streaming()
        self.workers()

    def envoy(self, name: str, listeners: list[dict], clusters: tuple[dict, ...] = (), workers: int = 1) -> Envoy:
        directory = self.directory / name
        directory.mkdir()
        resources = {"listeners": listeners, "clusters": list(clusters)}
        return Envoy({"static_resources": resources}, directory, workers, "error")

    def compare(self, title: str, load: Load, names: list[str], **options) -> dict[str, dict[str, float]]:
        """Drives listeners in turn; returns each one's cost, and its difference to the first one's."""
        for name in names:
            load.measure(name, 1, **options)
        rounds = []
        for number in range(self.rounds):
            # Each round begins with another listener, so that none always follows the same one.
            first = number % len(names)
            order = names[first:] + names[:first]
            rounds.append({name: load.measure(name, self.seconds, **options) for name in order})
        native = next(name for name in names if name.endswith("native"))
        costs = [{name: cost.cpu_us for name, cost in one.items()} for one in rounds]
        table = {name: statistic.compare(costs, name, names[0], native) for name in names}
        for name, row in table.items():
            row["requests_per_second"] = statistics.median(one[name].requests_per_second for one in rounds)
        self.results[title] = table
        print(f"\n{title}")
        print(f"{'':28} {'CPU µs':>8} {'added':>7} {'95 %':>13} {'of native':>10} {'95 %':>12} {'requests/s':>11}")
        for name, row in table.items():
            shares = ("", "")
            if "of_native" in row:
                shares = (f"{row['of_native']:.2f}", f"{row['of_native_low']:.2f}–{row['of_native_high']:.2f}")
            spread = f"{row['added_us_low']:.1f}–{row['added_us_high']:.1f}"
            print(
                f"{name:28} {row['cpu_us']:8.1f} {row['added_us']:7.1f} {spread:>13} {shares[0]:>10} {shares[1]:>12}"
                f" {row['requests_per_second']:11,.0f}"
            )
        if noisy := [name for name, row in table.items() if statistic.is_noisy(row)]:
            self.noisy.append(title)
            print(f"too noisy to quote: {', '.join(noisy)}; run it on a quieter machine, or with more --rounds")
        return table

    def no_body(self) -> None:
        """Measures with direct responses, which isolate the filter."""
        pipe = self.directory / "s"
        many = envoys.policy(identities=IDENTITIES)
        filters = {
            "plain": [],
            "empty wasm": [envoys.wasm("empty", envoys.EMPTY_FILTER)],
            "native": [envoys.native(signs_few_headers=False)],
            "native, few headers signed": [envoys.native(signs_few_headers=True)],
            "signer": [envoys.wasm("signer", WASM, envoys.policy())],
            "signer, routeMetadata": [envoys.wasm("asking", WASM, envoys.policy() | {"routeMetadata": True})],
            "signer, accessLog": [envoys.wasm("logged", WASM, envoys.policy() | {"accessLog": True})],
            "signer, 1,000 routes": [envoys.wasm("routes", WASM, envoys.policy(1000))],
            f"signer, {IDENTITIES} identities": [envoys.wasm("identities", WASM, many)],
            "token, signer": [envoys.verified_token(), envoys.wasm("token", WASM, envoys.policy())],
            "token, signer, a role for each caller": [
                envoys.verified_token(), envoys.wasm("callers", WASM, envoys.policy(**envoys.OF_CALLER))
            ],
        }  # fmt: skip
        listeners = [envoys.listener(name, filters) for name, filters in filters.items()]
        with self.envoy("no-body", [*listeners, envoys.intake(pipe)]) as envoy:
            envoys.push_all(pipe, IDENTITIES)
            # A caller's identity is required with its first request, which waits for the credentials.
            url = f"http://127.0.0.1:{envoy.port('token, signer, a role for each caller')}/orders"
            with ThreadPoolExecutor(1) as pool:
                first = pool.submit(curl, url)
                envoys.push_all(pipe, IDENTITIES + 1)
                assert first.result().status == 200
            load = Load(envoy)
            table = self.compare("No body", load, list(filters))
            names = ["plain", "empty wasm", "native", "native, few headers signed"]
            names += ["signer", "signer, routeMetadata"]
            other = self.compare("No body, each request for another path", load, names, paths_differ=True)
        added = {name: table[name]["added_us"] for name in names[1:]}
        added |= {f"{name}, other paths": other[name]["added_us"] for name in names[2:] if name.startswith("signer")}
        bars("Added to a request without a body", "µs of CPU", added)

    def like_services(self) -> None:
        """Measures requests as SDKs send them: items of 200 bytes to DynamoDB, objects of S3 by their keys."""
        pipe = self.directory / "s5"
        dynamodb = {"host": "https://dynamodb.eu-west-1.amazonaws.com", "service": "dynamodb"}
        s3 = {"host": "https://s3.eu-west-1.amazonaws.com", "service": "s3"}
        filters = {
            "dynamodb, buffer": [envoys.buffer()],
            "dynamodb, native": [envoys.native(signs_few_headers=False, service="dynamodb")],
            "dynamodb, signer": [envoys.wasm("dynamodb", WASM, envoys.policy(**dynamodb))],
            "dynamodb, payload envoy": [
                *envoys.hasher(), envoys.wasm("hashed", WASM, envoys.policy(**dynamodb, payload="envoy"))
            ],
            "s3, plain": [],
            "s3, native": [envoys.native(signs_few_headers=False, service="s3")],
            "s3, signer": [envoys.wasm("s3", WASM, envoys.policy(**s3))],
        }  # fmt: skip
        listeners = [envoys.listener(name, filters) for name, filters in filters.items()]
        with self.envoy("services", [*listeners, envoys.intake(pipe)]) as envoy:
            envoys.push_all(pipe, 1)
            load = Load(envoy)
            of_dynamodb = [name for name in filters if name.startswith("dynamodb")]
            self.compare("PutItem of 200 bytes", load, of_dynamodb, body=200, headers=DYNAMODB_HEADERS)
            of_s3 = [name for name in filters if name.startswith("s3")]
            self.compare("GetObject, each of another key", load, of_s3, paths_differ=True, headers=S3_HEADERS)

    def real_upstream(self) -> None:
        """Measures the same with another Envoy as upstream."""
        pipe = self.directory / "s2"
        with self.envoy("upstream", [envoys.listener("upstream", [])]) as upstream:
            cluster = envoys.cluster("upstream", upstream.port("upstream"))
            filters = {
                "plain": [],
                "native": [envoys.native(signs_few_headers=False)],
                "signer": [envoys.wasm("signer", WASM, envoys.policy())],
            }
            listeners = [envoys.listener(name, filters, cluster="upstream") for name, filters in filters.items()]
            with self.envoy("proxy", [*listeners, envoys.intake(pipe)], (cluster,)) as envoy:
                envoys.push_all(pipe, 1)
                self.compare("No body, sent to an upstream", Load(envoy), list(filters))

    def bodies(self) -> None:
        """Measures bodies that are hashed before they are sent."""
        pipe = self.directory / "s3"
        sizes = {"1 KiB": 1 << 10, "64 KiB": 1 << 16, "1 MiB": 1 << 20, "8 MiB": 8 << 20}
        signer = [envoys.wasm("signer", WASM, envoys.policy(payload="signed"))]
        # All three buffer a body until it is complete: a direct response would come before it.
        hashed = envoys.wasm("hashed", WASM, envoys.policy(payload="envoy"))
        filters = {
            "buffer": [envoys.buffer()],
            "native": [envoys.native(signs_few_headers=False)],
            "signer": signer,
            "signer, payload envoy": [*envoys.hasher(), hashed],
        }
        listeners = [envoys.listener(name, filters) for name, filters in filters.items()]
        with self.envoy("bodies", [*listeners, envoys.intake(pipe)]) as envoy:
            envoys.push_all(pipe, 1)
            load = Load(envoy)
            for size, body in sizes.items():
                table = self.compare(f"Body of {size}, hashed", load, list(filters), body=body, connections=4)
                per_byte = body / table["signer"]["added_us"] / 1000
                table["signer"]["gb_per_second"] = per_byte
                table["signer"]["resident_mib"] = load.resident_mib()
                print(f"hashed and buffered at {per_byte:.2f} GB/s; Envoy holds {load.resident_mib():.0f} MiB")

    def sha256(self) -> None:
        """Measures SHA-256 alone, in wasm and natively without SHA instructions."""
        filters = {"plain": [], "hashes": [envoys.wasm("hashes", SHA256 / "sha256_filter.wasm")]}
        kibibytes = 4096
        listeners = [envoys.listener(name, filters) for name, filters in filters.items()]
        wasm, native = [], []
        with self.envoy("sha256", listeners) as envoy:
            load = Load(envoy)
            for _ in range(self.rounds):
                with_hash = load.measure("hashes", 1, path=f"/{kibibytes}", connections=1).cpu_us
                without = load.measure("hashes", 1, path="/0", connections=1).cpu_us
                wasm.append(kibibytes * 1024 / (with_hash - without) / 1000)
                native.append(float(subprocess.run([SHA256 / "sha256-native"], check=True, capture_output=True).stdout))
        table = {
            "wasm_gb_per_second": statistics.median(wasm),
            "native_software_gb_per_second": statistics.median(native),
            "of_native_software": statistics.median(a / b for a, b in zip(wasm, native, strict=True)),
        }
        self.results["SHA-256"] = table
        print(
            f"\nSHA-256 alone: {table['wasm_gb_per_second']:.2f} GB/s in wasm, "
            f"{table['native_software_gb_per_second']:.2f} GB/s natively without SHA instructions"
        )

    def streaming(self) -> None:
        """Streams 1 GiB that is not hashed here: nothing is buffered."""
        pipe = self.directory / "s4"
        gibibyte = 1 << 30
        modes = {"unsigned": {}, "client": {"x-amz-content-sha256": "5a" * 32}}
        # A direct response would come before the body.
        with Sink() as sink:
            cluster = envoys.cluster("sink", sink.port)
            listeners = [
                envoys.listener(mode, [envoys.wasm(mode, WASM, envoys.policy(payload=mode))], cluster="sink")
                for mode in modes
            ]
            body = self.directory / "gibibyte"
            with body.open("wb") as file:
                file.truncate(gibibyte)
            with self.envoy("streaming", [*listeners, envoys.intake(pipe)], (cluster,)) as envoy:
                envoys.push_all(pipe, 1)
                load = Load(envoy, pinned=False)
                table = {}
                for mode, headers in modes.items():
                    url = f"http://127.0.0.1:{envoy.port(mode)}/orders/x"
                    with Peak(load.resident_mib) as peak:
                        before, start = load.resident_mib(), time.monotonic()
                        arguments = [a for name, value in headers.items() for a in ("-H", f"{name}: {value}")]
                        upload = ["curl", "-sf", "-o", "/dev/null", "-T", str(body), *arguments, url]
                        subprocess.run(upload, check=True)
                        seconds = time.monotonic() - start
                    table[mode] = {"seconds": seconds, "grown_mib": peak.highest - before}
                    print(f"\n1 GiB, payload {mode}: {seconds:.1f} s; Envoy grew by {peak.highest - before:.1f} MiB")
                if sink.received != len(modes) * gibibyte:
                    raise RuntimeError(f"{sink.received} bytes arrived")
        self.results["1 GiB streamed"] = table

    def workers(self) -> None:
        """Measures a second worker: the cost on each stays the same, if none waits for the other."""
        with contextlib.ExitStack() as running:
            loads = {}
            for workers in (1, 2):
                pipe = self.directory / f"w{workers}"
                listeners = [envoys.listener("signer", [envoys.wasm("signer", WASM, envoys.policy())])]
                envoy = self.envoy(f"workers-{workers}", [*listeners, envoys.intake(pipe)], workers=workers)
                running.enter_context(envoy)
                envoys.push_all(pipe, 1)
                loads[workers] = Load(envoy, pinned=False)
                loads[workers].measure("signer", 2)
            costs = {workers: [] for workers in loads}
            for _ in range(self.rounds):
                for workers, load in loads.items():
                    costs[workers].append(load.measure("signer", self.seconds, connections=32).cpu_us)
        ratio = 2 * statistics.median(costs[1]) / statistics.median(costs[2])
        self.results["Workers"] = {f"cpu_us_{n}": statistics.median(cost) for n, cost in costs.items()} | {
            "scale": ratio
        }
        print(f"\nTwo workers have the capacity of {ratio:.2f}: a request costs each of them what it costs one alone")


class Sink:
    """An HTTP/1.1 server that reads bodies, answers 200, and counts bytes."""

    def __enter__(self):
        self.received = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection) -> None:
        buffer = bytearray(1 << 20)
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        head, _, first = head.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        left = length - len(first)
        while left:
            left -= connection.recv_into(buffer)
        self.received += length
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        connection.close()


def main() -> None:
    """Runs the comparison."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--seconds", type=int, default=1, help="of each measurement")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        bench = Bench(Path(name), options.rounds, options.seconds)
        bench.run()
    machine = Path("/proc/cpuinfo").read_text().partition("model name")[2].partition(":")[2].partition("\n")[0].strip()
    document = {
        "machine": machine,
        "cores": os.cpu_count(),
        "rounds": options.rounds,
        "noisy": bench.noisy,
        "tables": bench.results,
    }
    path = REPOSITORY / "target" / "bench" / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"\n{path.relative_to(REPOSITORY)}")
    if bench.noisy:
        print(f"too noisy to quote: {'; '.join(bench.noisy)}")


if __name__ == "__main__":
    main()
