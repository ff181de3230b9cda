"""A second verifying S3 server, s3s-fs, accepts what the proxy signs; it shares no code with ministack."""

import pytest
from botocore.exceptions import ClientError

from integration.harness import aws_chunked
from integration.harness.keys import THROWAWAY
from integration.harness.policies import policy, s3_route
from integration.harness.sdk import sdk_client
from integration.stack.aws_servers import REGION, S3sFs, s3s_fs_binary
from integration.stack.client import curl

pytestmark = pytest.mark.skipif(s3s_fs_binary() is None, reason="integration/setup-s3s-fs.sh was not run")

DATA = bytes(range(256)) * (5 << 12) + b"!"
KEYS = ["plain", "a b+c/ü(1).txt", "x=1/y=2/part.csv", "quote'&;:@$!*,", "日本/🙂", "~tilde-_."]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with S3sFs(tmp_path_factory.mktemp("s3s-fs")) as server:
        server.client("s3").create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
        yield server


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, server):
    target = s3_route(server)
    routes = {
        "/s3": target,
        "/query": {**target, "signing": {"location": "query"}},
        "/get": {**target, "signing": {"location": "query", "redirect": True}},
    }
    proxy = start_shared_proxy(policy(routes))
    proxy.push(server.user)
    return proxy


def client(proxy, route: str = "/s3"):
    return sdk_client("s3", proxy.url + route)


def test_the_server_refuses_the_clients_own_key(server):
    with pytest.raises(ClientError):
        server.client("s3", THROWAWAY).list_objects_v2(Bucket="bucket")


@pytest.mark.parametrize("route", ["/s3", "/query"])
@pytest.mark.parametrize("key", KEYS)
def test_objects_are_put_read_and_listed(proxy, server, route, key):
    s3 = client(proxy, route)
    s3.put_object(Bucket="bucket", Key=key, Body=DATA)

    assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == DATA
    # Read without the proxy: the object has exactly that name, and the listing is the same.
    direct = server.client("s3")
    assert direct.head_object(Bucket="bucket", Key=key)["ContentLength"] == len(DATA)
    listed = [entry["Key"] for entry in s3.list_objects_v2(Bucket="bucket")["Contents"]]
    assert listed == [entry["Key"] for entry in direct.list_objects_v2(Bucket="bucket")["Contents"]]


def test_an_upload_in_parts_is_put_together(proxy):
    s3 = client(proxy)
    upload = s3.create_multipart_upload(Bucket="bucket", Key="parts")["UploadId"]
    done = []
    for number, part in enumerate([DATA, b"end"], start=1):
        answer = s3.upload_part(Bucket="bucket", Key="parts", UploadId=upload, PartNumber=number, Body=part)
        done.append({"PartNumber": number, "ETag": answer["ETag"]})
    s3.complete_multipart_upload(Bucket="bucket", Key="parts", UploadId=upload, MultipartUpload={"Parts": done})

    assert s3.get_object(Bucket="bucket", Key="parts")["Body"].read() == DATA + b"end"


@pytest.mark.parametrize("form", aws_chunked.FORMS)
def test_chunked_uploads_are_accepted(proxy, server, form):
    url = f"{proxy.url}/s3/bucket/{form}"
    upload = aws_chunked.upload(url, form, DATA, THROWAWAY, REGION)

    answer = curl(url, "PUT", {"Expect": "", **upload.headers}, upload.body)

    assert answer.status == 200, answer.text
    assert server.client("s3").get_object(Bucket="bucket", Key=form)["Body"].read() == DATA


def test_a_redirect_leads_to_a_url_that_is_accepted(proxy):
    client(proxy).put_object(Bucket="bucket", Key="large object", Body=DATA)
    location = proxy.request("/get/bucket/large%20object").headers["location"]

    assert curl(location).body == DATA
    assert curl(location.replace("large", "other")).status == 403
