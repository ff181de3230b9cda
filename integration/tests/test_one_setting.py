"""http_proxy is all that a client has to be told: requests to AWS's own host names are signed for what these stand for,
and leave over TLS."""

import os
import subprocess

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ProxyConnectionError

from integration.harness.keys import TEMPORARY_KEY, THROWAWAY
from integration.harness.sdk import sdk_client
from integration.harness.upstream import Answer, Upstream
from integration.harness.verifier import AnyScope
from integration.stack.aws_servers import REGION
from integration.stack.proxy import StockConfiguration

# As in docs/recipes.md.
HOSTS = ["*.amazonaws.com", "*.api.aws", "*.on.aws", "*.amazonaws.com.cn"]

JSON = Answer(headers=[("content-type", "application/json")], parts=[b"{}"])
XML = Answer(parts=[b"<R><GetCallerIdentityResult/><ListTopicsResult/><ListUsersResult/></R>"])

CERTIFIED = [
    "*.amazonaws.com",
    "*.eu-west-1.amazonaws.com",
    "*.s3.eu-west-1.amazonaws.com",
    "*.us-west-2.amazonaws.com",
    "*.cn-north-1.amazonaws.com.cn",
    "*.eu-west-1.api.aws",
    "*.lambda-url.eu-west-1.on.aws",
]


@pytest.fixture(scope="module")
def _aws(authority, keys):
    with Upstream(AnyScope(keys), tls=authority.server_context(*CERTIFIED)) as upstream:
        yield upstream


@pytest.fixture
def aws(_aws):
    _aws.reset()
    yield _aws
    _aws.answer = None


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, authority, _aws):
    configuration = StockConfiguration()
    configuration.trust(authority.certificate)
    configuration.lead_https_to(_aws.port, tls=True)
    proxy = start_shared_proxy({"routes": {"/": {"hosts": HOSTS}}, "credentialsWaitMs": 5000}, configuration)
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.fixture
def one_setting(proxy, monkeypatch):
    """Sets what a user sets."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("http_proxy", proxy.url)


def client(service: str, region: str = REGION, **config):
    # As boto3 by itself: buckets in the host's name where that is possible.
    return sdk_client(service, None, region=region, use_ssl=False, **{"s3": {}, **config})


@pytest.mark.parametrize(
    ("service", "region", "config", "call", "answer", "host", "scope"),
    [
        ("sqs", "eu-west-1", {}, "list_queues", JSON, "sqs.eu-west-1.amazonaws.com", "sqs eu-west-1"),
        ("sqs", "us-west-2", {}, "list_queues", JSON, "sqs.us-west-2.amazonaws.com", "sqs us-west-2"),
        ("dynamodb", "eu-west-1", {}, "list_tables", JSON, "dynamodb.eu-west-1.amazonaws.com", "dynamodb eu-west-1"),
        ("lambda", "eu-west-1", {}, "list_functions", JSON, "lambda.eu-west-1.amazonaws.com", "lambda eu-west-1"),
        ("logs", "eu-west-1", {}, "describe_log_groups", JSON, "logs.eu-west-1.amazonaws.com", "logs eu-west-1"),
        ("cloudwatch", "eu-west-1", {}, "list_dashboards", JSON, "monitoring.eu-west-1.amazonaws.com",
         "monitoring eu-west-1"),
        ("sts", "eu-west-1", {}, "get_caller_identity", XML, "sts.eu-west-1.amazonaws.com", "sts eu-west-1"),
        ("sns", "eu-west-1", {}, "list_topics", XML, "sns.eu-west-1.amazonaws.com", "sns eu-west-1"),
        ("ec2", "eu-west-1", {}, "describe_instances", XML, "ec2.eu-west-1.amazonaws.com", "ec2 eu-west-1"),
        ("iam", "eu-west-1", {}, "list_users", XML, "iam.amazonaws.com", "iam us-east-1"),
        ("s3", "eu-west-1", {}, "list_buckets", XML, "s3.eu-west-1.amazonaws.com", "s3 eu-west-1"),
        ("sqs", "eu-west-1", {"use_dualstack_endpoint": True}, "list_queues", JSON, "sqs.eu-west-1.api.aws",
         "sqs eu-west-1"),
        ("sqs", "cn-north-1", {}, "list_queues", JSON, "sqs.cn-north-1.amazonaws.com.cn", "sqs cn-north-1"),
    ],
)  # fmt: skip
def test_boto3_calls_each_service_at_its_own_host(one_setting, aws, service, region, config, call, answer, host, scope):
    aws.answer = answer
    getattr(client(service, region, **config), call)()

    assert aws.last.accepted, aws.last.refusal
    assert aws.last.request.header("host") == host
    assert f"{aws.last.verdict.service} {aws.last.verdict.region}" == scope
    assert aws.last.verdict.access_key_id == TEMPORARY_KEY.access_key


def test_boto3_puts_an_object_at_the_host_of_its_bucket(one_setting, aws):
    aws.answer = XML
    client("s3").put_object(Bucket="reports", Key="year=2026/a b+c.csv", Body=b"x" * 20_000_000)

    assert aws.last.accepted, aws.last.refusal
    assert aws.last.request.header("host") == "reports.s3.eu-west-1.amazonaws.com"
    assert aws.last.request.target == "/year%3D2026/a%20b%2Bc.csv"
    assert aws.last.verdict.payload == "signed"


@pytest.mark.parametrize(
    ("url", "scope"),
    [
        ("http://sqs.eu-west-1.amazonaws.com/?Action=ListQueues", "sqs eu-west-1"),
        ("http://reports.s3.eu-west-1.amazonaws.com/a%20b", "s3 eu-west-1"),
        ("http://abc.lambda-url.eu-west-1.on.aws/resize", "lambda eu-west-1"),
        ("http://kms.eu-west-1.api.aws/", "kms eu-west-1"),
        ("http://sns.cn-north-1.amazonaws.com.cn/", "sns cn-north-1"),
    ],
)
def test_curl_calls_each_service_at_its_own_host(one_setting, aws, url, scope):
    command = ["curl", "-sS", "--fail", "--globoff", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    assert done.returncode == 0, done.stderr
    assert f"{aws.last.verdict.service} {aws.last.verdict.region}" == scope


def test_other_hosts_are_not_forwarded(one_setting, aws):
    for url in ("http://example.com/", "http://amazonaws.com.example.com/", "http://169.254.169.254/latest/meta-data/"):
        command = ["curl", "-sS", "--output", "/dev/null", "--write-out", "%{http_code}", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        assert done.stdout == "404"
    assert not aws.received


def test_with_tls_to_the_proxy_boto3_is_refused(proxy, aws, monkeypatch):
    """It opens a tunnel, whose answer it does not show: the log has the advice."""
    monkeypatch.setenv("https_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "")
    sqs = boto3.client(
        "sqs",
        region_name="eu-west-1",
        aws_access_key_id=THROWAWAY.access_key,
        aws_secret_access_key=THROWAWAY.secret_key,
        config=Config(retries={"total_max_attempts": 1}),
    )

    with pytest.raises(ProxyConnectionError, match="Failed to connect to proxy URL"):
        sqs.list_queues()
    assert not aws.received
