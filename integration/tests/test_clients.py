"""docs/clients.md: each client works as its section says, and what can't work fails as the page says."""

import json
import os
import re
import time

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import Credentials
from minio import Minio

from integration.harness.client_examples import (
    NIGHTLY_VENV,
    PAGE,
    client_examples,
    exported_variables,
    install_duckdb_extension,
    run,
    table,
)
from integration.harness.doc_examples import examples
from integration.harness.errors import local_error
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import policy, s3_route
from integration.harness.upstream import Answer, Upstream
from integration.harness.verifier import Verifier
from integration.stack.aws_servers import REGION
from integration.stack.capture import Capture
from integration.stack.client import curl
from integration.stack.process import REPOSITORY
from integration.stack.proxy import StockConfiguration

EXAMPLES = client_examples()
# Installed for each change; the others run nightly.
EACH_CHANGE = ["curl", "httpx", "boto3", "s5cmd", "s3cmd", "minio-py"]
NIGHTLY = [client for client in EXAMPLES if client not in EACH_CHANGE]
# Stores no object.
NOT_S3 = {"opensearch-py"}

BUCKET = "bucket"
REPORT = "item,count\n7,2\n"
SEARCH_ROLE = "arn:aws:iam::123456789012:role/search"


@pytest.fixture(scope="module")
def search():
    with Upstream(Verifier({TEMPORARY_KEY.access_key: TEMPORARY_KEY}, REGION, "es")) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, ministack, moto, search):
    """The proxy of the page: its policy, with roles by which each server knows its caller."""
    [text] = re.findall(r"^```json\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    policy = json.loads(text)
    roles = {"/sqs": moto.role_arn, "/dynamodb": moto.role_arn, "/search": SEARCH_ROLE}
    for prefix, role in roles.items():
        policy["routes"][prefix]["roleArn"] = role
    configuration = StockConfiguration.leading_https_to(ministack.port)
    for service in ("sqs", "dynamodb"):
        configuration.lead_host_to(f"{service}.{REGION}.amazonaws.com", moto.port)
    configuration.lead_host_to(policy["routes"]["/search"]["target"].removeprefix("https://"), search.port)
    proxy = start_shared_proxy(policy, configuration)
    credentials = {moto.role_arn: moto.assume_role(), SEARCH_ROLE: TEMPORARY_KEY}
    for identity, entry in proxy.identities().items():
        proxy.push(credentials.get(entry.get("roleArn"), ministack.user), identity)
    location = {"LocationConstraint": REGION}
    ministack.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=location)
    return proxy


@pytest.fixture
def directory(tmp_path):
    """Returns an empty home with the report that the examples store."""
    (tmp_path / "report.csv").write_text(REPORT)
    return tmp_path


def stored(ministack) -> dict[str, str]:
    """Returns the objects in the bucket, read without the proxy, with what tells one version from another."""
    entries = ministack.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])
    return {entry["Key"]: f"{entry['ETag']} {entry['LastModified']}" for entry in entries}


def works(client: str, proxy, ministack, search, directory, nightly: bool) -> None:
    before = stored(ministack)
    search.reset()
    done = EXAMPLES[client].run(directory, f"127.0.0.1:{proxy.port}", nightly)

    assert done.returncode == 0, done.stdout + done.stderr
    if client in NOT_S3:
        assert search.last.accepted, search.last.refusal
        return
    assert stored(ministack).keys() - before.keys()
    # What it read back.
    assert {"7", "2"} <= set(re.findall(r"\d+", done.stdout)), done.stdout


@pytest.mark.parametrize("client", EACH_CHANGE)
def test_a_client_works_as_its_section_says(proxy, ministack, search, directory, client):
    works(client, proxy, ministack, search, directory, nightly=False)


@pytest.mark.nightly
@pytest.mark.parametrize("client", NIGHTLY)
def test_a_large_client_works_as_its_section_says(proxy, ministack, search, directory, client):
    if client == "DuckDB":
        install_duckdb_extension(directory)
    works(client, proxy, ministack, search, directory, nightly=True)


# The page itself.


def test_each_client_has_a_line_that_says_when_it_is_tested():
    lines = {client: tested for client, (_, tested) in table().items()}
    sections = {"Node": "Node's fetch", "Java": "Java's HttpClient", "AWS CLI": "AWS CLI 1"}
    for client in EXAMPLES:
        tested = lines[sections.get(client, client)]
        assert tested.startswith("each change" if client in EACH_CHANGE else "nightly"), client
    assert len(lines) == len(EXAMPLES)


def test_the_page_names_the_versions_that_are_tested():
    pinned = "".join(
        (REPOSITORY / "integration" / path).read_text() for path in ("requirements.txt", "clients/requirements.txt")
    )
    versions = [version for _, tested in table().values() for version in re.findall(r"\d+\.[\d.]*\d", tested)]

    # s5cmd's package has a version of its own, and restic is Debian's.
    for version in set(versions) - {"2.3.0", "0.14.0"}:
        assert f"=={version}\n" in pinned, version


# What can be left out, and what does not work.


def client(service: str, url: str, **options):
    key = Credentials(exported_variables()["AWS_ACCESS_KEY_ID"], exported_variables()["AWS_SECRET_ACCESS_KEY"])
    return boto3.client(
        service, endpoint_url=url, region_name=REGION, aws_access_key_id=key.access_key,
        aws_secret_access_key=key.secret_key, config=Config(retries={"total_max_attempts": 1}, **options),
    )  # fmt: skip


def test_boto3_can_do_without_a_key(proxy, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3 = boto3.client(
        "s3", endpoint_url=f"{proxy.url}/s3", region_name=REGION, config=Config(signature_version=UNSIGNED)
    )
    s3.put_object(Bucket=BUCKET, Key="unsigned", Body=b"object")
    assert s3.get_object(Bucket=BUCKET, Key="unsigned")["Body"].read() == b"object"


def test_a_tunnel_is_refused(proxy):
    tunnel = ["--proxy", proxy.url, "--noproxy", "", "--proxytunnel"]
    for version, status in [([], 400), (["--proxy1.0", proxy.url], 426)]:
        with pytest.raises(RuntimeError, match=f"response {status}"):
            curl("https://s3.eu-west-1.amazonaws.com/", options=[*tunnel, *version])


def test_minio_takes_no_path_in_its_endpoint(proxy):
    with pytest.raises(ValueError, match="path in endpoint is not allowed"):
        Minio(f"127.0.0.1:{proxy.port}/s3", secure=False)


def test_a_large_object_streams_to_s3_without_tls_with_the_clients_hash(start_proxy, s3):
    routes = {"/client": s3_route(s3, payload="client"), "/signed": s3_route(s3, payload="signed")}
    proxy = start_proxy(policy(routes))
    proxy.push(TEMPORARY_KEY)
    body = b"x" * (17 << 20)
    s3.answer = Answer()

    client("s3", f"{proxy.url}/client").put_object(Bucket=BUCKET, Key="large", Body=body)
    assert s3.last.verdict.payload == "signed"
    assert len(s3.last.request.body) == len(body)

    held = proxy.request("/signed/bucket/large", "PUT", body=body)
    assert (held.status, local_error(held)["code"]) == (413, "PayloadTooLarge")


def test_a_clients_presigned_url_loses_its_expiry(proxy, ministack):
    s3 = client("s3", f"{proxy.url}/s3")
    s3.put_object(Bucket=BUCKET, Key="presigned", Body=b"object")
    url = s3.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "presigned"}, ExpiresIn=1)
    time.sleep(2.5)

    assert url.startswith(proxy.url)
    assert curl(url).body == b"object"


def test_a_form_for_browsers_stays_signed_by_the_throw_away_key(proxy, s3, start_proxy):
    echo = start_proxy(policy({"/s3": s3_route(s3)}))
    echo.push(TEMPORARY_KEY)
    form = client("s3", f"{echo.url}/s3").generate_presigned_post(BUCKET, "form")
    options = [part for name, value in form["fields"].items() for part in ("--form", f"{name}={value}")]

    curl(form["url"], "POST", options=[*options, "--form", "file=object"])

    assert b"throw-away" in s3.last.request.body
    assert s3.last.verdict.access_key_id == TEMPORARY_KEY.access_key


def test_a_token_is_made_without_a_request(proxy):
    token = client("rds", f"{proxy.url}/rds").generate_db_auth_token("db.internal", 5432, "orders", REGION)
    assert "throw-away" in token


@pytest.fixture
def tunnel(proxy):
    """What would go to AWS over TLS goes here, and the proxy refuses it."""
    with Capture(proxy.port) as capture:
        yield capture


@pytest.mark.nightly
@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS"])
def test_the_command_line_ignores_the_endpoint_of_some_services(proxy, directory, tunnel, variable):
    command = [NIGHTLY_VENV / "bin" / "aws", "sqs", "list-queues"]
    address = f"{proxy.url}/sqs"
    settings = {"AWS_MAX_ATTEMPTS": "1", "AWS_RETRY_MODE": "standard", "HTTPS_PROXY": tunnel.url}

    assert run(command, directory, nightly=True, **settings, **{variable: address}).returncode != 0
    assert b"CONNECT eu-west-1.queue.amazonaws.com:443" in tunnel.sent
    assert run([*command, "--endpoint-url", address], directory, nightly=True, **settings).returncode == 0


@pytest.mark.nightly
def test_pyarrow_ignores_the_endpoint_in_the_environment(proxy, directory, tunnel):
    settings = f"region='eu-west-1', proxy_options='{tunnel.url}', retry_strategy=fs.AwsStandardS3RetryStrategy(1)"
    program = f"from pyarrow import fs; fs.S3FileSystem({settings}).get_file_info('{BUCKET}/key')"
    command = [NIGHTLY_VENV / "bin" / "python", "-c", program]

    assert run(command, directory, nightly=True, AWS_ENDPOINT_URL_S3=f"{proxy.url}/s3").returncode != 0
    assert f"CONNECT {BUCKET}.s3.eu-west-1.amazonaws.com:443".encode() in tunnel.sent


@pytest.mark.nightly
def test_the_command_line_can_do_without_a_key(proxy, directory):
    command = [NIGHTLY_VENV / "bin" / "aws", "s3api", "list-objects-v2", "--bucket", BUCKET, "--no-sign-request"]
    without = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_ENDPOINT_URL_S3": f"{proxy.url}/s3"}
    done = run(command, directory, nightly=True, **without)
    assert done.returncode == 0, done.stderr


@pytest.mark.nightly
def test_duckdb_finds_the_bucket_in_the_host_name(start_proxy, proxy, ministack, directory):
    """With the recipe for such clients, which stands for DuckDB's default: no URL_STYLE."""
    install_duckdb_extension(directory)
    [recipe] = [each for each in examples("recipes.md") if "put the bucket into the host name" in each.place]
    virtual = start_proxy(json.loads(recipe.policy), StockConfiguration.leading_https_to(ministack.port))
    virtual.push(ministack.user)
    secret = "TYPE s3, KEY_ID 'throw-away', SECRET 'throw-away', REGION 'eu-west-1', USE_SSL false"
    program = f"""
import duckdb

duckdb.sql("CREATE SECRET ({secret}, ENDPOINT 's3.localhost:{virtual.port}')")
duckdb.sql("COPY (SELECT 42 AS answer) TO 's3://{BUCKET}/virtual/duckdb.csv'")
print(duckdb.sql("SELECT * FROM 's3://{BUCKET}/virtual/duckdb.csv'"))
"""

    done = run([NIGHTLY_VENV / "bin" / "python", "-c", program], directory, nightly=True)

    assert "42" in done.stdout, done.stderr
    assert "virtual/duckdb.csv" in stored(ministack)


@pytest.mark.nightly
def test_restic_takes_a_path_for_a_bucket(proxy, directory):
    repository = f"s3:{proxy.url}/s3/bucket/repository"
    done = run(["restic", "--repo", repository, "init"], directory, nightly=True, RESTIC_PASSWORD="secret")
    assert done.returncode != 0
    assert "Bucket name" in done.stderr
