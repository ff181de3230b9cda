"""A body of signed events is refused at its headers, while it is open: its signatures can't be replaced."""

import socket
import time

import pytest

from integration.harness import raw
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, policy, s3_route
from integration.stack.client import Http2

EVENTS = "STREAMING-AWS4-HMAC-SHA256-EVENTS"
EVENT_STREAM = "application/vnd.amazon.eventstream"

MODES = ["auto", "signed", "unsigned", "client"]
# The first bytes of an event, as they arrive while the rest of the stream is still being spoken.
EVENT = bytes.fromhex("0000005d00000051") + b"\x05:date\x08" + bytes(8) + b"\x10:chunk-signature"


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _api, _s3):
    routes = {
        **{f"/api/{mode}": api_route(_api, payload=mode) for mode in MODES},
        **{f"/s3/{mode}": s3_route(_s3, payload=mode) for mode in MODES},
        "/lattice": {**api_route(_api), "service": "vpc-lattice-svcs"},
        "/query": api_route(_api, signing={"location": "query"}),
    }
    proxy = start_shared_proxy(policy(routes))
    proxy.push(TEMPORARY_KEY)
    return proxy


def post_open(proxy, path: str, headers: list[tuple[str, str]]) -> tuple[int, dict]:
    """Returns the answer to a POST over HTTP/1.1 whose body has begun and does not end; it must arrive within a
    second."""
    lines = [f"{name}: {value}" for name, value in headers]
    head = raw.http1_head(f"POST {path} HTTP/1.1", "Transfer-Encoding: chunked", *lines)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=1) as tcp:
        tcp.sendall(head + b"%x\r\n%s\r\n" % (len(EVENT), EVENT))
        return raw.read_error(tcp)


def post_open_http2(proxy, path: str, headers: list[tuple[str, str]]) -> tuple[int, dict]:
    started = time.monotonic()
    lower = [(name.lower(), value) for name, value in headers]
    with Http2(proxy.port, timeout=1) as connection:
        response = connection.request("POST", path, headers=lower, body=EVENT, ends=False)
    assert time.monotonic() - started < 1
    return response.status, response.json["error"]


PROTOCOLS = pytest.mark.parametrize("post", [post_open, post_open_http2], ids=["HTTP/1.1", "HTTP/2"])


def is_refused_with_advice(answer: tuple[int, dict]) -> bool:
    status, error = answer
    return (status, error["code"]) == (400, "UnsupportedRequest") and "bypass the proxy" in error["message"]


@PROTOCOLS
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("route", ["/api", "/s3"])
def test_signed_events_are_refused_in_every_mode(proxy, api, s3, post, route, mode):
    headers = [("Content-Type", EVENT_STREAM), ("X-Amz-Content-SHA256", EVENTS)]

    assert is_refused_with_advice(post(proxy, f"{route}/{mode}/stream", headers))
    assert not api.received and not s3.received


@PROTOCOLS
@pytest.mark.parametrize("mode", MODES)
def test_the_content_type_alone_tells_signed_events(proxy, api, post, mode):
    assert is_refused_with_advice(post(proxy, f"/api/{mode}/stream", [("Content-Type", EVENT_STREAM)]))
    assert not api.received


@PROTOCOLS
@pytest.mark.parametrize("route", ["/lattice", "/query"])
@pytest.mark.parametrize("header", [("Content-Type", EVENT_STREAM), ("X-Amz-Content-SHA256", EVENTS)])
def test_signed_events_are_refused_whatever_is_signed(proxy, api, post, route, header):
    assert is_refused_with_advice(post(proxy, f"{route}/stream", [header]))
    assert not api.received


@PROTOCOLS
@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Type", "Application/VND.amazon.EventStream")],
        [("Content-Type", f"{EVENT_STREAM}; charset=utf-8")],
        [("Content-Type", f"{EVENT_STREAM} ;a=b")],
        [("Content-Type", "application/json"), ("Content-Type", EVENT_STREAM)],
        [("Content-Type", EVENT_STREAM), ("Content-Type", "application/json")],
        [("X-Amz-Content-SHA256", EVENTS.lower())],
        [("X-Amz-Content-SHA256", "STREAMING-AWS4-ECDSA-P256-SHA256-EVENTS")],
        [("X-Amz-Content-SHA256", "0" * 64), ("X-Amz-Content-SHA256", EVENTS)],
        [("X-Amz-Content-SHA256", EVENTS), ("X-Amz-Content-SHA256", "UNSIGNED-PAYLOAD")],
        [("X-Amz-Content-SHA256", f"UNSIGNED-PAYLOAD, {EVENTS}")],
        [("Content-Type", EVENT_STREAM), ("X-Amz-Content-SHA256", "UNSIGNED-PAYLOAD")],
    ],
    ids=str,
)
def test_signed_events_are_known_in_every_spelling(proxy, api, post, headers):
    for mode in MODES:
        assert is_refused_with_advice(post(proxy, f"/api/{mode}/stream", headers)), mode
    assert not api.received


@PROTOCOLS
@pytest.mark.parametrize(
    "form",
    [
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
        "streaming-unsigned-payload-trailer",
        "STREAMING-OF-TOMORROW",
    ],
)
def test_no_other_service_than_s3_takes_a_streaming_form(proxy, api, post, form):
    for mode in MODES:
        status, error = post(proxy, f"/api/{mode}/stream", [("X-Amz-Content-SHA256", form)])
        assert (status, error["code"], error["route"]) == (400, "UnsupportedRequest", f"/api/{mode}"), mode
        assert "send" in error["message"]
    assert not api.received


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_of_known_length_is_refused_too(proxy, api, mode):
    response = proxy.request(f"/api/{mode}/stream", "POST", headers={"Content-Type": EVENT_STREAM}, body=EVENT)

    assert (response.status, response.json["error"]["code"]) == (400, "UnsupportedRequest")
    assert not api.received


@pytest.mark.parametrize("mode", MODES)
def test_s3_stores_an_object_of_that_content_type(proxy, s3, mode):
    headers = {"Content-Type": EVENT_STREAM}

    assert proxy.request(f"/s3/{mode}/bucket/key", "PUT", headers=headers, body=EVENT).status == 200, s3.last.refusal
    assert s3.last.request.body == EVENT


@pytest.mark.parametrize("mode", MODES)
def test_a_request_that_asks_for_a_stream_and_has_no_body_of_events_is_signed(proxy, api, mode):
    for method, headers, body in [
        ("GET", {"Content-Type": EVENT_STREAM}, None),
        ("GET", {"Accept": EVENT_STREAM}, None),
        ("POST", {"Accept": EVENT_STREAM, "Content-Type": "application/json"}, b"{}"),
    ]:
        assert proxy.request(f"/api/{mode}/stream", method, headers=headers, body=body).status == 200, api.last.refusal


def test_a_websocket_upgrade_is_signed(proxy, api):
    head = raw.http1_head("GET /api/auto/stream HTTP/1.1", *raw.WEBSOCKET, f"Content-Type: {EVENT_STREAM}")
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as tcp:
        tcp.sendall(head)
        assert tcp.recv(65536).startswith(b"HTTP/1.1 101")
        tcp.sendall(EVENT)
        assert tcp.recv(65536) == EVENT
