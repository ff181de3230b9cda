"""What strangers can make a worker hold has a bound: past it they get 503, and the requests of others go on."""

import contextlib
import json
import socket
import time

import pytest

from integration.harness import aws_chunked, raw
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, s3_route
from integration.stack.process import wait_until

ROLE_ARN = "arn:aws:iam::123456789012:role/nobody-supplies-it"
REQUESTS, BYTES = 6, 200_000
WAIT_MS = 20_000
KIB_60 = 60 << 10


AWAITED = raw.http1_head("POST /api/x HTTP/1.1", "Content-Length: 4") + b"ab"
LARGE = raw.http1_head("POST /api/x HTTP/1.1", "Content-Length: 1000000") + bytes(KIB_60)
CHUNK = f"{KIB_60:x};chunk-signature={'0' * 64}\r\n".encode()
STALLED_CHUNK = (
    raw.http1_head(
        "POST /s3/bucket/key HTTP/1.1",
        f"Content-Length: {len(CHUNK) + KIB_60 + 2 + 88}",
        f"x-amz-decoded-content-length: {KIB_60}",
        f"x-amz-content-sha256: {aws_chunked.SIGNED}",
    )
    + CHUNK
    + bytes(KIB_60 - 1)
)
WITHOUT_CREDENTIALS = raw.http1_head("POST /role/x HTTP/1.1", "Content-Length: 0")
LARGE_WITHOUT_CREDENTIALS = raw.http1_head("POST /role/x HTTP/1.1", "Content-Length: 1000000") + bytes(KIB_60)
# 26 octets on the wire, once HPACK knows it.
LARGE_HEADERS = [(b"x-a", b"v" * 3900)] * 14


@contextlib.contextmanager
def http1_flood(port: int, request: bytes, count: int):
    """As many connections, each with the request and nothing after it."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            tcp = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            with contextlib.suppress(ConnectionError):
                tcp.sendall(request)
        yield


# For each kind of held request ten times what the worker may hold, by number or by bytes: the flood, the route that
# refuses its rest, and how much of it can be held at most.
FLOODS = {
    "bodies that are awaited": (lambda port: http1_flood(port, AWAITED, 10 * REQUESTS), "/api", REQUESTS),
    "large bodies": (lambda port: http1_flood(port, LARGE, 10 * BYTES // KIB_60), "/api", BYTES // KIB_60),
    "chunks that are awaited": (
        lambda port: http1_flood(port, STALLED_CHUNK, 10 * BYTES // KIB_60), "/s3", BYTES // KIB_60
    ),
    "headers": (
        lambda port: raw.http2_heads(port, b"/api/x", LARGE_HEADERS, 10 * BYTES // 54_600), "/api", BYTES // 54_600
    ),
    "waiting for credentials": (
        lambda port: http1_flood(port, WITHOUT_CREDENTIALS, 10 * REQUESTS), "/role", REQUESTS
    ),
    "bodies that wait for credentials": (
        lambda port: http1_flood(port, LARGE_WITHOUT_CREDENTIALS, 10 * BYTES // KIB_60), "/role", BYTES // KIB_60
    ),
}  # fmt: skip


@pytest.fixture
def bounded_proxy(start_proxy, api, s3):
    """One worker, so that a bound on each worker is the bound on all."""
    routes = {
        "/api": api_route(api),
        "/s3": s3_route(s3, payload="unsigned"),
        "/role": api_route(api, roleArn=ROLE_ARN),
    }
    policy = {
        "routes": routes,
        "credentialsWaitMs": WAIT_MS,
        "maxHeldRequests": REQUESTS,
        "maxHeldBytes": BYTES,
    }
    proxy = start_proxy(policy, concurrency=1)
    proxy.push(TEMPORARY_KEY)
    return proxy


def refused(proxy, route: str) -> int:
    return proxy.envoy.stat(f"wasmcustom.sigv4.requests;route={route};outcome=Overloaded")


@pytest.mark.parametrize(("flood", "route", "held"), FLOODS.values(), ids=FLOODS)
def test_a_flood_leaves_the_requests_of_others_untouched(bounded_proxy, api, s3, flood, route, held):
    proxy = bounded_proxy
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as slow:
        slow.sendall(raw.http1_head("POST /api/slow HTTP/1.1", "Content-Length: 4", "Connection: close") + b"ab")
        wait_until(lambda: proxy.envoy.stat("http.traffic.downstream_rq_active") == 1, "the slow upload to be held")
        with flood(proxy.port):
            count = 10 * (REQUESTS if held == REQUESTS else held)
            wait_until(lambda: refused(proxy, route) >= count - held, "the flood to be refused")
            assert refused(proxy, route) < count + 10
            for _ in range(3):
                assert proxy.request("/api/other").status == 200
                assert proxy.request("/s3/bucket/key", "PUT", body=bytes(300_000)).status == 200
            slow.sendall(b"cd")
            assert raw.statuses(slow.recv(65536)) == [200]

    wait_until(
        lambda: proxy.request("/api/again", "POST", body=b"x" * 100_000).status == 200, "what was held to be free"
    )
    assert not proxy.envoy.dead_vms


def test_a_connection_of_the_stock_configuration_has_few_streams(bounded_proxy):
    assert raw.http2_most_streams(bounded_proxy.port) == 100


def test_what_is_too_much_is_refused_with_a_time_to_try_again(bounded_proxy, api):
    proxy = bounded_proxy
    with http1_flood(proxy.port, AWAITED, REQUESTS):
        wait_until(lambda: proxy.envoy.stat("http.traffic.downstream_rq_active") == REQUESTS, "all to be held")
        response = proxy.request("/api/x", "POST", body=b"abcd")

    assert (response.status, response.headers["retry-after"]) == (503, "1")
    error = response.json["error"]
    assert (error["code"], error["route"]) == ("Overloaded", "/api")
    assert "maxHeldRequests" in error["message"]
    wait_until(lambda: '"outcome":"Overloaded"' in proxy.envoy.log, "the access log")


def test_many_that_wait_for_credentials_do_not_slow_down_others(start_proxy, api, s3):
    routes = {"/api": api_route(api), "/role": api_route(api, roleArn=ROLE_ARN)}
    proxy = start_proxy({"routes": routes, "credentialsWaitMs": WAIT_MS, "maxHeldRequests": 10_000}, concurrency=1)
    proxy.push(TEMPORARY_KEY)
    proxy.request("/api")

    def median() -> float:
        times = []
        for _ in range(41):
            began = time.monotonic()
            assert json.loads(raw.http1(proxy.port, QUICK).partition(b"\r\n\r\n")[2])
            times.append(time.monotonic() - began)
        return sorted(times)[20]

    alone = median()
    # They have no body, whose length would have to be reckoned with.
    with raw.http2_heads(proxy.port, b"/role/x", [(b"content-length", b"0")], 8000):
        wait_until(lambda: proxy.envoy.stat("http.traffic.downstream_rq_active") == 8000, "all to wait")
        assert median() < alone + 0.05


QUICK = raw.http1_head("GET /api/quick HTTP/1.1", "Connection: close")
