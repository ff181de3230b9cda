"""Routes that sign in the query, and routes that send the client to the presigned URL."""

import re
import subprocess
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.config import Config

from integration.harness.keys import STATIC_KEY, TEMPORARY_KEY
from integration.harness.policies import api_route, policy, s3_route
from integration.harness.verifier import Refused, WireRequest
from integration.stack.aws_servers import REGION
from integration.stack.client import curl

LARGE = bytes(range(256)) * (32 << 12)
BY_QUERY = {"location": "query", "expiresSeconds": 300}
BY_REDIRECT = {**BY_QUERY, "redirect": True}


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _api, _s3):
    routes = {
        "/s3": s3_route(_s3, signing=BY_QUERY),
        "/api": api_route(_api, "/prod", signing=BY_QUERY),
        "/get/s3": s3_route(_s3, signing=BY_REDIRECT),
        "/get/api": api_route(_api, "/prod", signing=BY_REDIRECT),
        "/default": s3_route(_s3, signing={"location": "query"}),
        "/by-header/s3": s3_route(_s3),
        "/by-header/api": api_route(_api, "/prod"),
    }
    proxy = start_shared_proxy(policy(routes))
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.fixture(scope="module")
def stored(start_shared_proxy, ministack):
    """Returns a proxy that signs for ministack in the query, as a user and as an assumed role; and an object of 32 MiB
    there."""
    target = s3_route(ministack)
    routes = {
        "/user": {**target, "signing": BY_QUERY},
        "/role": {**target, "signing": BY_QUERY, "roleArn": ministack.role_arn},
        "/get/user": {**target, "signing": BY_REDIRECT},
        "/get/role": {**target, "signing": BY_REDIRECT, "roleArn": ministack.role_arn},
    }
    proxy = start_shared_proxy(policy(routes))
    [role] = [identity for identity, entry in proxy.identities().items() if "roleArn" in entry]
    proxy.push(ministack.user)
    proxy.push(ministack.assume_role(), role)
    s3 = ministack.client("s3")
    s3.create_bucket(Bucket="presigned", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="presigned", Key="large object", Body=LARGE)
    return proxy


def parameters(target: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(target).query, keep_blank_values=True)


@pytest.mark.parametrize("service", ["s3", "api"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE"])
def test_a_request_signed_in_the_query_is_accepted(proxy, request, service, method):
    upstream = request.getfixturevalue(service)

    assert proxy.request(f"/{service}/orders/1?b=2&a=1", method).status == 200, upstream.last.refusal

    assert upstream.last.verdict.location == "query"
    assert upstream.last.request.header("authorization") is None
    assert upstream.last.request.header("x-amz-date") is None
    assert upstream.last.request.header("x-amz-security-token") is None
    query = parameters(upstream.last.request.target)
    assert query["X-Amz-Security-Token"] == [TEMPORARY_KEY.token]
    assert query["X-Amz-Expires"] == ["300"]
    assert (query["a"], query["b"]) == (["1"], ["2"])


@pytest.mark.parametrize("body", [b"order", LARGE[: 4 << 20]], ids=["small", "4 MiB"])
@pytest.mark.parametrize(("service", "payload"), [("s3", "unsigned"), ("api", "signed")])
def test_a_body_is_accepted(proxy, request, service, payload, body):
    upstream = request.getfixturevalue(service)
    answer = proxy.request(f"/{service}/orders", "POST", headers={"Content-Type": "text/plain"}, body=body)

    assert answer.status == 200, upstream.last.refusal
    assert upstream.last.request.body == body
    assert upstream.last.verdict.payload == payload
    assert "content-type" in upstream.last.verdict.signed_headers


@pytest.mark.parametrize("path", ["/a%20b", "/a@b:c", "/%C3%BC", "/a//b/", "/a=b/c&d", "/a+b", "/a%25b", "/!*'()$"])
@pytest.mark.parametrize("query", ["", "?list-type=2&prefix=", "?acl", "?a=%20+%2B", "?a=2&a=1&A=0", "?%C3%BC=/"])
@pytest.mark.parametrize("service", ["s3", "api"])
def test_special_characters_are_signed_as_the_upstream_reads_them(proxy, request, service, path, query):
    upstream = request.getfixturevalue(service)

    assert proxy.request(f"/{service}{path}{query}").status == 200, upstream.last.refusal


def test_without_a_session_token_there_is_none_in_the_query(start_proxy, s3):
    proxy = start_proxy(policy({"/s3": s3_route(s3, signing=BY_QUERY)}))
    proxy.push(STATIC_KEY)

    assert proxy.request("/s3/bucket/key").status == 200, s3.last.refusal
    assert "X-Amz-Security-Token" not in parameters(s3.last.request.target)


def test_the_signature_expires(proxy, s3, s3_verifier):
    proxy.request("/s3/bucket/key")
    received, now = s3.last.request, s3_verifier.now()

    s3_verifier.verify(received, now + timedelta(seconds=295))
    with pytest.raises(Refused, match="expired"):
        s3_verifier.verify(received, now + timedelta(seconds=305))


@pytest.mark.parametrize(("old", "new"), [("bucket", "bucked"), ("X-Amz-Expires=300", "X-Amz-Expires=900")])
def test_a_tampered_url_is_refused(proxy, s3, s3_verifier, old, new):
    proxy.request("/s3/bucket/key")
    received = s3.last.request

    with pytest.raises(Refused, match="signature"):
        s3_verifier.verify(replace(received, target=received.target.replace(old, new)))


def test_what_the_client_signed_is_dropped(proxy, s3):
    names = ["Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature", "Security-Token", "Region-Set"]
    presigned = "&".join(f"X-Amz-{name}=throwaway" for name in names)
    headers = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=THROWAWAY/20200101/eu-west-1/s3/aws4_request, ...",
        "X-Amz-Date": "20200101T000000Z",
        "X-Amz-Security-Token": "throwaway",
        "X-Amz-Content-SHA256": "0" * 64,
    }

    answer = proxy.request(f"/s3/bucket?{presigned}&list-type=2&{presigned}", headers=headers)

    assert answer.status == 200, s3.last.refusal
    assert "throwaway" not in str(s3.last.request)
    assert parameters(s3.last.request.target)["list-type"] == ["2"]


@pytest.mark.parametrize("name", ["x-amz-signature", "X-AMZ-SIGNATURE", "X-Amz%2DSignature", "X%2dAmz-Signature"])
def test_presigning_parameters_in_another_spelling_do_no_harm(proxy, s3, name):
    answer = proxy.request(f"/s3/bucket?{name}=throwaway")

    assert answer.status == 200, s3.last.refusal
    assert len(re.findall(r"X-Amz-Signature=", s3.last.request.target)) == 1


VERSION_2 = "AWSAccessKeyId=THROWAWAY&Expires=1900000000&Signature=vjbyPxybdZaNmGa%2ByT272YEAiv4%3D"


@pytest.mark.parametrize("route", ["/s3", "/by-header/s3"])
@pytest.mark.parametrize(
    "query",
    [
        VERSION_2,
        "&".join(reversed(VERSION_2.split("&"))),
        f"{VERSION_2}&x-amz-security-token=throwaway",
        f"{VERSION_2}&{VERSION_2}",
        VERSION_2.replace("AWSAccessKeyId", "AWSAccess%4BeyId").replace("Expires", "%45xpires"),
        VERSION_2.lower().replace("throwaway", "THROWAWAY"),
    ],
)
def test_a_signature_of_version_2_in_the_query_is_dropped(proxy, s3, route, query):
    answer = proxy.request(f"{route}/bucket/key?list-type=2&{query}&prefix=a")

    assert answer.status == 200, s3.last.refusal
    query = parameters(s3.last.request.target)
    assert (query["list-type"], query["prefix"]) == (["2"], ["a"])
    assert not {"awsaccesskeyid", "expires", "signature"} & {name.lower() for name in query}
    assert "throwaway" not in s3.last.request.target.lower()


@pytest.mark.parametrize("left_out", ["AWSAccessKeyId", "Expires", "Signature"])
def test_some_parameters_of_version_2_alone_are_ordinary_ones(proxy, s3, left_out):
    query = "&".join(pair for pair in VERSION_2.split("&") if not pair.startswith(left_out))

    assert proxy.request(f"/by-header/s3/bucket/key?{query}").status == 200, s3.last.refusal
    assert s3.last.request.target == f"/bucket/key?{query}"


def test_parameters_of_version_2_are_ordinary_ones_to_other_services(proxy, api):
    assert proxy.request(f"/by-header/api/orders?{VERSION_2}").status == 200, api.last.refusal
    assert api.last.request.target == f"/prod/orders?{VERSION_2}"


@pytest.mark.parametrize("token", [None, "throwaway"])
def test_what_boto3_presigns_with_version_2_is_signed_again(proxy, s3, token):
    client = boto3.client(
        "s3",
        endpoint_url=f"{proxy.url}/by-header/s3",
        region_name=REGION,
        aws_access_key_id="THROWAWAY",
        aws_secret_access_key="throwaway",
        aws_session_token=token,
        config=Config(signature_version="s3", s3={"addressing_style": "path"}),
    )
    url = client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key", "VersionId": "1"})
    assert set(parameters(url)) >= {"AWSAccessKeyId", "Expires", "Signature"}

    assert curl(url).status == 200, s3.last.refusal
    assert s3.last.request.target == "/bucket/key?versionId=1"


@pytest.mark.parametrize("route", ["/s3", "/by-header/s3"])
def test_a_signature_of_version_2_in_the_header_is_dropped(proxy, s3, route):
    headers = {
        "Authorization": "AWS THROWAWAY:frJIUN8DYpKDtOLCwo//yllqDzg=",
        "X-Amz-Date": "Tue, 27 Mar 2007 19:36:42 GMT",
    }

    assert proxy.request(f"{route}/bucket/key", headers=headers).status == 200, s3.last.refusal
    assert "THROWAWAY" not in str(s3.last.request)


def test_the_verifier_refuses_a_second_signature(s3_verifier):
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest

    target = f"/bucket/key?{VERSION_2}"
    request = AWSRequest("GET", f"http://upstream{target}", headers={"Host": "upstream"})
    S3SigV4Auth(TEMPORARY_KEY, "s3", REGION).add_auth(request)
    with pytest.raises(Refused, match="Version 2"):
        s3_verifier.verify(WireRequest("GET", target, list(request.headers.items()), b""))


@pytest.mark.parametrize("route", ["/user", "/role"])
def test_ministack_takes_requests_that_are_signed_in_the_query(stored, ministack, route):
    path = f"{route}/presigned/small%20object%20{route[1:]}"

    assert stored.request(path, "PUT", body=b"a body").status == 200
    assert stored.request(path).body == b"a body"
    listed = stored.request(f"{route}/presigned?list-type=2&prefix=small%20").text
    assert f"small object {route[1:]}" in listed


@pytest.mark.parametrize("route", ["/get/user", "/get/role"])
def test_a_large_object_is_fetched_past_the_proxy(stored, ministack, route):
    redirect = stored.request(f"{route}/presigned/large%20object")

    assert redirect.status == 307
    location = redirect.headers["location"]
    assert location.startswith(f"{ministack.url}/presigned/large%20object?")
    assert curl(location).body == LARGE
    assert curl(location.replace("large", "other")).status == 403
    assert curl(re.sub(r"(Signature=.{8}).", r"\1x", location)).status == 403


@pytest.mark.parametrize("route", ["/get/user", "/get/role"])
def test_curl_follows_the_redirect(stored, route):
    url = f"{stored.url}{route}/presigned/large%20object"
    fetched = subprocess.run(["curl", "-sSfL", "--noproxy", "*", url], capture_output=True, check=True)

    assert fetched.stdout == LARGE


@pytest.mark.parametrize("service", ["s3", "api"])
@pytest.mark.parametrize("query", ["", "?b=2&a=1"])
def test_whatever_headers_the_client_sends_its_redirect_is_signed_for_the_host_alone(proxy, request, service, query):
    upstream = request.getfixturevalue(service)
    headers = {"Content-Type": "text/plain", "X-Amz-Meta-Colour": "blue", "Cookie": "secret=1"}

    redirect = proxy.request(f"/get/{service}/orders{query}", headers=headers)

    assert redirect.status == 307
    assert not upstream.received
    assert redirect.body == b""
    assert curl(redirect.headers["location"]).status == 200, upstream.last.refusal
    assert upstream.last.verdict.signed_headers == ["host"]
    assert curl(redirect.headers["location"], "DELETE").status == 403


def test_a_redirected_upload_keeps_its_method_and_body(stored, ministack):
    url = f"{stored.url}/get/role/presigned/redirected"
    upload = ["curl", "-sSfL", "--noproxy", "*", "--request", "PUT", "--data-binary", "@-", "-H", "Content-Type:", url]
    subprocess.run(upload, input=b"a body", check=True)

    assert ministack.client("s3").get_object(Bucket="presigned", Key="redirected")["Body"].read() == b"a body"


def test_a_redirect_is_not_cached_beyond_its_url(proxy):
    assert "no-store" in proxy.request("/get/s3/bucket/key").headers.get("cache-control", "")


def test_a_chunked_upload_to_a_route_that_signs_in_the_query_says_what_to_change(proxy, s3):
    headers = {"X-Amz-Content-SHA256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "X-Amz-Decoded-Content-Length": "0"}
    answer = proxy.request("/s3/bucket/key", "PUT", headers=headers, body=b"0\r\n\r\n")

    assert (answer.status, answer.json["error"]["code"]) == (400, "UnsupportedRequest")
    assert "signing.location" in answer.json["error"]["message"]
    assert not s3.received


def test_the_verifier_takes_what_botocore_presigns(s3_verifier, api_verifier):
    from botocore.auth import S3SigV4QueryAuth, SigV4QueryAuth
    from botocore.awsrequest import AWSRequest

    for verifier, signer in ((s3_verifier, S3SigV4QueryAuth), (api_verifier, SigV4QueryAuth)):
        request = AWSRequest("GET", "http://upstream/bucket/a%20b?x=1&list", headers={"Host": "upstream"})
        signer(TEMPORARY_KEY, verifier.service, REGION, 60).add_auth(request)
        target = request.url.removeprefix("http://upstream")
        assert verifier.verify(WireRequest("GET", target, [("Host", "upstream")], b"")).location == "query"
