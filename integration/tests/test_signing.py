"""Requests through the proxy arrive signed, and any change on the way is refused."""

import pytest

from integration.harness.keys import STATIC_KEY, TEMPORARY_KEY
from integration.harness.policies import api_route, policy
from integration.harness.upstream import Upstream
from integration.stack.capture import Capture
from integration.stack.client import curl, http2
from integration.stack.proxy import StockConfiguration

EIGHT_MIB = bytes(range(256)) * (8 << 12)

HTTP_VERSIONS = pytest.mark.parametrize("http2", [False, True], ids=["http/1.1", "http/2"])


@HTTP_VERSIONS
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_request_without_a_body_is_accepted(proxy, api, method, http2):
    assert proxy.request("/api/orders/1", method, http2=http2).status == 200

    assert api.last.request.method == method
    assert api.last.request.target == "/prod/orders/1"
    assert api.last.request.body == b""


@HTTP_VERSIONS
@pytest.mark.parametrize("body", [b"", b"{}", EIGHT_MIB], ids=["empty", "small", "8 MiB"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_request_with_a_body_is_accepted_and_its_body_signed(proxy, api, method, body, http2):
    assert proxy.request("/api/orders", method, body=body, http2=http2).status == 200

    assert api.last.request.body == body
    assert api.last.verdict.payload == "signed"


@HTTP_VERSIONS
@pytest.mark.parametrize("body", [b"", b"object", EIGHT_MIB], ids=["empty", "small", "8 MiB"])
def test_an_upload_to_s3_is_accepted(proxy, s3, body, http2):
    assert proxy.request("/s3/bucket/key", "PUT", body=body, http2=http2).status == 200

    assert s3.last.request.body == body


def test_a_body_of_unknown_length_is_accepted(proxy, api):
    headers = {"Transfer-Encoding": "chunked"}
    assert proxy.request("/api/orders", "POST", headers=headers, body=b"x" * 100_000).status == 200

    assert len(api.last.request.body) == 100_000


@pytest.mark.parametrize("body", [b"", b"grpc frame", b"x" * 60_000], ids=["no body", "small", "60 kB"])
def test_a_body_followed_by_trailers_is_accepted(proxy, api, body):
    response = http2(proxy.port, "POST", "/api/orders", body=body, trailers=[("x-checksum", "1")])

    assert response.status == 200
    assert api.last.request.body == body
    assert api.last.verdict.payload == "signed"


def test_a_client_that_waits_for_100_continue_is_served(proxy, api):
    headers = {"Expect": "100-continue"}

    assert proxy.request("/api/orders", "POST", headers=headers, body=b"x" * 2_000_000).status == 200


@pytest.mark.parametrize("credentials", [STATIC_KEY, TEMPORARY_KEY], ids=["static", "temporary"])
def test_the_pushed_credentials_are_the_ones_that_sign(start_proxy, api, credentials):
    proxy = start_proxy(policy({"/api": api_route(api)}))
    proxy.push(credentials)

    assert proxy.request("/api").status == 200
    assert api.last.verdict.access_key_id == credentials.access_key
    assert api.last.request.header("x-amz-security-token") == credentials.token


PATHS = ["/a%20b", "/a@b:c,d;e", "/%C3%BC", "/a//b/", "/a=b/c&d", "/a+b", "/a%2Fb", "/a%25b", "/!*'()$", "/~._-"]
QUERIES = ["", "a=1&b=2", "b=2&a=1", "a=2&a=1", "list-type", "prefix=", "a=%20+%2B", "a=b/c:d@e", "a=b=c", "%C3%BC=1"]


@pytest.mark.parametrize("path", [*PATHS, "/a%5b1%5D", "/%40"])
@pytest.mark.parametrize("service", ["api", "s3"])
def test_special_characters_in_the_path_are_signed_as_the_upstream_reads_them(proxy, request, service, path):
    upstream = request.getfixturevalue(service)

    assert proxy.request(f"/{service}{path}").status == 200, upstream.last.refusal


@pytest.mark.parametrize("service", ["api", "s3"])
def test_bytes_outside_ascii_in_the_path_are_signed_as_the_upstream_reads_them(proxy, request, service):
    upstream = request.getfixturevalue(service)

    # Over HTTP/1.1 Envoy refuses them itself.
    assert proxy.request(f"/{service}/ü/日本?q=ü", http2=True).status == 200, upstream.last.refusal


@pytest.mark.parametrize("query", [*QUERIES, "A=1&a=2", "a=%7E~", "&&a"])
@pytest.mark.parametrize("service", ["api", "s3"])
def test_queries_are_signed_as_the_upstream_reads_them(proxy, request, service, query):
    upstream = request.getfixturevalue(service)

    assert proxy.request(f"/{service}/x?{query}").status == 200, upstream.last.refusal


def test_what_the_client_signed_is_dropped(proxy, api):
    headers = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=THROWAWAY/20200101/eu-west-1/execute-api/aws4_request, ...",
        "X-Amz-Date": "20200101T000000Z",
        "X-Amz-Security-Token": "throwaway",
        "X-Amz-Content-SHA256": "0" * 64,
    }
    assert proxy.request("/api", headers=headers).status == 200

    assert api.last.verdict.access_key_id == TEMPORARY_KEY.access_key


def test_presigning_parameters_of_the_client_are_dropped(proxy, s3):
    presigned = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=T%2F20200101&X-Amz-Signature=0&X-Amz-Expires=60"
    assert proxy.request(f"/s3/bucket?{presigned}&list-type=2").status == 200

    assert s3.last.request.target == "/bucket?list-type=2"


def test_the_headers_that_matter_are_signed_and_those_that_hops_change_are_not(proxy, api):
    headers = {
        "Content-Type": "text/plain",
        "X-Amz-Meta-Colour": "  light   blue ",
        "User-Agent": "tests",
        "X-Forwarded-For": "192.0.2.1",
        "X-Request-Id": "1",
        "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "Cookie": "a=1",
    }
    assert proxy.request("/api", "POST", headers=headers, body=b"x").status == 200

    signed = set(api.last.verdict.signed_headers)
    assert {"host", "content-type", "x-amz-date", "x-amz-security-token", "x-amz-meta-colour"} <= signed
    assert not signed & {"user-agent", "x-forwarded-for", "x-request-id", "traceparent", "cookie", "content-length"}


def test_several_values_of_a_signed_header_are_accepted(proxy, api):
    headers = [("X-Amz-Meta-Tag", "a"), ("X-Amz-Meta-Tag", "b")]

    assert proxy.request("/api", headers=headers).status == 200, api.last.refusal


def test_headers_that_are_no_text_do_no_harm(proxy, api):
    assert proxy.request("/api", headers={"X-Odd": "\udcff\udcfe", "Cookie": "\udc80"}).status == 200
    assert proxy.request("/api").status == 200


def test_the_host_that_is_signed_is_the_one_that_is_sent(proxy, api):
    assert proxy.request("/api", headers={"Host": "app.internal"}).status == 200

    assert api.last.request.header("host") == f"127.0.0.1:{api.port}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"/prod/orders", b"/prod/order5"),
        (b"content-type: text/plain", b"content-type: text/plaim"),
        (b"a body", b"A body"),
        (b"Signature=", b"Signature-"),
        (b"POST", b"PUTS"),
        (b"?id=1", b"?id=2"),
    ],
    ids=["path", "signed header", "body", "signature", "method", "query"],
)
def test_a_byte_changed_between_envoy_and_the_upstream_is_refused(start_proxy, api, old, new):
    with Capture(api.port) as capture:
        route = api_route(capture, "/prod")
        proxy = start_proxy(policy({"/api": route}))
        proxy.push(TEMPORARY_KEY)
        order = {"method": "POST", "headers": {"Content-Type": "text/plain"}, "body": b"a body"}
        assert proxy.request("/api/orders?id=1", **order).status == 200

        capture.change(old, new)

        assert proxy.request("/api/orders?id=1", **order).status == 403
        assert capture.changed == 1


def test_a_request_past_the_proxy_is_refused(api):
    assert curl(api.url + "/prod/orders").status == 403


def test_an_https_target_is_reached_over_tls_with_its_name_checked(start_proxy, authority, api_verifier):
    configuration = StockConfiguration()
    configuration.trust(authority.certificate)
    with (
        Upstream(api_verifier, tls=authority.server_context("localhost")) as right,
        Upstream(api_verifier, tls=authority.server_context("elsewhere.example")) as wrong,
    ):
        proxy = start_proxy(policy({"/right": api_route(right), "/wrong": api_route(wrong)}), configuration)
        proxy.push(TEMPORARY_KEY)

        assert proxy.request("/right/orders", "POST", body=b"order").status == 200
        assert proxy.request("/wrong/orders").status == 503
        assert not wrong.received
