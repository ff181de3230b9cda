"""WebSocket upgrades and gRPC calls are signed and pass."""

import socket

import pytest

from integration.harness import raw
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, policy
from integration.stack.client import http2


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _api):
    routes = {
        "/header": api_route(_api, "/prod"),
        "/query": api_route(_api, "/prod", signing={"location": "query"}),
        "/sigv4a": api_route(_api, "/prod", signing={"algorithm": "sigv4a", "regionSet": "*"}),
        "/unsigned": api_route(_api, "/prod", payload="unsigned"),
        "/client": api_route(_api, "/prod", payload="client"),
    }
    proxy = start_shared_proxy(policy(routes))
    proxy.push(TEMPORARY_KEY)
    return proxy


ROUTES = pytest.mark.parametrize("route", ["/header", "/query", "/sigv4a", "/unsigned", "/client"])


@ROUTES
def test_a_websocket_upgrade_is_signed_and_passes_bytes_both_ways(proxy, api, route):
    head = raw.http1_head(f"GET {route}/live?room=1 HTTP/1.1", *raw.WEBSOCKET)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as tcp:
        tcp.sendall(head)
        answer = tcp.recv(65536)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        for frame in (b"\x81\x05hello", b"\x82\x04\xff\x00\xfe\x01", b"x" * 50_000):
            tcp.sendall(frame)
            echoed = b""
            while len(echoed) < len(frame) and (part := tcp.recv(65536)):
                echoed += part
            assert echoed == frame

    assert api.last.request.target.startswith("/prod/live?room=1")
    assert not {"connection", "upgrade", "sec-websocket-key"} & set(api.last.verdict.signed_headers)


@ROUTES
@pytest.mark.parametrize(
    "body", [b"", b"\0\0\0\0\5order", b"\0\0\0\xea\x60" + b"x" * 60_000], ids=["empty", "small", "60 kB"]
)
def test_a_grpc_call_with_trailers_is_signed_and_passes(proxy, api, route, body):
    headers = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "5S")]
    options = {"headers": headers, "body": body, "trailers": [("x-checksum", "1")]}
    response = http2(proxy.port, "POST", f"{route}/orders.Orders/Get", **options)

    assert response.status == 200, api.last.refusal
    assert api.last.request.body == body
    assert "content-type" in api.last.verdict.signed_headers
    assert not {"te", "grpc-timeout"} & set(api.last.verdict.signed_headers)


def test_a_refusal_reaches_a_grpc_client(proxy, api):
    headers = [("content-type", "application/grpc"), ("te", "trailers")]
    response = http2(proxy.port, "POST", "/nowhere/orders.Orders/Get", headers=headers)

    # Envoy turns local replies to gRPC into trailers-only answers.
    assert response.status == 200
    assert response.headers["grpc-status"] not in ("", "0")
    assert not api.received
