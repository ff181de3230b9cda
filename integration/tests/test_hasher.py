"""Envoy hashes bodies natively for routes with `payload: envoy`, and no client can pass off its hash as Envoy's."""

import contextlib
import hashlib
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from integration.harness import aws_chunked, raw
from integration.harness.keys import TEMPORARY_KEY, THROWAWAY_SESSION
from integration.harness.peak import Peak
from integration.harness.policies import api_route, policy, s3_route
from integration.stack.aws_servers import REGION
from integration.stack.client import curl, http2
from integration.stack.process import wait_until
from integration.stack.proxy import StockConfiguration

PATHS = "/(s3|api|unmatched)([/?].*)?"
MIB = 1 << 20
SIDECAR = 256 * MIB
FORGED = {
    "none": {},
    "another hash": {"x-amz-content-sha256": hashlib.sha256(b"another").hexdigest()},
    "unsigned": {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"},
}
"""What a client may send for a hash."""


def with_hasher(*, holds: bool = True, without: str = "", clients: str = "127.0.0.0") -> StockConfiguration:
    """Returns the stock configuration with the hasher. A signer that can't hold a request can't hash a body and refuses
    it, so a body that it lets through was hashed by Envoy."""
    configuration = StockConfiguration()
    configuration.add_hasher(PATHS, clients)
    if not holds:
        del configuration.signer["allow_on_headers_stop_iteration"]
    filters = configuration.http_connection_manager("traffic")["http_filters"]
    parts = ("remove_clients_hash", "hash_body", "mark_hash") if without == "all" else (without,)
    filters[:] = [each for each in filters if each["name"] not in parts]
    return configuration


def routes(api, s3) -> dict:
    return {
        "/api": api_route(api, payload="envoy"),
        "/s3": s3_route(s3, payload="envoy"),
        "/streams": s3_route(s3, payload="envoy"),
    }


@pytest.fixture(scope="module")
def native_proxy(start_shared_proxy, _api, _s3):
    """Returns a proxy whose signer can hash no body."""
    proxy = start_shared_proxy(policy(routes(_api, _s3), unmatched="pass"), with_hasher(holds=False))
    proxy.push(TEMPORARY_KEY)
    # A request without a body may wait for the first credentials; afterwards none is held.
    wait_until(lambda: all(proxy.request("/api/warm").status == 200 for _ in range(20)), "every worker")
    return proxy


@pytest.fixture(scope="module")
def hashing_proxy(start_shared_proxy, _api, _s3):
    proxy = start_shared_proxy(policy(routes(_api, _s3)), with_hasher())
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("body", [b"", b"hello world", bytes(range(256)) * 4096], ids=["empty", "11 bytes", "1 MiB"])
@pytest.mark.parametrize("protocol", ["--http1.1", "--http2-prior-knowledge"])
def test_envoy_hashes_the_body_and_the_client_can_not(native_proxy, api, s3, forged, body, protocol):
    for path, upstream in [("/api/orders", api), ("/s3/bucket/key", s3)]:
        options = [protocol, "--expect100-timeout", "0.1"]
        response = native_proxy.request(path, "POST", headers=forged, body=body, options=options)
        assert response.status == 200, upstream.last.refusal
        assert (upstream.last.request.body, upstream.last.verdict.payload) == (body, "signed")
    assert api.last.request.header("x-amz-content-sha256") is None
    assert s3.last.request.header("x-amz-content-sha256") == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("body", [b"hello world", bytes(range(256)) * 4096], ids=["11 bytes", "1 MiB"])
def test_envoy_hashes_a_body_of_unknown_length(native_proxy, api, forged, body):
    headers = forged | {"transfer-encoding": "chunked"}
    assert native_proxy.request("/api/orders", "POST", headers=headers, body=body).status == 200, api.last.refusal

    assert (api.last.request.body, api.last.verdict.payload) == (body, "signed")


AWS_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIDOFENVOY",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "token",
    "AWS_REGION": "eu-west-1",
}


@pytest.mark.parametrize("environment", [{}, AWS_ENVIRONMENT], ids=["", "AWS_*"])
def test_the_hasher_signs_nothing_and_adds_no_header(start_proxy, api, environment):
    sent = []
    for configuration in (StockConfiguration(), with_hasher()):
        configuration.envoy_environment = environment
        configuration.lead_https_to(api.port)
        proxy = start_proxy(policy({"/api": api_route(api)}, unmatched="pass"), configuration)
        headers = {"authorization": "Bearer mine", "x-amz-content-sha256": "a" * 64}
        assert proxy.request("/unmatched", "POST", headers=headers, body=b"body").status == 403
        sent.append([pair for pair in api.last.request.headers if pair[0] not in {"host", "x-request-id"}])
    plain, hashed = sent
    assert ("x-amz-content-sha256", "a" * 64) in plain
    assert hashed == [pair for pair in plain if pair[0] != "x-amz-content-sha256"]


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_a_body_that_ends_with_trailers_is_hashed_by_the_signer(hashing_proxy, api, forged):
    options = {"headers": list(forged.items()), "body": b"order", "trailers": [("x-checksum", "1")]}
    assert http2(hashing_proxy.port, "POST", "/api/orders", **options).status == 200, api.last.refusal

    assert (api.last.request.body, api.last.verdict.payload) == (b"order", "signed")


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("without", ["hash_body", "mark_hash", "all"])
def test_without_a_part_of_the_hasher_no_hash_of_the_client_is_signed(start_proxy, api, s3, forged, without):
    proxy = start_proxy(policy(routes(api, s3)), with_hasher(without=without))
    proxy.push(TEMPORARY_KEY)

    for path, upstream in [("/api/orders", api), ("/s3/bucket/key", s3)]:
        assert proxy.request(path, "POST", headers=forged, body=b"body").status == 200, upstream.last.refusal
        assert upstream.last.verdict.payload == "signed"


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_what_the_matcher_skips_is_hashed_by_the_signer(hashing_proxy, s3, forged):
    response = hashing_proxy.request("/streams/bucket/key", "PUT", headers=forged, body=b"body")

    assert response.status == 200, s3.last.refusal
    assert s3.last.verdict.payload == "signed"


def test_a_hash_in_any_header_is_not_envoys(hashing_proxy, s3):
    headers = {"payload_sha256": "a" * 64, "sigv4": "a" * 64, "x-envoy-metadata": "a" * 64}
    assert hashing_proxy.request("/streams/b/k", "PUT", headers=headers, body=b"body").status == 200

    assert s3.last.verdict.payload == "signed"


def test_a_websocket_passes_both_ways(hashing_proxy, api):
    with socket.create_connection(("127.0.0.1", hashing_proxy.port), timeout=10) as tcp:
        tcp.sendall(raw.http1_head("GET /api/live HTTP/1.1", *raw.WEBSOCKET))
        assert tcp.recv(65536).startswith(b"HTTP/1.1 101"), api.last.refusal
        tcp.sendall(b"\x81\x05hello")
        assert tcp.recv(65536) == b"\x81\x05hello"


@pytest.mark.parametrize("form", aws_chunked.FORMS)
def test_a_chunked_upload_is_signed_chunk_by_chunk(hashing_proxy, s3, form):
    path = "/s3/bucket/key"
    data = bytes(range(256)) * 1024
    upload = aws_chunked.upload(hashing_proxy.url + path, form, data, THROWAWAY_SESSION, REGION)
    response = curl(hashing_proxy.url + path, "PUT", {"Expect": "", **upload.headers}, upload.body)

    assert response.status == 200, s3.last.refusal
    assert s3.last.verdict.payload == "chunked"


def test_an_event_stream_is_refused_at_its_headers(hashing_proxy, api):
    head = raw.http1_head(
        "POST /api/stream HTTP/1.1",
        "Content-Type: application/vnd.amazon.eventstream",
        "Transfer-Encoding: chunked",
    )
    assert raw.statuses(raw.http1(hashing_proxy.port, head)) == [400]


def test_a_body_streams_where_the_matcher_skips_it(start_proxy, s3):
    proxy = start_proxy(policy({"/streams": s3_route(s3, payload="unsigned")}), with_hasher())
    proxy.push(TEMPORARY_KEY)
    head = raw.http1_head("PUT /streams/b/k HTTP/1.1", "Content-Length: 20000")
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as tcp:
        tcp.sendall(head + b"x" * 5_000)
        wait_until(lambda: s3.arrived == 5_000, "the first bytes to arrive", timeout=5)
        tcp.sendall(b"x" * 15_000)
        assert tcp.recv(65536).startswith(b"HTTP/1.1 200"), s3.last.refusal


def test_a_presigned_route_signs_for_the_hash(start_proxy, api):
    query = {"location": "query"}
    proxy = start_proxy(policy({"/api": api_route(api, payload="envoy", signing=query)}), with_hasher())
    proxy.push(TEMPORARY_KEY)

    assert proxy.request("/api/orders", "POST", body=b"body").status == 200, api.last.refusal
    assert (api.last.verdict.location, api.last.verdict.payload) == ("query", "signed")


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2-prior-knowledge"])
def test_a_body_over_the_buffer_gets_413(hashing_proxy, api, protocol):
    response = hashing_proxy.request("/api", "POST", body=bytes(17 * MIB), options=[protocol], timeout=20)

    assert (response.status, response.json["error"]["code"]) == (413, "PayloadTooLarge")
    assert not api.received


def test_bodies_of_clients_that_may_not_fill_the_memory_fit_a_sidecar(start_proxy, api, s3):
    # This machine is not of that network, so the signer holds its bodies, within its bounds: one for each worker.
    configuration = with_hasher(clients="10.0.0.0")
    proxy = start_proxy(policy(routes(api, s3), maxHeldBytes=17 * MIB), configuration)
    proxy.push(TEMPORARY_KEY)
    assert proxy.request("/api/warm", "POST", body=b"body").status == 200
    print(f"idle {proxy.envoy.resident_bytes() / MIB:.0f} MiB")
    # All but the last byte, so that none is complete. Of larger ones, Envoy reads much before the signer can refuse.
    body = raw.http1_head("POST /api/x HTTP/1.1", f"Content-Length: {MIB}") + bytes(MIB - 1)

    def send(_: int) -> None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as tcp:
            tcp.sendall(body)
            tcp.recv(1)

    with Peak(proxy.envoy.resident_bytes) as peak, ThreadPoolExecutor(200) as strangers:
        list(strangers.map(send, range(200)))
    print(f"at most {peak.highest / MIB:.0f} MiB")
    assert peak.highest < SIDECAR
    assert proxy.request("/api/after", "POST", body=b"body").status == 200, api.last.refusal
