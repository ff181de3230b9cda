"""Bodies that may stream do: no byte waits for the last one."""

import http.client
import socket
import threading

import pytest

from integration.harness import raw
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import policy, s3_route
from integration.harness.upstream import Answer
from integration.stack.process import wait_until


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _s3):
    routes = {
        "/s3": s3_route(_s3),
        "/unsigned": s3_route(_s3, payload="unsigned"),
        "/client": s3_route(_s3, payload="client"),
    }
    proxy = start_shared_proxy(policy(routes))
    proxy.push(TEMPORARY_KEY)
    return proxy


def test_the_first_byte_of_a_response_arrives_before_the_last_is_sent(proxy, s3):
    release = threading.Event()
    s3.answer = Answer(parts=[b"first", release, b"last"])
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    connection.request("GET", "/s3/bucket/key")
    response = connection.getresponse()

    assert response.read1(5) == b"first"
    release.set()
    assert response.read() == b"last"
    connection.close()


def test_a_large_response_comes_whole(proxy, s3):
    part = bytes(range(256)) * 4096
    s3.answer = Answer(parts=[part] * 32)

    assert proxy.request("/s3/bucket/key").body == part * 32


@pytest.mark.parametrize(
    ("route", "headers"), [("/unsigned", {}), ("/client", {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})]
)
def test_an_upload_reaches_the_upstream_while_it_is_still_being_sent(proxy, s3, route, headers):
    lines = ["Content-Length: 20000", "Connection: close", *(f"{name}: {value}" for name, value in headers.items())]
    head = raw.http1_head(f"PUT {route}/bucket/key HTTP/1.1", *lines)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as tcp:
        tcp.sendall(head + b"x" * 10_000)
        wait_until(lambda: s3.arrived == 10_000, "the first half to arrive", timeout=5)
        tcp.sendall(b"x" * 10_000)
        assert tcp.recv(65536).startswith(b"HTTP/1.1 200")

    assert s3.last.verdict.payload == "unsigned"


def test_a_body_that_is_hashed_waits_until_it_is_whole(proxy, s3):
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as tcp:
        tcp.sendall(raw.http1_head("PUT /s3/bucket/key HTTP/1.1", "Content-Length: 8") + b"four")
        with pytest.raises(TimeoutError):
            wait_until(lambda: s3.arrived > 0, "bytes that must not come", timeout=0.5)
        tcp.sendall(b"more")
        assert tcp.recv(65536).startswith(b"HTTP/1.1 200")

    assert s3.last.request.body == b"fourmore"


def test_a_client_that_goes_away_in_the_middle_does_no_harm(proxy, s3):
    for route in ("/s3", "/unsigned"):
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as tcp:
            tcp.sendall(raw.http1_head(f"PUT {route}/b/k HTTP/1.1", "Content-Length: 8") + b"four")

    assert proxy.request("/s3/bucket/key").status == 200
