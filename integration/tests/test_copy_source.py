"""The headers by which S3 names another object reach no further than the route's target."""

import botocore.session
import pytest

from integration.harness.errors import local_error
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import policy, s3_route

STRICT = {"allowUnauthenticatedRequests": False}
ARN = "arn:aws:s3:eu-west-1:123456789012:accesspoint/point/object"


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _s3):
    routes = {
        "/dir": s3_route(_s3, "/mine/dir"),
        "/bucket": s3_route(_s3, "/mine"),
        "/bucket/private": s3_route(_s3, "/mine/private", **STRICT),
        "/all": s3_route(_s3),
        "/removed": s3_route(_s3, "/mine/dir", requestHeaders={"remove": ["x-amz-copy-source"]}),
        "/other": {**s3_route(_s3, "/mine/dir"), "service": "execute-api"},
        "/client": {"target": f"{_s3.url}/mine/dir", "signing": {"scope": "client"}},
    }
    proxy = start_shared_proxy(policy(routes))
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.mark.parametrize("header", ["x-amz-copy-source", "X-Amz-Copy-Source", "x-amz-rename-source"])
@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/dir/to", "/mine/dir/from"),
        ("/dir/to", "mine/dir/from"),
        ("/dir/to", "mine%2Fdir%2Ffrom%20here?versionId=a.b"),
        ("/bucket/to", "/mine/public/from"),
        ("/all/any/to", "/other/from"),
        ("/all/any/to", f"{ARN}/from"),
    ],
)
def test_an_object_of_the_route_can_be_copied(proxy, s3, header, path, source):
    response = proxy.request(path, "PUT", headers={header: source})

    assert response.status == 200, response.text
    assert s3.last.request.header(header.lower()) == source


@pytest.mark.parametrize("header", ["x-amz-copy-source", "x-amz-rename-source"])
@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/dir/to", "/other-bucket/secret"),
        ("/dir/to", "other-bucket%2Fsecret"),
        ("/dir/to", "/other-bucket/secret?versionId=1"),
        ("/dir/to", "/mine/secret"),
        ("/dir/to", "/mine/directory/secret"),
        ("/dir/to", "/mine/dir/../secret"),
        ("/dir/to", "/mine/dir/%2e%2E/secret"),
        ("/dir/to", "mine%2Fdir%2F..%2Fsecret"),
        ("/dir/to", f"{ARN}/dir/from"),
        ("/dir/to", ARN.replace(":", "%3A").replace("/", "%2F") + "%2Fdir%2Ffrom"),
        ("/dir/to", "mine"),
        ("/bucket/to", "/mine/private/secret"),
        ("/bucket/to", "/mine//private/secret"),
        ("/bucket/to", "/mine/private%3Bx/secret"),
        ("/bucket/to", "/mine/public/../private/secret"),
    ],
)
def test_an_object_outside_of_the_route_is_refused(proxy, s3, header, path, source):
    response = proxy.request(path, "PUT", headers={header: source})

    assert (response.status, response.json["error"]["code"]) == (400, "InvalidPath")
    assert header in response.json["error"]["message"]
    assert not s3.received


def test_each_line_of_the_header_counts(proxy, s3):
    headers = [("x-amz-copy-source", "/mine/dir/from"), ("x-amz-copy-source", "/other-bucket/secret")]

    assert proxy.request("/dir/to", "PUT", headers=headers).status == 400
    assert not s3.received


def test_a_presigned_urls_form_of_the_header_is_refused(proxy, s3):
    response = proxy.request("/dir/to?X-Amz-Copy-Source=/other-bucket/secret", "PUT")

    assert (response.status, response.json["error"]["code"]) == (400, "InvalidPath")
    assert "send it as a header" in response.json["error"]["message"]
    assert not s3.received


def test_a_header_that_is_removed_names_nothing(proxy, s3):
    assert proxy.request("/removed/to", "PUT", headers={"x-amz-copy-source": "/other-bucket/secret"}).status == 200
    assert s3.last.request.header("x-amz-copy-source") is None


def test_to_other_services_it_is_a_header_like_any_other(proxy, s3):
    proxy.request("/other/to", "PUT", headers={"x-amz-copy-source": "/other-bucket/secret"})

    assert s3.last.request.header("x-amz-copy-source") == "/other-bucket/secret"


@pytest.mark.parametrize("service", ["s3", "s3-x", "execute-api"])
@pytest.mark.parametrize("query", ["", "?x-amz-copy-source=/other-bucket/secret"])
def test_a_client_that_names_the_service_does_not_switch_the_check_off(proxy, s3, service, query):
    credential = (
        f"AWS4-HMAC-SHA256 Credential=x/20200101/eu-west-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
    headers = {"authorization": credential}
    if not query:
        headers["x-amz-copy-source"] = "/other-bucket/secret"
    response = proxy.request(f"/client/to{query}", "PUT", headers=headers)

    assert (response.status, local_error(response)["code"]) == (400, "InvalidPath")
    assert not s3.received


def test_a_copy_and_a_rename_may_stand_side_by_side(proxy):
    headers = {"x-amz-copy-source": "/mine/dir/a", "x-amz-rename-source": "/mine/dir/b"}
    assert proxy.request("/dir/to", "PUT", headers=headers).status == 200


# Reviewed headers of S3's API: they name no object to read.
HARMLESS_FAMILIES = (
    "cache-control", "content-", "expires", "if-", "range", "x-amz-checksum-", "x-amz-copy-source-", "x-amz-fwd-",
    "x-amz-grant-", "x-amz-if-match-", "x-amz-meta-", "x-amz-object-lock-", "x-amz-rename-source-",
    "x-amz-server-side-encryption",
)  # fmt: skip
HARMLESS = [
    "acl",
    "bucket-namespace",
    "bucket-object-lock-enabled",
    "bucket-object-lock-token",
    "bypass-governance-retention",
    "client-token",
    "confirm-remove-self-bucket-access",
    "create-session-mode",
    "expected-bucket-owner",
    "max-parts",
    "metadata-directive",
    "mfa",
    "mp-object-size",
    "object-annotation-directive",
    "object-attributes",
    "object-if-match",
    "object-ownership",
    "optional-object-attributes",
    "part-number-marker",
    "request-payer",
    "request-route",
    "request-token",
    "sdk-checksum-algorithm",
    "skip-destination-validation",
    "source-expected-bucket-owner",
    "storage-class",
    "tagging",
    "tagging-directive",
    "transition-default-minimum-object-size",
    "website-redirect-location",
    "write-offset-bytes",
    "account-id",
    "outpost-id",
]


@pytest.mark.parametrize(
    ("service", "expected"), [("s3", {"x-amz-copy-source", "x-amz-rename-source"}), ("s3control", set())]
)
def test_these_are_all_the_headers_by_which_s3_names_an_object(service, expected):
    """Every header in botocore is one of them, or has been reviewed. Review a new one before you add it above."""
    model = botocore.session.get_session().get_service_model(service)
    shapes = [model.operation_model(name).input_shape for name in model.operation_names]
    places = [member.serialization for shape in shapes if shape for member in shape.members.values()]
    headers = {place["name"].lower() for place in places if place.get("location") in ("header", "headers")}
    harmless = {f"x-amz-{name}" for name in HARMLESS}

    assert {name for name in headers - harmless if not name.startswith(HARMLESS_FAMILIES)} == expected
