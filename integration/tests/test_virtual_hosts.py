"""S3 clients that put the bucket into the host name: it gets to the bucket that they mean, or to none."""

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from integration.harness.errors import local_error
from integration.harness.keys import TEMPORARY_KEY, THROWAWAY
from integration.harness.policies import policy, s3_route
from integration.harness.upstream import Upstream
from integration.stack.aws_servers import REGION
from integration.stack.client import Response
from integration.stack.proxy import StockConfiguration

HOSTS = ["*.s3.localhost"]


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, ministack, _s3):
    """S3 at ministack, and at an upstream that says what it got."""
    role = {"roleArn": ministack.role_arn}
    routes = [
        {"prefix": "/", "hosts": HOSTS, **s3_route(ministack, "/{bucket}", **role)},
        {"prefix": "/", "hosts": ["s3.localhost"], **s3_route(ministack, **role)},
        {"prefix": "/", "hosts": ["*.echo.localhost"], **s3_route(_s3, "/{bucket}/reports")},
        {"prefix": "/plain", **s3_route(_s3)},
    ]
    proxy = start_shared_proxy(policy(routes))
    by_role = {entry.get("roleArn"): identity for identity, entry in proxy.identities().items()}
    proxy.push(ministack.assume_role(), by_role[ministack.role_arn])
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.fixture(scope="module")
def buckets(ministack) -> list[str]:
    names = ["mine", "reports"]
    for name in names:
        ministack.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return names


def client(proxy, style: str):
    """Returns a client of boto3 that finds every host at the proxy."""
    return boto3.client(
        "s3",
        endpoint_url="http://s3.localhost",
        region_name=REGION,
        aws_access_key_id=THROWAWAY.access_key,
        aws_secret_access_key=THROWAWAY.secret_key,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": style}, proxies={"http": proxy.url}),
    )


def get(proxy, host: str, path: str, **options) -> Response:
    return proxy.request(path, headers={"Host": host, **options.pop("headers", {})}, **options)


def test_an_object_is_stored_in_the_bucket_of_the_host(proxy, ministack, buckets):
    virtual, by_path, direct = client(proxy, "virtual"), client(proxy, "path"), ministack.client("s3")

    virtual.put_object(Bucket="mine", Key="reports/x.csv", Body=b"object")

    assert direct.get_object(Bucket="mine", Key="reports/x.csv")["Body"].read() == b"object"
    assert virtual.get_object(Bucket="mine", Key="reports/x.csv")["Body"].read() == b"object"
    assert by_path.get_object(Bucket="mine", Key="reports/x.csv")["Body"].read() == b"object"
    assert [each["Key"] for each in virtual.list_objects_v2(Bucket="mine")["Contents"]] == ["reports/x.csv"]
    assert "Contents" not in direct.list_objects_v2(Bucket="reports")


def test_a_copy_may_come_from_another_bucket_that_the_route_takes(proxy, ministack, buckets):
    virtual, direct = client(proxy, "virtual"), ministack.client("s3")
    direct.put_object(Bucket="reports", Key="source", Body=b"object")
    virtual.copy_object(Bucket="mine", Key="copy", CopySource="reports/source")
    assert direct.get_object(Bucket="mine", Key="copy")["Body"].read() == b"object"


def test_the_bucket_stands_before_the_targets_path(proxy, s3):
    assert get(proxy, "My.Data.echo.localhost", "/a%20b?list-type=2").status == 200
    assert s3.last.request.target == "/my.data/reports/a%20b?list-type=2"


@pytest.mark.parametrize("host", ["a_b.echo.localhost", "ab.echo.localhost", "127.0.0.1.echo.localhost"])
def test_what_can_not_be_a_bucket_is_refused(proxy, s3, host):
    response = get(proxy, host, "/key")
    assert (response.status, local_error(response)["code"]) == (400, "UnsupportedRequest")
    assert "can't be a bucket's name" in local_error(response)["message"]
    assert not s3.received


def test_a_bucket_in_the_host_is_not_dropped_in_silence(proxy, s3):
    response = get(proxy, "mine.s3.example", "/plain/reports/x.csv")
    assert (response.status, local_error(response)["code"]) == (400, "UnsupportedRequest")
    assert "path-style" in local_error(response)["message"]
    assert not s3.received
    assert get(proxy, "s3.example", "/plain/mine/reports/x.csv").status == 200
    assert s3.last.request.target == "/mine/reports/x.csv"


def test_an_sdk_shows_why_its_bucket_is_refused(start_proxy, s3):
    proxy = start_proxy(policy({"/": s3_route(s3)}))
    proxy.push(TEMPORARY_KEY)
    with pytest.raises(
        ClientError, match=r"\(UnsupportedRequest\).*names a bucket, which the route's target would drop"
    ):
        client(proxy, "virtual").get_object(Bucket="mine", Key="reports/x.csv")


def test_a_bucket_may_be_the_first_label_of_the_target(start_proxy, authority, s3_verifier):
    certificate = authority.server_context("mine.localhost")
    configuration = StockConfiguration()
    configuration.trust(authority.certificate)
    with Upstream(s3_verifier, tls=certificate) as s3:
        target = f"https://{{bucket}}.localhost:{s3.port}"
        route = {"target": target, "hosts": HOSTS, "service": "s3", "region": REGION}
        proxy = start_proxy(policy({"/": route}), configuration)
        proxy.push(TEMPORARY_KEY)

        assert get(proxy, "mine.s3.localhost", "/key").status == 200
        assert s3.last.request.target == "/key"
        assert s3.last.request.header("host") == f"mine.localhost:{s3.port}"
        response = get(proxy, "my.data.s3.localhost", "/key")
        assert "S3's certificates cover one label" in local_error(response)["message"]
