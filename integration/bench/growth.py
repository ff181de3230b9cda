"""What grows with routes, identities and callers: memory, and the time to load a policy, to push, and to serve callers
who come together.

Envoy's figures are of the stock configuration with two workers, and those of a virtual machine of the compiled filter
in wasmtime. Each is measured once: they are sizes and delays that a person would notice, not costs of a request.

    python -m integration.bench.growth
"""

import asyncio
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from botocore.credentials import Credentials

from integration.harness.authentication import ISSUER, jwt_authn, token, with_filter_before_the_signer
from integration.harness.keys import STATIC_KEY
from integration.harness.sts import QuickSts
from integration.harness.wasm_host import WasmHost
from integration.stack.intake import credential_document
from integration.stack.process import wait_until
from integration.stack.proxy import WASM, Proxy
from integration.stack.refresher import Refresher

ACCOUNT = "arn:aws:iam::123456789012:role"
# As long as AWS's.
KEY = Credentials("ASIAEXAMPLE", "bPxRfiCYEXAMPLEKEY/K7MDENG+wJalrXUtnFEMI", "t" * 728)
TARGET = {"target": "https://sqs.eu-west-1.amazonaws.com"}


def mib(size: float) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def routes(count: int, **members) -> dict:
    return {"routes": {f"/team-{number}/orders": {**TARGET, **members} for number in range(count)}}


def roles(count: int) -> dict:
    policy = routes(count)
    for number, route in enumerate(policy["routes"].values()):
        route["roleArn"] = f"{ACCOUNT}/orders-reader-{number}"
    return policy


def loaded(policy: dict) -> tuple[float, int]:
    """Returns the time that a virtual machine takes to load a policy, and its memory then."""
    WasmHost(WASM, routes(1), {})
    start = time.monotonic()
    host = WasmHost(WASM, policy, {})
    return time.monotonic() - start, host.memory_bytes


def of_policies(directory: Path) -> None:
    for title, policies in (("routes", routes), ("routes, each with a role", roles)):
        for count in (1, 10, 100, 1000, 10_000):
            took, memory = loaded(policies(count))
            place = directory / f"{title[:10]}{count}".replace(" ", "-")
            place.mkdir()
            with Proxy(place, policies(count)) as proxy:
                wait_until(proxy.identities, "the policy to load", timeout=60)
                time.sleep(2)
                resident = proxy.envoy.resident_bytes()
            size = len(json.dumps(policies(count)))
            print(
                f"{count:>6} {title}: a policy of {size >> 10} KiB loads in {took * 1000:.0f} ms; "
                f"a virtual machine takes {mib(memory)}, Envoy {mib(resident)}"
            )


def of_pushes(directory: Path) -> None:
    (directory / "pushes").mkdir()
    with Proxy(directory / "pushes", roles(1000)) as proxy:
        wait_until(lambda: len(proxy.identities()) == 1000, "the identities", timeout=60)
        before, document = proxy.envoy.resident_bytes(), credential_document(KEY)
        start = time.monotonic()

        def push(identity: str) -> int:
            return proxy.intake(f"/v1/identities/{identity}/credentials", "PUT", document).status

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(push, proxy.identities())) == {204}
        took = time.monotonic() - start
        time.sleep(2)
        grown = mib(proxy.envoy.resident_bytes() - before)
        print(f"1,000 pushes with curl, 8 at a time: {took:.1f} s; Envoy grows by {grown}")


def of_callers(directory: Path, count: int) -> None:
    """Serves callers who come together for the first time, each with a role of its own."""
    place = directory / f"callers-{count}"
    place.mkdir()
    route = {
        **TARGET,
        "callers": [{"issuer": ISSUER}],
        "roleArn": f"{ACCOUNT}/mesh-{{claim:team}}",
        # The client is answered by the proxy itself, as soon as the request is signed.
        "signing": {"location": "query", "redirect": True},
    }
    policy = {"routes": {"/a": route}, "maxCallerIdentities": count + 1, "credentialsWaitMs": 30_000}
    policy["maxHeldRequests"] = max(count, 1000)
    configuration = with_filter_before_the_signer(jwt_authn(payload_in_metadata="jwt"))
    tokens = [token(team=f"team-{number}") for number in range(count)]
    with QuickSts() as sts, Proxy(place, policy, configuration) as proxy:
        refresher = Refresher(place, proxy, sts, credentials=STATIC_KEY)
        refresher.start()
        wait_until(
            lambda: proxy.request("/a", headers={"authorization": f"Bearer {token(team='x')}"}).status == 307, "one"
        )
        before = proxy.envoy.resident_bytes()
        for what in ("for the first time", "again"):
            calls = sts.calls
            statuses, delays = asyncio.run(together(proxy.port, tokens))
            delays.sort()
            print(
                f"{count:>6} callers at once, {what}: {statuses}, {sts.calls - calls} calls to STS; "
                f"half served in {delays[len(delays) // 2]:.2f} s, the last in {delays[-1]:.2f} s; "
                f"Envoy has grown by {mib(proxy.envoy.resident_bytes() - before)}"
            )
        refresher.stop()


async def together(port: int, tokens: list[str]) -> tuple[dict[int, int], list[float]]:
    """Sends a request for each token at the same time; returns how many got which status, and the delays."""
    statuses: dict[int, int] = {}
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in tokens]
    start = time.monotonic()

    async def send(connection, value: str) -> float:
        reader, writer = connection
        head = f"GET /a HTTP/1.1\r\nhost: app\r\nauthorization: Bearer {value}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode())
        status = int((await reader.readline()).split()[1])
        statuses[status] = statuses.get(status, 0) + 1
        delay = time.monotonic() - start
        writer.close()
        return delay

    delays = await asyncio.gather(*map(send, connections, tokens))
    return statuses, list(delays)


def main() -> None:
    """Prints a line for each measurement."""
    with tempfile.TemporaryDirectory(prefix="growth-") as name:
        directory = Path(name)
        of_policies(directory)
        of_pushes(directory)
        for count in (100, 1000):
            of_callers(directory, count)


if __name__ == "__main__":
    main()
