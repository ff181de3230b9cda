"""A route's payload mode decides how the body is signed, and when it is sent."""

import hashlib
import json
import socket
import subprocess
import time

import pytest

from integration.harness import raw
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, policy, s3_route
from integration.harness.upstream import Upstream
from integration.stack.client import http2
from integration.stack.process import wait_until
from integration.stack.proxy import StockConfiguration


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _api, _s3):
    routes = {
        "/signed": s3_route(_s3, payload="signed"),
        "/unsigned": s3_route(_s3, payload="unsigned"),
        "/client": s3_route(_s3, payload="client"),
        "/auto": s3_route(_s3),
        "/api": api_route(_api),
    }
    proxy = start_shared_proxy(policy(routes))
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.mark.parametrize(
    ("route", "payload"), [("/signed", "signed"), ("/unsigned", "unsigned"), ("/client", "signed"), ("/auto", "signed")]
)
def test_the_mode_decides_what_is_signed(proxy, s3, route, payload):
    assert proxy.request(f"{route}/bucket/key", "PUT", body=b"object").status == 200, s3.last.refusal

    assert s3.last.verdict.payload == payload


def test_an_upload_to_s3_over_tls_is_left_unsigned_by_auto(start_proxy, authority, s3_verifier):
    configuration = StockConfiguration()
    configuration.trust(authority.certificate)
    with Upstream(s3_verifier, tls=authority.server_context("localhost")) as s3:
        proxy = start_proxy(policy({"/s3": s3_route(s3)}), configuration)
        proxy.push(TEMPORARY_KEY)

        assert proxy.request("/s3/bucket/key", "PUT", body=b"object").status == 200
        assert s3.last.verdict.payload == "unsigned"
        assert proxy.request("/s3/bucket/key").status == 200
        assert s3.last.verdict.payload == "signed"


def test_a_hash_that_the_client_gave_is_signed_for(proxy, s3):
    headers = {"X-Amz-Content-SHA256": hashlib.sha256(b"object").hexdigest()}

    assert proxy.request("/client/bucket/key", "PUT", headers=headers, body=b"object").status == 200
    assert s3.last.verdict.payload == "signed"


def test_a_false_hash_that_the_client_gave_is_for_the_upstream_to_refuse(proxy, s3):
    headers = {"X-Amz-Content-SHA256": hashlib.sha256(b"another").hexdigest()}

    assert proxy.request("/client/bucket/key", "PUT", headers=headers, body=b"object").status == 403
    assert s3.last.refusal == "X-Amz-Content-SHA256 is not the hash of the body"


@pytest.fixture(scope="module")
def small_proxy(start_shared_proxy, _api):
    """Returns a proxy that buffers at most 64 KiB."""
    configuration = StockConfiguration()
    configuration.listener("traffic")["per_connection_buffer_limit_bytes"] = 64 * 1024
    # Over HTTP/2, the stream's window bounds Envoy's buffer.
    window = {"initial_stream_window_size": 65536}
    configuration.http_connection_manager("traffic")["http2_protocol_options"] = window
    routes = {"/api": api_route(_api), "/unsigned": api_route(_api, payload="unsigned")}
    proxy = start_shared_proxy(policy(routes), configuration)
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.mark.parametrize("headers", [{}, {"Expect": ""}, {"Expect": "100-continue"}], ids=["", "no Expect", "Expect"])
@pytest.mark.parametrize("size", [70_000, 1_000_000, 20_000_000])
def test_a_body_that_outgrows_the_buffer_gets_413_and_is_not_sent(small_proxy, api, size, headers):
    response = small_proxy.request("/api/orders", "POST", headers=headers, body=b"x" * size, timeout=15)

    assert (response.status, response.headers["content-type"]) == (413, "application/json")
    error = response.json["error"]
    assert (error["code"], error["route"]) == ("PayloadTooLarge", "/api")
    assert "per_connection_buffer_limit_bytes" in error["message"]
    assert not api.received
    assert small_proxy.request("/api/orders", "POST", body=b"x" * 60_000).status == 200


def test_a_body_of_unknown_length_that_outgrows_the_buffer_gets_413(small_proxy, api):
    headers = {"Transfer-Encoding": "chunked"}
    response = small_proxy.request("/api", "POST", headers=headers, body=b"x" * 1_000_000, timeout=15)

    assert (response.status, response.json["error"]["code"]) == (413, "PayloadTooLarge")
    assert not api.received


def test_a_body_that_outgrows_the_buffer_of_an_http2_stream_gets_413(small_proxy, api):
    response = http2(small_proxy.port, "POST", "/api", body=b"x" * 2_000_000)

    assert (response.status, response.json["error"]["code"]) == (413, "PayloadTooLarge")
    assert not api.received


def test_a_body_that_streams_may_outgrow_the_buffer(small_proxy, api):
    assert small_proxy.request("/unsigned", "POST", body=b"x" * 20_000_000).status == 200
    assert len(api.last.request.body) == 20_000_000


@pytest.mark.parametrize("route", ["/signed", "/unsigned", "/client", "/auto", "/api"])
def test_a_client_that_waits_for_100_continue_is_told_to_go_on(proxy, request, route):
    upstream = request.getfixturevalue("api" if route == "/api" else "s3")
    body = bytes(range(256)) * (2 << 12)

    # curl waits for ten seconds, longer than the request may take.
    headers, options = {"Expect": "100-continue"}, ["--expect100-timeout", "10"]
    response = proxy.request(f"{route}/b/k", "PUT", headers=headers, body=body, timeout=8, options=options)

    assert response.status == 200, upstream.last.refusal
    assert upstream.last.request.body == body


@pytest.mark.parametrize("claimed", ["hash", "UNSIGNED-PAYLOAD"])
def test_with_a_hash_of_the_client_the_body_streams(proxy, s3, claimed):
    body = b"x" * 20_000
    value = hashlib.sha256(body).hexdigest() if claimed == "hash" else claimed
    head = raw.http1_head("PUT /client/b/k HTTP/1.1", "Content-Length: 20000", f"X-Amz-Content-SHA256: {value}")
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as tcp:
        tcp.sendall(head + body[:5_000])
        wait_until(lambda: s3.arrived == 5_000, "the first bytes to arrive", timeout=5)
        tcp.sendall(body[5_000:])
        assert tcp.recv(65536).startswith(b"HTTP/1.1 200"), s3.last.refusal

    assert s3.last.verdict.payload == ("signed" if claimed == "hash" else "unsigned")


@pytest.mark.parametrize("value", ["", "no hash", "g" * 64, "0" * 63, "0" * 65, "unsigned-payload"])
def test_what_the_client_sends_for_a_hash_and_is_none_is_dropped(proxy, s3, value):
    response = proxy.request("/client/b/k", "PUT", headers={"X-Amz-Content-SHA256": value}, body=b"object")

    assert response.status == 200, s3.last.refusal
    assert s3.last.verdict.payload == "signed"


def test_a_proxy_that_can_not_hold_a_request_at_its_headers_says_so(start_proxy, api):
    configuration = StockConfiguration()
    del configuration.signer["allow_on_headers_stop_iteration"]
    proxy = start_proxy(policy({"/api": api_route(api)}), configuration)
    proxy.push(TEMPORARY_KEY)

    response = proxy.request("/api", "POST", body=b"x", timeout=10)

    assert (response.status, response.json["error"]["code"]) == (500, "SigningFailed")
    assert "allow_on_headers_stop_iteration" in response.json["error"]["message"]
    assert not api.received


@pytest.mark.parametrize("body", [b"", b"x", b"order" * 20_000], ids=["empty", "a byte", "100 kB"])
@pytest.mark.parametrize("route", ["/api", "/signed/bucket/key"])
def test_a_hashed_body_goes_out_with_its_length(proxy, api, s3, route, body):
    upstream = api if route == "/api" else s3
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part) + b"0\r\n\r\n"
    request = raw.http1_head(f"PUT {route} HTTP/1.1", "Transfer-Encoding: chunked") + chunked
    assert raw.statuses(raw.http1(proxy.port, request)) == [200], upstream.last.refusal
    assert_sent_with_length(upstream, body)

    upstream.reset()
    # curl does not know the length of standard input.
    upload = ["curl", "-s", "--http2-prior-knowledge", "--noproxy", "*", "-T", "-", proxy.url + route]
    subprocess.run(upload, input=body, capture_output=True, check=True)
    assert_sent_with_length(upstream, body)


def assert_sent_with_length(upstream, body: bytes) -> None:
    assert upstream.last.accepted, upstream.last.refusal
    assert upstream.last.request.body == body
    assert upstream.last.request.header("content-length") == str(len(body))
    assert upstream.last.request.header("transfer-encoding") is None


def test_a_length_that_the_client_gave_is_left_alone(proxy, api):
    assert proxy.request("/api", "POST", body=b"order").status == 200, api.last.refusal

    assert [value for name, value in api.last.request.headers if name == "content-length"] == ["5"]


def test_a_hashed_body_that_waits_for_credentials_goes_out_with_its_length(start_proxy, api):
    proxy = start_proxy(policy({"/api": api_route(api)}))
    script = f"echo order | curl -s -T - {proxy.url}/api/early"
    with subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE) as client:
        time.sleep(0.5)
        proxy.push(TEMPORARY_KEY)
        client.communicate(timeout=20)

    assert_sent_with_length(api, b"order\n")


def test_a_hashed_body_with_trailers_stays_chunked(start_proxy, api):
    """HTTP/1.1 has trailers only with chunks; here the upstream's connection accepts them."""
    configuration = StockConfiguration()
    options = {"explicit_http_config": {"http_protocol_options": {"enable_trailers": True}}}
    protocols = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    cluster = configuration.cluster("http")
    cluster["cluster_type"]["typed_config"]["allow_insecure_cluster_options"] = True
    cluster["typed_extension_protocol_options"] = {
        protocols: {"@type": f"type.googleapis.com/{protocols}", **options},
    }
    proxy = start_proxy(policy({"/api": api_route(api)}), configuration)
    proxy.push(TEMPORARY_KEY)

    assert http2(proxy.port, "POST", "/api", body=b"order", trailers=[("x-checksum", "1")]).status == 200
    assert api.last.request.body == b"order"
    assert api.last.request.header("content-length") is None
    assert api.last.trailers == [("x-checksum", "1")]


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2-prior-knowledge"])
def test_a_body_that_comes_late_is_awaited(proxy, api, protocol):
    # Longer than the check whether the proxy withholds the body.
    script = f"(sleep 2.5; echo order) | curl -s {protocol} -T - {proxy.url}/api/late"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)

    assert json.loads(done.stdout)["bodyLength"] == len("order\n"), done.stdout
    assert api.last.accepted, api.last.refusal
