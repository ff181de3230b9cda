"""SigV4A signatures are valid under the public key of AWS's published derivation, as those of awscrt are."""

from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import quote

import awscrt.auth
import awscrt.http
import pytest

from integration.harness.keys import STATIC_KEY, TEMPORARY_KEY
from integration.harness.policies import api_route, policy, s3_route
from integration.harness.verifier import SIGV4A, Refused, Signature, Verifier, WireRequest
from integration.stack.aws_servers import REGION
from integration.stack.client import curl
from integration.stack.process import wait_until

ASYMMETRIC = {"algorithm": "sigv4a", "regionSet": "eu-*,us-east-1"}


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _api, _s3):
    routes = {
        "/api": api_route(_api, "/prod", signing=ASYMMETRIC),
        "/s3": s3_route(_s3, signing=ASYMMETRIC),
        "/query/api": api_route(_api, "/prod", signing={**ASYMMETRIC, "location": "query"}),
        "/query/s3": s3_route(_s3, signing={**ASYMMETRIC, "location": "query"}),
        "/get/s3": s3_route(_s3, signing={**ASYMMETRIC, "location": "query", "redirect": True}),
        "/elsewhere": api_route(_api, signing={"algorithm": "sigv4a", "regionSet": "ap-southeast-2"}),
    }
    proxy = start_shared_proxy(policy(routes))
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.mark.parametrize("service", ["s3", "api"])
@pytest.mark.parametrize("body", [None, b"order"], ids=["no body", "body"])
@pytest.mark.parametrize("target", ["/orders?b=2&a=1", "/a%20b/%C3%BC/c=d//e?prefix=&list-type"])
def test_a_signature_in_the_headers_holds(proxy, request, service, body, target):
    upstream = request.getfixturevalue(service)
    method = "GET" if body is None else "PUT"

    assert proxy.request(f"/{service}{target}", method, body=body).status == 200, upstream.last.refusal

    claimed = Signature.of(upstream.last.request)
    assert (claimed.algorithm, claimed.location, claimed.region_set) == (SIGV4A, "header", "eu-*,us-east-1")
    assert {"x-amz-region-set", "x-amz-security-token"} <= set(claimed.signed_headers)


@pytest.mark.parametrize("service", ["s3", "api"])
@pytest.mark.parametrize("target", ["/orders?b=2&a=1", "/a%20b/%C3%BC/c=d//e?prefix=&list-type", "/plain"])
def test_a_signature_in_the_query_holds(proxy, request, service, target):
    upstream = request.getfixturevalue(service)

    assert proxy.request(f"/query/{service}{target}").status == 200, upstream.last.refusal

    claimed = Signature.of(upstream.last.request)
    assert (claimed.algorithm, claimed.location, claimed.region_set) == (SIGV4A, "query", "eu-*,us-east-1")


def test_the_presigned_url_of_a_redirect_holds(proxy, s3):
    location = proxy.request("/get/s3/bucket/key").headers["location"]

    assert curl(location).status == 200, s3.last.refusal
    assert curl(location.replace("bucket", "bucked")).status == 403


def test_every_signature_is_for_its_request_alone(proxy, api, api_verifier):
    proxy.request("/api/orders/1")
    received = api.last.request

    with pytest.raises(Refused, match="signature"):
        api_verifier.verify(replace(received, target="/prod/orders/2"))


def test_a_signature_is_no_good_in_a_region_outside_its_set(proxy, api):
    assert proxy.request("/elsewhere").status == 403

    assert "does not cover" in api.last.refusal


def test_the_region_set_of_the_client_is_dropped(proxy, api):
    assert proxy.request("/api", headers={"X-Amz-Region-Set": "*"}).status == 200, api.last.refusal
    assert proxy.request("/query/api?X-Amz-Region-Set=%2A").status == 200, api.last.refusal

    assert Signature.of(api.last.request).region_set == "eu-*,us-east-1"


def test_the_key_follows_the_credentials(start_proxy, api):
    proxy = start_proxy(policy({"/api": api_route(api, signing=ASYMMETRIC)}))
    for key in (TEMPORARY_KEY, STATIC_KEY, TEMPORARY_KEY):
        proxy.push(key)
        api.reset()

        def is_signed_by(key=key) -> bool:
            assert proxy.request("/api").status == 200, api.last.refusal
            return api.last.verdict.access_key_id == key.access_key

        wait_until(is_signed_by, "the new credentials to sign")


def test_hundreds_of_signatures_hold(proxy, api):
    for number in range(200):
        assert proxy.request(f"/api/orders/{number}").status == 200, api.last.refusal


def test_signed_chunks_can_not_be_signed_so_and_are_refused(proxy, s3):
    headers = {"X-Amz-Content-SHA256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "X-Amz-Decoded-Content-Length": "0"}
    body = b"0;chunk-signature=" + b"0" * 64 + b"\r\n\r\n"

    answer = proxy.request("/s3/bucket/key", "PUT", headers=headers, body=body)

    assert (answer.status, answer.json["error"]["code"]) == (400, "UnsupportedRequest")
    assert "STREAMING-UNSIGNED-PAYLOAD-TRAILER" in answer.json["error"]["message"]
    assert not s3.received


def test_unsigned_chunks_are_accepted(proxy, s3):
    headers = {"X-Amz-Content-SHA256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "X-Amz-Decoded-Content-Length": "4"}

    answer = proxy.request("/s3/bucket/key", "PUT", headers=headers, body=b"4\r\ndata\r\n0\r\n\r\n")

    assert answer.status == 200, s3.last.refusal
    assert s3.last.verdict.payload == "chunked"


@pytest.mark.parametrize("location", ["header", "query"])
@pytest.mark.parametrize("service", ["s3", "execute-api"])
@pytest.mark.parametrize("credentials", [STATIC_KEY, TEMPORARY_KEY], ids=["static", "temporary"])
def test_the_verifier_takes_what_awscrt_signs(keys, credentials, service, location):
    path = "/bucket/a b+ü" if service == "s3" else "/prod/a b"
    headers = awscrt.http.HttpHeaders([("Host", "upstream"), ("Content-Type", "text/plain")])
    request = awscrt.http.HttpRequest("PUT", f"{quote(path)}?b=2&a=%20", headers)
    in_headers = location == "header"
    signing = awscrt.auth.AwsSigningConfig(
        algorithm=awscrt.auth.AwsSigningAlgorithm.V4_ASYMMETRIC,
        signature_type=awscrt.auth.AwsSignatureType[f"HTTP_REQUEST_{'HEADERS' if in_headers else 'QUERY_PARAMS'}"],
        credentials_provider=awscrt.auth.AwsCredentialsProvider.new_static(
            credentials.access_key, credentials.secret_key, credentials.token
        ),
        region="eu-*",
        service=service,
        date=datetime.now(UTC),
        use_double_uri_encode=service != "s3",
        should_normalize_uri_path=service != "s3",
        signed_body_value="UNSIGNED-PAYLOAD" if service == "s3" else None,
        signed_body_header_type=awscrt.auth.AwsSignedBodyHeaderType[
            "X_AMZ_CONTENT_SHA_256" if service == "s3" and in_headers else "NONE"
        ],
        expiration_in_seconds=None if in_headers else 60,
    )
    awscrt.auth.aws_sign_request(request, signing).result(10)
    received = WireRequest("PUT", request.path, list(headers), b"")
    verifier = Verifier(keys, REGION, service)

    assert verifier.verify(received).location == location
    with pytest.raises(Refused):
        verifier.verify(replace(received, method="POST"))
