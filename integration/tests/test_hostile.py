"""What no client library sends: refused or rightly signed, never unsigned upstream, never the end of the VM."""

import json

import pytest

from integration.harness import raw
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, policy, s3_route
from integration.harness.upstream import Received
from integration.stack.proxy import StockConfiguration


@pytest.fixture(scope="module")
def shared_proxy(start_shared_proxy, _api, _s3):
    """Takes headers of up to two megabytes, so that it is the filter that has to bear them."""
    configuration = StockConfiguration()
    connections = configuration.http_connection_manager("traffic")
    connections["max_request_headers_kb"] = 2048
    # No second of waiting for each connection that Envoy breaks off.
    connections["delayed_close_timeout"] = "0.05s"
    connections["common_http_protocol_options"] = {"max_headers_count": 20_000}
    routes = {
        "/api": api_route(_api, "/base"),
        "/s3": s3_route(_s3, "/base"),
        "/unsigned": s3_route(_s3, payload="unsigned"),
        "/signs": api_route(_api, signedHeaders=["x-signed"]),
        "/host": {"hosts": ["*.amazonaws.com"]},
    }
    proxy = start_shared_proxy(policy(routes), configuration)
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.fixture
def proxy(shared_proxy, api, s3):
    """Afterwards: all that reached an upstream was rightly signed, no VM has died, and the proxy still works."""
    log_before = len(shared_proxy.envoy.log)
    yield shared_proxy
    for received in (*api.received, *s3.received):
        assert received.accepted or beyond_botocore(received), (received.refusal, received.request)
        assert received.request.target.startswith(("/base", "/bucket", "/signed")), received.request.target
    # A refused CONNECT is the one request that is warned of: its client does not show the reply.
    lines = shared_proxy.envoy.log[log_before:].lower().splitlines()
    log = "\n".join(line for line in lines if "in a tunnel that connect opens" not in line)
    for word in ("panic", "wasm", "[error]", "[critical]", "backtrace"):
        assert word not in log, log
    assert not shared_proxy.envoy.dead_vms
    for path in ("/api/after", "/s3/after"):
        assert shared_proxy.request(path).status == 200


def beyond_botocore(received: Received) -> bool:
    """Returns whether botocore, which signs text, can't tell: a value is not UTF-8, or has a blank of Python's."""
    odd = any(set(value) - PRINTABLE for _, value in received.request.headers)
    return odd and received.refusal == "the signature does not match the request"


PRINTABLE = set(map(chr, range(0x20, 0x7F)))


def http1_request(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    return raw.http1_head(line, b"Connection: close", *headers) + body


def refused_or_signed(statuses: list[int]) -> bool:
    """Returns whether there is at most one answer, a refusal or the upstream's; there is none if Envoy hung up."""
    return len(statuses) <= 1 and all(status in (200, 400, 426, 431, 501) for status in statuses)


RAW_BYTES = [b"\0", b"\x01", b"\t", b"\r", b"\n", b"\x7f", b"\x80", b"\xff", b"\xc3\x28", b"\xc3\xa9", b"\xe2\x80\xa8"]
PLACES = [b"/api/a%sb", b"/s3/a%sb", b"/api/a?x=%s", b"/api/a?%s=x", b"/s3?x=%s&%s"]


@pytest.mark.parametrize("place", PLACES)
def test_raw_bytes_in_a_path_over_http1(proxy, place):
    for byte in RAW_BYTES:
        answer = raw.http1(proxy.port, http1_request(b"GET " + place.replace(b"%s", byte) + b" HTTP/1.1"))
        assert refused_or_signed(raw.statuses(answer)), (byte, answer)


@pytest.mark.parametrize("place", PLACES)
def test_raw_bytes_in_a_path_over_http2(proxy, place):
    for byte in RAW_BYTES:
        status = raw.http2(proxy.port, place.replace(b"%s", byte))
        assert status in ((None, 400) if byte < b" " or byte == b"\x7f" else (None, 200, 400)), byte


@pytest.mark.parametrize("name", [b"x-any", b"x-signed", b"x-amz-meta-any", b"content-type", b"authorization"])
def test_raw_bytes_in_a_headers_value(proxy, name):
    for byte in RAW_BYTES:
        value = b"a" + byte + b"b"
        answer = raw.http1(proxy.port, http1_request(b"GET /signs/signed HTTP/1.1", name + b": " + value))
        # 403 is the verifier's, whose say the fixture weighs.
        assert set(raw.statuses(answer)) <= {200, 400, 403}, (byte, answer)
        assert raw.http2(proxy.port, b"/signs/signed", [(name, value)]) in (None, 200, 400, 403), byte


def test_raw_bytes_in_a_headers_name(proxy):
    for byte in RAW_BYTES:
        answer = raw.http1(proxy.port, http1_request(b"GET /api HTTP/1.1", b"x-a" + byte + b"b: 1"))
        assert refused_or_signed(raw.statuses(answer)), (byte, answer)
        assert raw.http2(proxy.port, b"/api", [(b"x-a" + byte + b"b", b"1")]) in (None, 200, 400), byte


def test_raw_bytes_in_the_authority(proxy):
    for byte in RAW_BYTES:
        authority = b"a" + byte + b".execute-api.eu-west-1.amazonaws.com"
        request = b"GET /host HTTP/1.1\r\nConnection: close\r\nHost: " + authority + b"\r\n\r\n"
        answer = raw.http1(proxy.port, request)
        # A bare CR is taken off by Envoy: what is left is a host name, and the one that is signed for and looked up.
        assert set(raw.statuses(answer)) <= ({400, 503} if byte == b"\r" else {400, 404}), (byte, answer)
        assert raw.http2(proxy.port, b"/host", authority=authority) in (None, 400, 404), byte


# Where one message ends and the next begins: a second request inside the first must never reach the upstream.

SMUGGLED = b"GET /admin HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"0\r\n\r\n" + SMUGGLED


@pytest.mark.parametrize(
    "headers",
    [
        [b"Content-Length: %d" % len(CHUNKED), b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: %d" % len(CHUNKED)],
        [b"Content-Length: 5", b"Content-Length: %d" % len(CHUNKED)],
        [b"Content-Length: 5, 5"],
        [b"Content-Length: +5"],
        [b"Content-Length: 0x5"],
        [b"Content-Length: -1"],
        [b"Content-Length: 99999999999999999999"],
        [b"Transfer-Encoding: xchunked"],
        [b"Transfer-Encoding: chunked, identity"],
        [b"Transfer-Encoding: identity, chunked"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: x"],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Transfer-Encoding:\x0bchunked"],
        [b"Transfer-Encoding : chunked"],
        [b" Transfer-Encoding: chunked"],
        [b"X: y\r\n Transfer-Encoding: chunked"],
        [b"X: y\nTransfer-Encoding: chunked"],
        [b"X: y\rTransfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked\0"],
        [b"Transfer-Encoding: 'chunked'"],
        [b"Transfer_Encoding: chunked"],
        [b"Transfer-Encoding: CHUNKED"],
    ],
    ids=lambda headers: b", ".join(headers).decode("latin-1").encode("unicode_escape").decode(),
)
@pytest.mark.parametrize("path", [b"/api", b"/unsigned/bucket"])
def test_no_second_request_hides_in_a_body(proxy, api, s3, path, headers):
    # Connections stay open here, so that a smuggled request would have one to go over.
    request = raw.http1_head(b"POST " + path + b" HTTP/1.1", *headers) + CHUNKED
    answer = raw.http1(proxy.port, request, patience=0.2, answers=2)

    received = [*api.received, *s3.received]
    assert all("admin" not in one.request.target for one in received), received
    # What Envoy reads after the first message as a request of its own meets the policy like any other.
    assert set(raw.statuses(answer)) <= {200, 400, 404, 501}, answer


@pytest.mark.parametrize(
    "chunks",
    [
        b"5;ext=1\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"5\r\nhello0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhel",
        b"0\r\nauthorization: smuggled\r\nx-amz-date: smuggled\r\n\r\n",
    ],
)
@pytest.mark.parametrize("path", [b"/api", b"/unsigned/bucket"])
def test_odd_chunks(proxy, path, chunks):
    answer = raw.http1(
        proxy.port, http1_request(b"PUT " + path + b" HTTP/1.1", b"Transfer-Encoding: chunked", body=chunks)
    )

    assert refused_or_signed(raw.statuses(answer)), answer


@pytest.mark.parametrize(
    "line",
    [
        b"GET http://169.254.169.254/api HTTP/1.1",
        b"GET https://user@evil.example/api HTTP/1.1",
        b"GET //evil.example/api HTTP/1.1",
        b"CONNECT evil.example:443 HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET /api",
        b"GET /api HTTP/1.0",
        b"GET /api HTTP/3.0",
        b"GET  /api HTTP/1.1",
        b"get /api HTTP/1.1",
        b"G\0T /api HTTP/1.1",
        b"TRACE /api HTTP/1.1",
        b"GET /api#/../x HTTP/1.1",
        b"GET " + b"/api/" + b"a" * 500_000 + b" HTTP/1.1",
        b"GET /api?" + b"a&" * 100_000 + b" HTTP/1.1",
    ],
    ids=lambda line: line[:40].decode(),
)
def test_odd_request_lines(proxy, line):
    answer = raw.http1(proxy.port, http1_request(line))

    assert set(raw.statuses(answer)) <= {200, 400, 403, 404, 405, 414, 426, 431, 501}, answer


# Headers beyond all measure.


@pytest.mark.parametrize("path", [b"/signs/signed", b"/s3/signed"])
def test_a_megabyte_of_headers(proxy, path):
    one = [(b"x-signed", b"v" * (1 << 20))]
    many = [(b"x-amz-meta-%d" % number, b"v" * 100) for number in range(9000)]
    same = [(b"x-signed", b"v" * 100)] * 9000
    for headers in (one, many, same):
        lines = [name + b": " + value for name, value in headers]
        answer = raw.http1(proxy.port, http1_request(b"GET " + path + b" HTTP/1.1", *lines), patience=5)
        assert refused_or_signed(raw.statuses(answer)), answer[:500]


@pytest.mark.parametrize("size", [100_000, 1 << 20])
def test_large_headers_over_http2(proxy, size):
    headers = [(b"x-signed", b"v" * (size // 100))] * 100

    assert raw.http2(proxy.port, b"/signs/signed", headers, timeout=30) in (None, 200, 400, 431)


# Dot segments.


def spellings() -> list[str]:
    dots = ["..", ".", "%2e%2e", ".%2E", "%2E.", "%2e", "..;x=1", "..%3bx", "%2e%2e%3B", "..%00", "..%3f", "..%23"]
    slashes = ["/", "%2f", "%2F", "\\", "%5c", "%5C"]
    found = {f"/api/a{slash}{dot}{after}" for dot in dots for slash in slashes for after in ("", "/x")}
    return sorted(found)


def test_dot_segments_in_every_spelling_are_refused(proxy, api):
    for path in spellings():
        answer = raw.http1(proxy.port, http1_request(f"GET {path} HTTP/1.1".encode()))
        assert raw.statuses(answer) == [400], (path, answer)
        assert raw.http2(proxy.port, path.encode()) == 400, path
    assert not api.received


def test_a_refusal_of_the_filter_names_its_code_where_envoy_lets_the_path_through(proxy):
    for path in ("/api/..", "/api/%2e%2e/x", "/api/a%2f..%2fx"):
        answer = raw.http1(proxy.port, http1_request(f"GET {path} HTTP/1.1".encode()))
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "InvalidPath"


@pytest.mark.parametrize(
    "path", [b"/api/%252e%252e/x", b"/api/...", b"/api/a..", b"/api/%c0%ae%c0%ae/x", b"/api/a%00b", b"/api/%ff"]
)
def test_what_only_looks_like_a_dot_segment_is_signed(proxy, api, path):
    answer = raw.http1(proxy.port, http1_request(b"GET " + path + b" HTTP/1.1"))

    assert raw.statuses(answer) == [200], answer


@pytest.mark.parametrize(
    "headers",
    [
        [b"Connection: authorization, x-amz-date, x-amz-security-token"],
        [b"Connection: host"],
        [b"X-Envoy-Original-Path: /../x", b"X-Envoy-Decorator-Operation: x", b"X-Original-Url: /../x"],
        [b"X-Envoy-Upstream-Alt-Stat-Name: x", b"X-Envoy-Retry-On: 5xx", b"X-Envoy-Max-Retries: 3"],
        [b"X-Forwarded-Host: evil.example", b"X-Forwarded-Proto: gopher", b"Forwarded: host=evil.example"],
        [b"Expect: 100-continue"],
        [b"Expect: 200-ok"],
        [b"Upgrade: websocket", b"Connection: upgrade"],
        [b"Upgrade: h2c", b"Connection: upgrade, http2-settings", b"HTTP2-Settings: AAMAAABkAAQAAP__"],
        [b"X-Sigv4-Upstream: https"],
        [b"Host: evil.example"],
        [b"Te: trailers", b"Trailer: authorization"],
    ],
    ids=lambda headers: headers[0].decode(),
)
def test_headers_that_would_take_the_signature_off_or_lead_elsewhere(proxy, headers):
    statuses = raw.statuses(raw.http1(proxy.port, raw.http1_head(b"GET /api HTTP/1.1", *headers)))

    answers = [status for status in statuses if status != 100]
    assert len(answers) <= 1
    assert set(answers) <= {101, 200, 400, 403, 404, 417}
