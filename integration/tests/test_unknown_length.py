"""Bodies of unknown length, to services that take none: they are sent with their length, or refused with advice."""

import pytest

from integration.harness.aws_chunked import UNSIGNED_TRAILER
from integration.harness.errors import local_error
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, policy, route, s3_route
from integration.harness.upstream import Upstream
from integration.harness.verifier import Verifier
from integration.stack.aws_servers import REGION
from integration.stack.client import http2
from integration.stack.proxy import StockConfiguration

# As much as the filter holds to learn a length.
BOUND = 15 << 20

SEARCH = pytest.mark.parametrize("service", ["es", "aoss"])


@pytest.fixture(scope="module")
def search(keys):
    """Upstreams that verify as OpenSearch does."""
    with Upstream(Verifier(keys, REGION, "es")) as es, Upstream(Verifier(keys, REGION, "aoss")) as aoss:
        yield {"es": es, "aoss": aoss}


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _api, _s3, search):
    routes = {
        "/s3": s3_route(_s3, payload="unsigned"),
        "/client": s3_route(_s3, payload="client"),
        "/presigned": s3_route(_s3, payload="unsigned", signing={"location": "query"}),
        "/api": api_route(_api, payload="unsigned"),
        **{f"/{service}": route(service, upstream, payload="unsigned") for service, upstream in search.items()},
    }
    proxy = start_shared_proxy(policy(routes))
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.mark.parametrize("size", [0, 1, 100_000, BOUND], ids=str)
@pytest.mark.parametrize("path", ["/s3", "/presigned"])
def test_s3_gets_the_length_of_an_upload_from_a_pipe(proxy, s3, path, size):
    response = proxy.request(f"{path}/bucket/key", "PUT", upload=b"x" * size)

    assert response.status == 200, response.text
    assert s3.last.request.header("content-length") == str(size)
    assert s3.last.request.header("transfer-encoding") is None
    assert s3.last.verdict.payload == "unsigned"
    assert len(s3.last.request.body) == size


@pytest.mark.parametrize("trailers", [[], [("x-checksum", "1")]], ids=["no trailers", "trailers"])
def test_s3_gets_the_length_of_a_body_over_http2(proxy, s3, trailers):
    response = http2(proxy.port, "PUT", "/s3/bucket/key", body=b"x" * 100_000, trailers=trailers)

    assert response.status == 200, response.text
    assert s3.last.request.header("content-length") == "100000"
    assert s3.last.request.body == b"x" * 100_000


def test_an_upload_over_tls_is_sent_with_its_length(start_proxy, authority, s3_verifier):
    configuration = StockConfiguration()
    configuration.trust(authority.certificate)
    with Upstream(s3_verifier, tls=authority.server_context("localhost")) as s3:
        proxy = start_proxy(policy({"/s3": s3_route(s3)}), configuration)
        proxy.push(TEMPORARY_KEY)

        assert proxy.request("/s3/bucket/key", "PUT", upload=b"object").status == 200
        assert (s3.last.request.body, s3.last.verdict.payload) == (b"object", "unsigned")


@pytest.mark.parametrize("http2_client", [False, True], ids=["http1", "http2"])
def test_a_body_past_the_bound_gets_411_with_advice_and_is_not_sent(proxy, s3, http2_client):
    body = b"x" * (BOUND + 1)
    if http2_client:
        response = http2(proxy.port, "PUT", "/s3/bucket/key", body=body)
    else:
        response = proxy.request("/s3/bucket/key", "PUT", upload=body)

    assert response.status == 411
    error = local_error(response)
    assert (error["code"], error["route"]) == ("LengthRequired", "/s3")
    assert "send content-length" in error["message"]
    assert not s3.received


def test_a_body_that_says_its_length_may_be_larger(proxy, s3):
    assert proxy.request("/s3/bucket/key", "PUT", body=b"x" * (BOUND + 1)).status == 200
    assert len(s3.last.request.body) == BOUND + 1


@SEARCH
def test_opensearch_gets_the_length_of_a_bulk_request(proxy, search, service):
    response = proxy.request(f"/{service}/_bulk", "POST", upload=b'{"index":{}}\n' * 1000)

    assert response.status == 200, response.text
    assert search[service].last.request.header("content-length") == "13000"


def test_another_service_gets_a_stream(proxy, api):
    assert proxy.request("/api/orders", "POST", upload=b"x" * 1000).status == 200
    assert api.last.request.header("transfer-encoding") == "chunked"


def test_an_aws_chunked_upload_without_its_decoded_length_gets_411(proxy, s3):
    headers = {"X-Amz-Content-SHA256": UNSIGNED_TRAILER}
    response = proxy.request("/s3/bucket/key", "PUT", headers=headers, upload=b"0\r\n\r\n")

    assert (response.status, local_error(response)["code"]) == (411, "LengthRequired")
    assert "x-amz-decoded-content-length" in local_error(response)["message"]
    assert not s3.received
