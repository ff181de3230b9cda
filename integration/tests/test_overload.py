"""What strangers can make a worker hold has a bound: past it they get 503, and the requests of others go on."""

import contextlib
import http.client
import itertools
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from integration.harness import aws_chunked, raw
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.peak import Peak
from integration.harness.policies import api_route, s3_route
from integration.stack.process import wait_until

ROLE_ARN = "arn:aws:iam::123456789012:role/nobody-supplies-it"
REQUESTS, BYTES = 6, 200_000
WAIT_MS = 20_000
WAITING = 10_000
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
STREAMED_WITHOUT_CREDENTIALS = raw.http1_head("PUT /streamed/x HTTP/1.1", f"Content-Length: {KIB_60}") + bytes(1000)
CHUNKS_WITHOUT_CREDENTIALS = STALLED_CHUNK.replace(b"POST /s3/bucket/key", b"PUT /streamed/bucket/key")
WHOLE_WITHOUT_CREDENTIALS = (
    raw.http1_head("POST /role/x HTTP/1.1", "Transfer-Encoding: chunked")
    + f"{KIB_60:x}\r\n".encode()
    + bytes(KIB_60)
    + b"\r\n0\r\n\r\n"
)
OF_UNKNOWN_LENGTH = (
    raw.http1_head("PUT /s3/bucket/key HTTP/1.1", "Transfer-Encoding: chunked")
    + f"{KIB_60 + 1:x}\r\n".encode()
    + bytes(KIB_60)
)
# 26 octets on the wire, once HPACK knows it.
LARGE_HEADERS = [(b"x-a", b"v" * 3900)] * 14


# For each kind of held request ten times what the worker may hold, by number or by bytes: the flood, the route that
# refuses its rest, and how much of it can be held at most.
FLOODS = {
    "bodies that are awaited": (lambda port: raw.http1_flood(port, AWAITED, 10 * REQUESTS), "/api", REQUESTS),
    "large bodies": (lambda port: raw.http1_flood(port, LARGE, 10 * BYTES // KIB_60), "/api", BYTES // KIB_60),
    "chunks that are awaited": (
        lambda port: raw.http1_flood(port, STALLED_CHUNK, 10 * BYTES // KIB_60), "/s3", BYTES // KIB_60
    ),
    "headers": (
        lambda port: raw.http2_heads(port, b"/api/x", LARGE_HEADERS, 10 * BYTES // 54_600), "/api", BYTES // 54_600
    ),
    "waiting for credentials": (
        lambda port: raw.http1_flood(port, WITHOUT_CREDENTIALS, 10 * REQUESTS), "/role", REQUESTS
    ),
    "bodies that wait for credentials": (
        lambda port: raw.http1_flood(port, LARGE_WITHOUT_CREDENTIALS, 10 * BYTES // KIB_60), "/role", BYTES // KIB_60
    ),
    "whole bodies that wait for credentials": (
        lambda port: raw.http1_flood(port, WHOLE_WITHOUT_CREDENTIALS, 10 * BYTES // KIB_60), "/role", BYTES // KIB_60
    ),
    "streamed bodies that wait for credentials": (
        lambda port: raw.http1_flood(port, STREAMED_WITHOUT_CREDENTIALS, 10 * BYTES // KIB_60),
        "/streamed",
        BYTES // KIB_60,
    ),
    "chunks that wait for credentials": (
        lambda port: raw.http1_flood(port, CHUNKS_WITHOUT_CREDENTIALS, 10 * BYTES // KIB_60),
        "/streamed",
        BYTES // KIB_60,
    ),
    "bodies of unknown length": (
        lambda port: raw.http1_flood(port, OF_UNKNOWN_LENGTH, 10 * BYTES // KIB_60), "/s3", BYTES // KIB_60
    ),
}  # fmt: skip


@pytest.fixture
def bounded_proxy(start_proxy, api, s3):
    """One worker, so that a bound on each worker is the bound on all."""
    routes = {
        "/api": api_route(api),
        "/s3": s3_route(s3, payload="unsigned"),
        "/role": api_route(api, roleArn=ROLE_ARN),
        "/streamed": s3_route(s3, payload="unsigned", roleArn=ROLE_ARN),
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
    with raw.http1_flood(proxy.port, AWAITED, REQUESTS):
        wait_until(lambda: proxy.envoy.stat("http.traffic.downstream_rq_active") == REQUESTS, "all to be held")
        response = proxy.request("/api/x", "POST", body=b"abcd")

    assert (response.status, response.headers["retry-after"]) == (503, "1")
    error = response.json["error"]
    assert (error["code"], error["route"]) == ("Overloaded", "/api")
    assert "maxHeldRequests" in error["message"]
    wait_until(lambda: '"sigv4":"outcome=Overloaded ' in proxy.envoy.log, "the access log")


def test_many_that_wait_for_credentials_do_not_slow_down_others(start_proxy, api, s3):
    routes = {"/api": api_route(api), "/role": api_route(api, roleArn=ROLE_ARN)}
    proxy = start_proxy({"routes": routes, "credentialsWaitMs": 3 * WAIT_MS, "maxHeldRequests": WAITING}, concurrency=1)
    proxy.push(TEMPORARY_KEY)
    proxy.request("/api")

    def times() -> list[float]:
        times = []
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)) as kept:
            until = time.monotonic() + 2
            while time.monotonic() < until:
                began = time.monotonic()
                kept.request("GET", "/api/quick")
                assert json.loads(kept.getresponse().read())
                times.append(time.monotonic() - began)
        return sorted(times)

    def shown(times: list[float]) -> str:
        return f"{1000 * times[len(times) // 2]:.1f} ms, at most {1000 * times[-1]:.1f} ms, of {len(times)}"

    alone = times()
    # They have no body, whose length would have to be reckoned with.
    with raw.http2_heads(proxy.port, b"/role/x", [(b"content-length", b"0")], WAITING):
        wait_until(lambda: proxy.envoy.stat("http.traffic.downstream_rq_active") == WAITING, "all to wait")
        beside = times()
        # Each change of any credentials lets the worker check all that wait.
        with ThreadPoolExecutor(1) as pool:
            ended = threading.Event()
            pushes = pool.submit(push_until, proxy, ended)
            changing = times()
            ended.set()
        assert pushes.result() >= 3
        assert proxy.envoy.stat("http.traffic.downstream_rq_active") == WAITING
    print(f"alone {shown(alone)}; beside {WAITING} {shown(beside)}; with {pushes.result()} pushes {shown(changing)}")
    for each in (beside, changing):
        assert each[len(each) // 2] < alone[len(alone) // 2] + 0.02
    assert changing[-1] < beside[-1] + 1


def push_until(proxy, ended: threading.Event) -> int:
    """Pushes new credentials for the other route again and again; returns how often."""
    for count in itertools.count(1):
        proxy.push(TEMPORARY_KEY, minutes=30 + count)
        if ended.wait(0.4):
            return count


# The same with the defaults, and the sidecar that docs/performance.md says they fit.

MIB = 1 << 20
DEFAULT_REQUESTS, DEFAULT_BYTES = 1000, 32 * MIB
WORKERS = 2
SIDECAR = 256 * MIB

MIB_OF_BODY = raw.http1_head("POST /api/x HTTP/1.1", "Content-Length: 2000000") + bytes(MIB)
CHUNK_HEAD = f"{MIB:x};chunk-signature={'0' * 64}\r\n".encode()
MIB_OF_CHUNK = (
    raw.http1_head(
        "PUT /s3/bucket/key HTTP/1.1",
        f"Content-Length: {len(CHUNK_HEAD) + MIB + 2 + 88}",
        f"x-amz-decoded-content-length: {MIB}",
        f"x-amz-content-sha256: {aws_chunked.SIGNED}",
    )
    + CHUNK_HEAD
    + bytes(MIB - 1)
)


@contextlib.contextmanager
def paced_http2_flood(port: int, path: bytes, count: int):
    """Opens a few streams at a time. What many at once take until Envoy has read all of them is not the filter's."""
    with contextlib.ExitStack() as stack:
        for _ in range(0, count, 500):
            stack.enter_context(raw.http2_heads(port, path, [(b"content-length", b"0")], 500))
            time.sleep(0.1)
        yield


MIB_PIECES = WORKERS * DEFAULT_BYTES // MIB
DEFAULT_FLOODS = {
    "waiting for credentials": (
        lambda port, count: paced_http2_flood(port, b"/role/x", count),
        "/role",
        WORKERS * DEFAULT_REQUESTS,
    ),
    "bodies that are hashed": (lambda port, count: raw.http1_flood(port, MIB_OF_BODY, count), "/api", MIB_PIECES),
    "chunks that are awaited": (lambda port, count: raw.http1_flood(port, MIB_OF_CHUNK, count), "/s3", MIB_PIECES),
}


@pytest.mark.parametrize(("flood", "route", "held"), DEFAULT_FLOODS.values(), ids=DEFAULT_FLOODS)
def test_a_flood_of_ten_times_the_default_bounds_fits_a_sidecar(start_proxy, api, s3, flood, route, held):
    routes = {
        "/api": api_route(api),
        "/s3": s3_route(s3, payload="unsigned"),
        "/role": api_route(api, roleArn=ROLE_ARN),
    }
    proxy = start_proxy({"routes": routes, "credentialsWaitMs": 6 * WAIT_MS}, concurrency=WORKERS)
    proxy.push(TEMPORARY_KEY)
    for path in ("/api/warm", "/s3/bucket/warm"):
        assert proxy.request(path).status == 200

    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as slow:
        slow.sendall(raw.http1_head("POST /api/slow HTTP/1.1", "Content-Length: 4", "Connection: close") + b"ab")
        wait_until(lambda: proxy.envoy.stat("http.traffic.downstream_rq_active") == 1, "the slow upload to be held")
        with Peak(proxy.envoy.resident_bytes) as peak, flood(proxy.port, 10 * held):
            wait_until(lambda: refused(proxy, route) >= 9 * held, "the flood to be refused")
            for _ in range(5):
                assert proxy.request("/api/other").status == 200
                assert proxy.request("/s3/bucket/key", "PUT", body=bytes(300_000)).status == 200
            slow.sendall(b"cd")
            assert raw.statuses(slow.recv(65536)) == [200]
    print(f"at most {peak.highest / MIB:.0f} MiB")
    assert peak.highest < SIDECAR
    assert not proxy.envoy.dead_vms
