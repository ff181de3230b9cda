"""The cost of signing, compared with plain Envoy, a filter that does nothing, Envoy's native signer, and
aws-sigv4-proxy.

All listeners of a table are driven in turn, for many short rounds, so that other load of the machine affects all of
them equally. Prints tables, and writes them to target/bench/results.json; `no_body` draws
docs/performance.svg if the machine is quiet.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from integration.bench import aws_sigv4_proxy, envoys, statistic
from integration.bench.comparison import Comparison
from integration.bench.load import DYNAMODB_HEADERS, HEADERS, S3_HEADERS, Load, header_arguments
from integration.bench.plot import bars
from integration.bench.transfers import MIB, Storage, download, upload
from integration.harness.certificates import Authority
from integration.harness.peak import Peak
from integration.stack.client import curl
from integration.stack.envoy import Envoy
from integration.stack.process import REPOSITORY
from integration.stack.proxy import WASM

IDENTITIES = 100
LATENCY_RATE = 1000
SHA256 = REPOSITORY / "target/bench/sha256"


class Bench(Comparison):
    """Runs the tables."""

    PARTS = (
        "no_body",
        "mesh",
        "like_services",
        "real_upstream",
        "latency",
        "bodies",
        "sha256",
        "streaming",
        "sdk",
        "workers",
    )

    def __init__(self, directory: Path, rounds: int, seconds: float):
        super().__init__(rounds, seconds)
        self.directory = directory

    def run(self, parts: Sequence[str]) -> None:
        for part in parts:
            getattr(self, part)()

    def envoy(self, name: str, listeners: list[dict], clusters: tuple[dict, ...] = (), workers: int = 1) -> Envoy:
        directory = self.directory / name
        directory.mkdir()
        resources = {"listeners": listeners, "clusters": list(clusters)}
        return Envoy({"static_resources": resources}, directory, workers, "error")

    def no_body(self) -> None:
        """Measures with direct responses, which isolate the filter."""
        pipe = self.directory / "s"
        many = envoys.policy(identities=IDENTITIES)
        filters = {
            "plain": [],
            "empty wasm": [envoys.wasm("empty", envoys.EMPTY_FILTER)],
            "native": [envoys.native()],
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
            basis = ["plain", "native", "signer"]
            few = ["plain", "empty wasm", "native", "native, few headers signed", "signer"]
            options = [name for name in filters if name.startswith("signer, ")]
            tables = {
                "": self.compare("No body", load, few),
                ", other paths": self.compare("No body, each request for another path", load, few, paths_differ=True),
            }
            self.compare("No body, by option", load, [*basis, *options])
            self.compare("No body, by caller", load, [*basis, *(name for name in filters if name.startswith("token"))])
        if self.noisy:
            print("\ndocs/performance.svg stays as it is")
        else:
            drawn = ["native", "native, few headers signed", "signer"]
            added = {f"{name}{title}": table[name]["added_us"] for title, table in tables.items() for name in drawn}
            bars("Added to a request without a body", "µs of CPU", added)

    def mesh(self) -> None:
        """Measures requests to AWS whose authority and path stay as they are, sent to another Envoy: a route without a
        target looks at the cluster."""
        pipe = self.directory / "s8"
        filters = {
            "plain": [],
            "native": [envoys.native(rewrites_host=False)],
            "signer": [envoys.wasm("mesh", WASM, envoys.mesh_policy())],
        }
        # Capitalized like wrk's own `Host`, which it replaces.
        headers = {"Host": envoys.HOST, **HEADERS}
        with self.envoy("aws", [envoys.listener("aws", [])]) as aws:
            listeners = [envoys.listener(name, filters, cluster="aws") for name, filters in filters.items()]
            with self.envoy(
                "mesh", [*listeners, envoys.intake(pipe)], (envoys.cluster("aws", aws.port("aws")),)
            ) as envoy:
                envoys.push_all(pipe, 1)
                load = Load(envoy)
                self.compare("To AWS as it is", load, list(filters), headers=headers)
                title = "To AWS as it is, each request for another path"
                self.compare(title, load, list(filters), headers=headers, paths_differ=True)

    def like_services(self) -> None:
        """Measures requests as SDKs send them: items of 200 bytes to DynamoDB, objects of S3 by their keys."""
        pipe = self.directory / "s5"
        dynamodb = {"host": "https://dynamodb.eu-west-1.amazonaws.com", "service": "dynamodb"}
        s3 = {"host": "https://s3.eu-west-1.amazonaws.com", "service": "s3"}
        filters = {
            "dynamodb, buffer": [envoys.buffer()],
            "dynamodb, native": [envoys.native(service="dynamodb")],
            "dynamodb, signer": [envoys.wasm("dynamodb", WASM, envoys.policy(**dynamodb))],
            "dynamodb, payload envoy": [
                *envoys.hasher(), envoys.wasm("hashed", WASM, envoys.policy(**dynamodb, payload="envoy"))
            ],
            "s3, plain": [],
            "s3, native": [envoys.native(service="s3")],
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
        """Measures the same with another Envoy as upstream, and aws-sigv4-proxy instead of Envoy."""
        pipe = self.directory / "s2"
        authority = Authority(self.directory)
        upstreams = [
            envoys.listener("upstream", []),
            envoys.listener("tls", [], certificate=authority.issue("upstream.example")),
        ]
        filters = {
            "plain": [],
            "native": [envoys.native()],
            "signer": [envoys.wasm("signer", WASM, envoys.policy())],
        }
        with self.envoy("upstream", upstreams) as upstream:
            port = upstream.port("upstream")
            clusters = (
                envoys.cluster("upstream", port),
                envoys.cluster("tls", upstream.port("tls"), authority=authority.certificate),
            )
            listeners = [
                envoys.listener(f"{prefix}{name}", before_router, cluster=cluster)
                for prefix, cluster in (("", "upstream"), ("TLS, ", "tls"))
                for name, before_router in filters.items()
            ]
            with self.envoy("proxy", [*listeners, envoys.intake(pipe)], clusters) as envoy:
                envoys.push_all(pipe, 1)
                load = Load(envoy)
                self.beside_aws_sigv4_proxy(load, list(filters), port)
                self.compare("No body, to an upstream through TLS", load, [f"TLS, {name}" for name in filters])

    def beside_aws_sigv4_proxy(self, load: Load, names: list[str], upstream: int) -> None:
        """Compares what is sent to an upstream with aws-sigv4-proxy, all of whose threads count."""
        title = "No body, sent to an upstream"
        try:
            binary = aws_sigv4_proxy.binary()
        except aws_sigv4_proxy.Missing as reason:
            print(f"\nNOT COMPARED with aws-sigv4-proxy: {reason}")
            self.compare(title, load, names)
            return
        with aws_sigv4_proxy.AwsSigv4Proxy(binary, self.directory, upstream) as proxy:
            self.compare(title, load, names, {"aws-sigv4-proxy": Load(proxy, workers="")})

    def latency(self) -> None:
        """Measures latencies at a fixed rate, far from what a worker can do: a request never waits for another."""
        pipe = self.directory / "s6"
        filters = {
            "plain": [],
            "empty wasm": [envoys.wasm("empty", envoys.EMPTY_FILTER)],
            "native": [envoys.native()],
            "signer": [envoys.wasm("signer", WASM, envoys.policy())],
        }
        listeners = [envoys.listener(name, filters) for name, filters in filters.items()]
        with self.envoy("latency", [*listeners, envoys.intake(pipe)]) as envoy:
            envoys.push_all(pipe, 1)
            load = Load(envoy)
            for name in filters:
                load.latencies(name, 1, rate=LATENCY_RATE)
            rounds: dict[str, list[list[int]]] = {name: [] for name in filters}
            for order in self.in_turn(list(filters), self.long_rounds):
                for name in order:
                    rounds[name].append(load.latencies(name, 3, rate=LATENCY_RATE))
        title = f"Latency at {LATENCY_RATE} requests/s"
        self.results[title] = {name: statistic.quantiles(each) for name, each in rounds.items()}
        print(f"\n{title}, µs{'p50':>12} {'95 %':>10} {'p99':>6} {'95 %':>10} {'p99.9':>6} {'95 %':>10}")
        for name, row in self.results[title].items():
            quantiles = ((row[q], f"{row[f'{q}_low']:.0f}–{row[f'{q}_high']:.0f}") for q in ("p50", "p99", "p99.9"))
            print(f"{name:28}" + " ".join(f"{value:8.0f} {spread:>10}" for value, spread in quantiles))

    def bodies(self) -> None:
        """Measures bodies that are hashed before they are sent."""
        pipe = self.directory / "s3"
        sizes = {"1 KiB": 1 << 10, "64 KiB": 1 << 16, "1 MiB": 1 << 20, "8 MiB": 8 << 20}
        signer = [envoys.wasm("signer", WASM, envoys.policy(payload="signed"))]
        # All three buffer a body until it is complete: a direct response would come before it.
        hashed = envoys.wasm("hashed", WASM, envoys.policy(payload="envoy"))
        filters = {
            "buffer": [envoys.buffer()],
            "native": [envoys.native()],
            "signer": signer,
            "signer, payload envoy": [*envoys.hasher(), hashed],
        }
        listeners = [envoys.listener(name, filters) for name, filters in filters.items()]
        with self.envoy("bodies", [*listeners, envoys.intake(pipe)]) as envoy:
            envoys.push_all(pipe, 1)
            load = Load(envoy)
            for size, body in sizes.items():
                # Bodies that are under way when a measurement ends cost, and are not counted: with one connection, one.
                options = {"connections": 1, "is_long": body >= 1 << 20}
                table = self.compare(f"Body of {size}, hashed", load, list(filters), body=body, **options)
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
            for _ in range(self.long_rounds):
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
        with Storage() as storage:
            cluster = envoys.cluster("storage", storage.port)
            listeners = [
                envoys.listener(mode, [envoys.wasm(mode, WASM, envoys.policy(payload=mode))], cluster="storage")
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
                        command = ["curl", "-sf", "-o", "/dev/null", "-T", str(body), *header_arguments(headers), url]
                        subprocess.run(command, check=True)
                        seconds = time.monotonic() - start
                    table[mode] = {"seconds": seconds, "grown_mib": peak.highest - before}
                    print(f"\n1 GiB, payload {mode}: {seconds:.1f} s; Envoy grew by {peak.highest - before:.1f} MiB")
                if storage.received != len(modes) * gibibyte:
                    raise RuntimeError(f"{storage.received} bytes arrived")
        self.results["1 GiB streamed"] = table

    def sdk(self) -> None:
        """Moves 256 MiB with boto3, directly and through the signer. boto3 itself hashes what it puts."""
        pipe = self.directory / "s7"
        size = 256 * MIB
        file = self.directory / "object"
        file.write_bytes(os.urandom(size))
        put = partial(upload, file=file, part=size)
        transfers = {
            "put, payload auto": ("auto", put),
            "put, payload unsigned": ("unsigned", put),
            "put in 8 MiB, payload signed": ("signed", partial(upload, file=file, part=8 * MIB)),
            "get": ("auto", partial(download, size=size)),
        }
        signed = {"host": "https://s3.eu-west-1.amazonaws.com", "service": "s3"}
        with Storage(size) as storage:
            listeners = [
                envoys.listener(
                    mode, [envoys.wasm(mode, WASM, envoys.policy(**signed, payload=mode))], cluster="storage"
                )
                for mode in ("auto", "unsigned", "signed")
            ]
            cluster = envoys.cluster("storage", storage.port)
            with self.envoy("sdk", [*listeners, envoys.intake(pipe)], (cluster,)) as envoy:
                envoys.push_all(pipe, 1)
                table = {}
                for name, (mode, move) in transfers.items():
                    urls = {"direct": storage.port, "through": envoy.port(mode)}
                    for port in urls.values():
                        move(f"http://127.0.0.1:{port}")
                    rounds = [
                        {way: move(f"http://127.0.0.1:{urls[way]}") for way in order}
                        for order in self.in_turn(list(urls), self.long_rounds)
                    ]
                    shares = [one["through"] / one["direct"] for one in rounds]
                    low, high = statistic.interval(shares)
                    ratio = statistics.median(shares)
                    table[name] = {"of_direct": ratio, "of_direct_low": low, "of_direct_high": high}
                    table[name] |= {way: statistics.median(one[way] for one in rounds) for way in urls}
                    print(
                        f"\n256 MiB, {name}: {table[name]['through']:.2f} s, {ratio:.2f} ({low:.2f}–{high:.2f}) of the"
                        f" {table[name]['direct']:.2f} s that it takes directly"
                    )
        self.results["256 MiB with boto3"] = table

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


def main() -> None:
    """Runs the comparison."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=100, help="of short measurements; fewer of long ones")
    arguments.add_argument("--seconds", type=float, default=0.1, help="of each short measurement")
    arguments.add_argument("parts", nargs="*", default=Bench.PARTS, help=f"of {', '.join(Bench.PARTS)}; all by default")
    options = arguments.parse_args()
    options.parts = tuple(dict.fromkeys(options.parts))
    if unknown := set(options.parts) - set(Bench.PARTS):
        arguments.error(f"unknown: {', '.join(unknown)}; the parts are {', '.join(Bench.PARTS)}")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        bench = Bench(Path(name), options.rounds, options.seconds)
        bench.run(options.parts)
    machine = Path("/proc/cpuinfo").read_text().partition("model name")[2].partition(":")[2].partition("\n")[0].strip()
    document = {
        "machine": machine,
        "cores": os.cpu_count(),
        "rounds": options.rounds,
        "noisy": bench.noisy,
        "tables": bench.results,
    }
    # A part does not replace the whole.
    suffix = "" if options.parts == Bench.PARTS else "-" + "-".join(options.parts)
    path = REPOSITORY / "target" / "bench" / f"results{suffix}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"\n{path.relative_to(REPOSITORY)}")
    if bench.noisy:
        print(f"too noisy to quote: {'; '.join(bench.noisy)}")


if __name__ == "__main__":
    main()
