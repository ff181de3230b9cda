"""The upstream and the capture that tampers, exercised without a proxy in between."""

import threading
import urllib.request

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from integration.harness.keys import TEMPORARY_KEY
from integration.harness.upstream import Answer, Upstream
from integration.stack.capture import Capture
from integration.stack.client import curl


@pytest.fixture
def upstream(api_verifier):
    with Upstream(api_verifier) as upstream:
        yield upstream


def signed_headers(url: str, method: str, body: bytes = b"") -> dict[str, str]:
    request = AWSRequest(method, url, headers={"Content-Type": "text/plain"}, data=body)
    SigV4Auth(TEMPORARY_KEY, "execute-api", "eu-west-1").add_auth(request)
    return dict(request.headers.items())


def test_accepts_and_records_a_signed_request(upstream):
    url = upstream.url + "/prod/orders?id=1"

    response = curl(url, "POST", signed_headers(url, "POST", b"order"), b"order")

    assert response.status == 200
    assert response.json["target"] == "/prod/orders?id=1"
    assert upstream.last.request.body == b"order"
    assert upstream.last.accepted


def test_refuses_an_unsigned_request(upstream):
    response = curl(upstream.url + "/prod/orders")

    assert (response.status, response.json["refusal"]) == (403, "no Authorization header")


def test_keeps_the_path_as_it_came(upstream):
    curl(upstream.url + "//a/../b/%2e?x=%20+y")

    assert upstream.last.request.target == "//a/../b/%2e?x=%20+y"


def test_takes_a_chunked_body_of_8_mib(upstream):
    url, body = upstream.url + "/upload", b"x" * (8 << 20)
    headers = {**signed_headers(url, "PUT", body), "Transfer-Encoding": "chunked"}

    assert curl(url, "PUT", headers, body).json["bodyLength"] == len(body)


def test_asks_for_the_body_of_a_client_that_waits(upstream):
    url = upstream.url + "/upload"
    response = curl(url, "PUT", {**signed_headers(url, "PUT", b"late"), "Expect": "100-continue"}, b"late")

    assert response.status == 200


def test_streams_an_answer_part_by_part(upstream):
    url, release = upstream.url + "/stream", threading.Event()
    upstream.answer = Answer(parts=[b"first", release, b"last"])

    with urllib.request.urlopen(urllib.request.Request(url, headers=signed_headers(url, "GET"))) as response:
        assert response.read1(5) == b"first"
        release.set()
        assert response.read() == b"last"


def test_serves_over_tls(api_verifier, authority):
    with Upstream(api_verifier, tls=authority.server_context("localhost")) as upstream:
        url = upstream.url + "/prod"
        response = curl(url, headers=signed_headers(url, "GET"), options=["--cacert", str(authority.certificate)])

    assert response.status == 200


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"/orders", b"/order5"), (b"text/plain", b"text/plaim"), (b"a body", b"A body"), (b"Signature=", b"Signature-")],
    ids=["path", "signed header", "body", "signature"],
)
def test_a_byte_changed_on_the_way_is_refused(upstream, old, new):
    with Capture(upstream.port) as capture:
        url = capture.url + "/orders"
        headers = signed_headers(url, "POST", b"a body")
        assert curl(url, "POST", headers, b"a body").status == 200

        capture.change(old, new)
        response = curl(url, "POST", headers, b"a body")

    assert capture.changed == 1
    assert response.status == 403
