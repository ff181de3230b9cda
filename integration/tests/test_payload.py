"""How a route's payload mode decides what of the body is signed, and when it is sent."""

import hashlib

import pytest

from conftest import TEMPORARY_KEY, api_route, policy, s3_route
from harness.proxy import StockConfiguration


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
    from harness.upstream import Upstream

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


def test_a_body_that_outgrows_the_buffer_gets_413_and_is_not_sent(start_proxy, api):
    configuration = StockConfiguration()
    configuration.listener("traffic")["per_connection_buffer_limit_bytes"] = 64 * 1024
    proxy = start_proxy(policy({"/api": api_route(api)}), configuration)
    proxy.push(TEMPORARY_KEY)

    response = proxy.request("/api", "POST", body=b"x" * 1_000_000)

    assert (response.status, response.json["error"]["code"]) == (413, "PayloadTooLarge")
    assert not api.received


def test_a_proxy_that_can_not_hold_a_request_at_its_headers_says_so(start_proxy, api):
    configuration = StockConfiguration()
    del configuration.signer["allow_on_headers_stop_iteration"]
    proxy = start_proxy(policy({"/api": api_route(api)}), configuration)
    proxy.push(TEMPORARY_KEY)

    response = proxy.request("/api", "POST", body=b"x", timeout=10)

    assert (response.status, response.json["error"]["code"]) == (500, "SigningFailed")
    assert "allow_on_headers_stop_iteration" in response.json["error"]["message"]
    assert not api.received
