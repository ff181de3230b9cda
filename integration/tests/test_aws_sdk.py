"""boto3 works against the proxy as against AWS, with nothing but a throw-away key of its own."""

import pytest
from botocore.exceptions import ClientError

from integration.harness.keys import THROWAWAY
from integration.harness.policies import policy, route, s3_route
from integration.harness.sdk import sdk_client
from integration.stack.aws_servers import REGION
from integration.stack.client import curl

KEYS = [
    "a b+c/ü(1).txt",
    "plain",
    "a/b//c/",
    "%20 is not a space",
    "x=1/y=2/part.csv",
    "quote'\"&<>;:@$!*,",
    "日本/🙂",
    "~tilde-_.",
]


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, ministack, moto):
    """Returns a proxy for S3 at ministack, and SQS and DynamoDB at moto, all as an assumed role."""
    routes = {
        "/s3": s3_route(ministack, roleArn=ministack.role_arn),
        "/sqs": route("sqs", moto, roleArn=moto.role_arn),
        "/dynamodb": route("dynamodb", moto, roleArn=moto.role_arn),
    }
    proxy = start_shared_proxy(policy(routes))
    by_role = {entry["roleArn"]: identity for identity, entry in proxy.identities().items()}
    for server in (ministack, moto):
        proxy.push(server.assume_role(), by_role[server.role_arn])
    return proxy


def client(proxy, service: str, **config):
    return sdk_client(service, f"{proxy.url}/{service}", **config)


@pytest.fixture(scope="module")
def bucket(ministack) -> str:
    ministack.client("s3").create_bucket(
        Bucket="through-the-proxy", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    return "through-the-proxy"


@pytest.mark.parametrize("key", KEYS)
def test_an_object_is_put_read_listed_and_deleted(proxy, bucket, ministack, key):
    s3, body = client(proxy, "s3"), f"content of {key}".encode()

    s3.put_object(Bucket=bucket, Key=key, Body=body, Metadata={"colour": "blue"})
    stored = s3.get_object(Bucket=bucket, Key=key)
    assert stored["Body"].read() == body
    assert stored["Metadata"] == {"colour": "blue"}
    assert s3.head_object(Bucket=bucket, Key=key)["ContentLength"] == len(body)

    # Read without the proxy: the object has exactly that name.
    assert key in [entry["Key"] for entry in ministack.client("s3").list_objects_v2(Bucket=bucket)["Contents"]]
    assert key in [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket, Prefix=key[:1])["Contents"]]
    s3.delete_object(Bucket=bucket, Key=key)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix=key)


def test_an_object_of_8_mib_comes_back_as_it_went(proxy, bucket):
    s3, body = client(proxy, "s3"), bytes(range(256)) * (8 << 12)
    s3.put_object(Bucket=bucket, Key="large", Body=body)

    assert s3.get_object(Bucket=bucket, Key="large")["Body"].read() == body


def test_an_upload_in_parts_is_put_together(proxy, bucket):
    s3, parts = client(proxy, "s3"), [b"a" * (5 << 20), b"b"]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    done = []
    for number, part in enumerate(parts, start=1):
        answer = s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=number, Body=part)
        done.append({"PartNumber": number, "ETag": answer["ETag"]})
    s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": done})

    assert s3.head_object(Bucket=bucket, Key="parts")["ContentLength"] == (5 << 20) + 1


def test_curl_puts_and_reads_an_object(proxy, bucket):
    path = f"/s3/{bucket}/a%20b%2Bc/%C3%BC%281%29-curl.txt"
    headers = {"Content-Type": "text/plain"}

    assert proxy.request(path, "PUT", headers=headers, body=b"from curl").status == 200
    assert proxy.request(path).body == b"from curl"
    assert proxy.request(path, http2=True).headers["content-type"] == "text/plain"


def test_the_stand_in_refuses_the_same_request_past_the_proxy(ministack, bucket):
    assert curl(f"{ministack.url}/{bucket}").status == 403


def test_the_stand_in_refuses_the_clients_own_key_past_the_proxy(ministack, bucket):
    direct = ministack.client("s3", THROWAWAY)

    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        direct.list_objects_v2(Bucket=bucket)


def test_an_error_of_the_service_reaches_the_sdk(proxy, bucket):
    with pytest.raises(ClientError, match="NoSuchKey"):
        client(proxy, "s3").get_object(Bucket=bucket, Key="not there")


def test_a_queue_takes_and_gives_messages(proxy):
    sqs = client(proxy, "sqs")
    queue = sqs.create_queue(QueueName="orders")["QueueUrl"]
    # boto3 sends to the client's endpoint, not to the host of the queue's URL.
    sqs.send_message(QueueUrl=queue, MessageBody="order ü 1 + 2")

    [message] = sqs.receive_message(QueueUrl=queue)["Messages"]
    assert message["Body"] == "order ü 1 + 2"
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])


def test_a_table_takes_and_gives_items(proxy):
    dynamodb = client(proxy, "dynamodb")
    dynamodb.create_table(
        TableName="orders",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    dynamodb.put_item(TableName="orders", Item={"id": {"S": "ü/1"}, "note": {"S": "x" * 100_000}})

    item = dynamodb.get_item(TableName="orders", Key={"id": {"S": "ü/1"}})["Item"]
    assert item["note"] == {"S": "x" * 100_000}
