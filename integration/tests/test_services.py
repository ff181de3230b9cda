"""What the recipes promise beside their requests: paths, sizes, streams, sessions, and where credentials come from."""

import contextlib
import hashlib
import http.client
import json
import re
import shlex
import socket
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import boto3
import pytest
from botocore.config import Config

from integration.harness import raw
from integration.harness.client_examples import NIGHTLY_VENV, run
from integration.harness.doc_examples import examples, listeners
from integration.harness.errors import local_error
from integration.harness.keys import TEMPORARY_KEY, THROWAWAY
from integration.harness.policies import api_route
from integration.harness.upstream import Answer, Upstream
from integration.harness.verifier import Verifier
from integration.stack.client import curl
from integration.stack.process import REPOSITORY, Process, environment_without_aws, free_port, wait_until
from integration.stack.proxy import Proxy, StockConfiguration
from integration.stack.refresher import BINARY

REGION = "us-east-1"
# The first of a section that has several.
RECIPES = {example.place.removeprefix("recipes.md: "): example for example in reversed(examples("recipes.md"))}
PROFILE = f"arn:aws:bedrock:{REGION}:123456789012:inference-profile/us.anthropic.claude-sonnet-4-20250514-v1:0"
AGENT = f"arn:aws:bedrock-agentcore:{REGION}:123456789012:runtime/orders-abc123"
AGENT_PATH = AGENT.replace(":", "%3A").replace("/", "%2F")
MIB = 1 << 20


@contextlib.contextmanager
def serving(directory, recipe: str, keys, configure=lambda configuration: None, **members):
    """Starts a proxy with a recipe's policy, and the upstream to which all its requests go."""
    policy = json.loads(RECIPES[recipe].policy) | members
    with Upstream(Verifier(keys, REGION, RECIPES[recipe].scope[0])) as upstream:
        configuration = listeners({"traffic": json.dumps(policy)})
        configuration.lead_https_to(upstream.port)
        configure(configuration)
        with Proxy(directory, None, configuration) as proxy:
            for identity in proxy.identities():
                proxy.push(TEMPORARY_KEY, identity)
            yield proxy, upstream


def client(service: str, url: str):
    return boto3.client(
        service, endpoint_url=url, region_name=REGION, aws_access_key_id=THROWAWAY.access_key,
        aws_secret_access_key=THROWAWAY.secret_key, config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip


def test_an_arn_in_a_path_goes_out_as_the_sdk_wrote_it(tmp_path, keys):
    with serving(tmp_path, "Bedrock by an inference profile", keys) as (proxy, bedrock):
        messages = [{"role": "user", "content": [{"text": "Hello"}]}]
        client("bedrock-runtime", f"{proxy.url}/bedrock").converse(modelId=PROFILE, messages=messages)

        encoded = PROFILE.replace(":", "%3A").replace("/", "%2F")
        assert bedrock.last.request.target == f"/model/{encoded}/converse"
        # The verifier encodes the path once more, as Bedrock does.
        assert bedrock.last.accepted


@pytest.fixture(scope="module")
def agents(tmp_path_factory, keys):
    with serving(tmp_path_factory.mktemp("agents"), "AgentCore Runtime", keys) as started:
        yield started


def invoke(proxy, body: bytes, **headers: str):
    path = f"/agents/runtimes/{AGENT_PATH}/invocations"
    return proxy.request(path, "POST", headers={"content-type": "application/json", **headers}, body=body)


def test_an_agent_takes_a_large_payload_with_the_clients_hash(agents):
    proxy, upstream = agents
    body = b"x" * (17 * MIB)

    accepted = invoke(proxy, body, **{"x-amz-content-sha256": hashlib.sha256(body).hexdigest()})
    assert accepted.status == 200, accepted.text
    assert len(upstream.last.request.body) == len(body)
    # The signature is over the client's hash, and the verifier, like AWS, hashes the body.
    wrong = invoke(proxy, b"y", **{"x-amz-content-sha256": hashlib.sha256(b"x").hexdigest()})
    assert (wrong.status, upstream.last.refusal) == (403, "the signature does not match the request")

    held = invoke(proxy, body)
    assert (held.status, local_error(held)["code"]) == (413, "PayloadTooLarge")


def test_an_agent_takes_100_mb_with_raised_bounds(tmp_path, keys):
    def raise_buffer(configuration: StockConfiguration) -> None:
        configuration.listener("traffic")["per_connection_buffer_limit_bytes"] = 104857600

    body = b"x" * 100_000_000
    bounds = {"maxHeldBytes": 2 * 104857600}
    with serving(tmp_path, "AgentCore Runtime", keys, raise_buffer, **bounds) as (proxy, upstream):
        client("bedrock-agentcore", f"{proxy.url}/agents").invoke_agent_runtime(agentRuntimeArn=AGENT, payload=body)

        assert len(upstream.last.request.body) == len(body)
        assert upstream.last.accepted


def test_a_websocket_to_an_agent_is_signed(agents):
    proxy, upstream = agents
    head = raw.http1_head(f"GET /agents/runtimes/{AGENT_PATH}/ws HTTP/1.1", *raw.WEBSOCKET)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as tcp:
        tcp.sendall(head)
        assert tcp.recv(65536).startswith(b"HTTP/1.1 101")
        tcp.sendall(b"\x81\x05hello")
        assert tcp.recv(65536) == b"\x81\x05hello"
    assert upstream.last.request.target == f"/runtimes/{AGENT_PATH}/ws"


def test_an_mcp_servers_events_arrive_one_by_one_and_its_session_passes(tmp_path, keys):
    with serving(tmp_path, "AgentCore Gateway, and MCP servers behind IAM", keys) as (proxy, gateway):
        release = threading.Event()
        headers = [("content-type", "text/event-stream"), ("mcp-session-id", "session-1")]
        gateway.answer = Answer(headers=headers, parts=[b"data: 1\n\n", release, b"data: 2\n\n"])
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        connection.request("POST", "/mcp", b"{}", {"content-type": "application/json", "mcp-session-id": "session-0"})
        response = connection.getresponse()

        assert response.read1(100) == b"data: 1\n\n"
        release.set()
        assert response.read() == b"data: 2\n\n"
        assert response.headers["mcp-session-id"] == "session-1"
        assert gateway.last.request.header("mcp-session-id") == "session-0"
        connection.close()


class BriefSts(BaseHTTPRequestHandler):
    """An STS whose sessions end soon, and which keeps what it was asked for."""

    asked: ClassVar[list[str]] = []

    def do_POST(self):
        asked = self.rfile.read(int(self.headers["content-length"])).decode()
        self.asked.append(asked)
        action = re.search(r"Action=(\w+)", asked)[1]
        ends = datetime.now(UTC) + timedelta(seconds=5)
        body = f"""<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><Credentials>
            <AccessKeyId>ASIA{len(self.asked):016}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>
            <SessionToken>token</SessionToken><Expiration>{ends:%Y-%m-%dT%H:%M:%SZ}</Expiration>
            </Credentials></{action}Result></{action}Response>""".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Logs nothing."""


@contextlib.contextmanager
def server(handler: type[BaseHTTPRequestHandler]):
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def names_of_sessions(proxy, directory, **variables: str) -> set[str]:
    """Runs the refresher for two renewals; returns the names of the role sessions that it asked for."""
    BriefSts.asked.clear()
    with server(BriefSts) as sts:
        environment = environment_without_aws(AWS_REGION=REGION, AWS_ENDPOINT_URL_STS=sts, **variables)
        command = [BINARY, "--proxy", f"unix:{proxy.socket}", "--interval", "1s"]
        with Process("credential-refresher", command, directory / "refresher.log", environment):
            wait_until(lambda: len(BriefSts.asked) >= 3, "two renewals", timeout=60)
    return {re.search(r"RoleSessionName=([\w-]+)", asked)[1] for asked in BriefSts.asked}


def test_the_session_of_a_role_has_the_same_name_after_a_renewal(tmp_path, keys):
    with serving(tmp_path, "AgentCore Gateway, and MCP servers behind IAM", keys) as (proxy, _):
        source = {"AWS_ACCESS_KEY_ID": "AKIDSOURCE", "AWS_SECRET_ACCESS_KEY": "secret"}
        assert names_of_sessions(proxy, tmp_path, **source) == {"orders"}


def test_the_session_of_a_web_identity_needs_a_name_to_keep_it(start_proxy, api, tmp_path):
    proxy = start_proxy({"routes": {"/api": api_route(api)}})
    (tmp_path / "token").write_text("header.payload.signature")
    identity = {
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/orders",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
    }
    assert len(names_of_sessions(proxy, tmp_path, **identity)) > 1
    assert names_of_sessions(proxy, tmp_path, **identity, AWS_ROLE_SESSION_NAME="orders") == {"orders"}


# IAM Roles Anywhere, with a stand-in for its helper.

ROLES_ANYWHERE = (REPOSITORY / "docs" / "recipes.md").read_text().partition("## Credentials by IAM Roles Anywhere")[2]
EXPIRATION = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
SESSION = {"AccessKeyId": "ASIAROLESANYWHERE", "SecretAccessKey": "secret", "Expiration": EXPIRATION}


def refreshed(proxy, directory, **variables: str) -> str:
    """Runs the refresher once, with the command of the recipe; returns the access key that it pushed."""
    [command] = re.findall(r"^AWS_EC2_\S+ (credential-refresher .*)$", ROLES_ANYWHERE, re.MULTILINE)
    _, *arguments = shlex.split(command.replace("/run/sigv4/credentials.sock", str(proxy.socket)))
    environment = environment_without_aws(HOME=str(directory), AWS_REGION=REGION) | variables
    with Process("refresher", [BINARY, *arguments, "--once"], directory / "refresher.log", environment) as refresher:
        assert refresher.wait(30) == 0, refresher.log
    return proxy.identities()["default"]["held"]["accessKeyId"]


def test_roles_anywhere_supplies_the_refresher_as_a_process(start_proxy, api, tmp_path):
    [config] = re.findall(r"^```ini\n(.*?)^```$", ROLES_ANYWHERE, re.DOTALL | re.MULTILINE)
    (tmp_path / "config").write_text(config)
    helper = tmp_path / "aws_signing_helper"
    document = json.dumps({"Version": 1, "SessionToken": "token", **SESSION})
    helper.write_text(f"#!/bin/sh\necho \"$@\" >{tmp_path}/called\necho '{document}'\n")
    helper.chmod(0o755)

    pushed = refreshed(
        start_proxy({"routes": {"/api": api_route(api)}}), tmp_path,
        AWS_CONFIG_FILE=str(tmp_path / "config"), PATH=f"{tmp_path}:/usr/bin:/bin",
    )  # fmt: skip

    assert pushed == SESSION["AccessKeyId"]
    assert (tmp_path / "called").read_text().startswith("credential-process --certificate /etc/sigv4/client.crt ")


class MetadataService(BaseHTTPRequestHandler):
    """The metadata service of an EC2 instance, version 2, as the helper's serve presents it."""

    def do_PUT(self):
        self._answer(b"imds-token" if self.path == "/latest/api/token" else None)

    def do_GET(self):
        if self.headers["x-aws-ec2-metadata-token"] != "imds-token":
            self._answer(None)
        elif self.path.startswith("/latest/meta-data/iam/security-credentials/proxy"):
            document = {"Code": "Success", "Type": "AWS-HMAC", "Token": "token", "LastUpdated": EXPIRATION, **SESSION}
            self._answer(json.dumps(document).encode())
        else:
            self._answer(b"proxy" if self.path.startswith("/latest/meta-data/iam/security-credentials") else None)

    def _answer(self, body: bytes | None):
        self.send_response(404 if body is None else 200)
        self.send_header("content-length", str(len(body or b"")))
        self.send_header("x-aws-ec2-metadata-token-ttl-seconds", "21600")
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_):
        """Logs nothing."""


def test_roles_anywhere_supplies_the_refresher_as_a_server(start_proxy, api, tmp_path):
    with server(MetadataService) as address:
        # The variable of the recipe's command.
        assert "AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:9911/ " in ROLES_ANYWHERE
        pushed = refreshed(
            start_proxy({"routes": {"/api": api_route(api)}}), tmp_path,
            AWS_EC2_METADATA_SERVICE_ENDPOINT=f"{address}/", AWS_EC2_METADATA_DISABLED="false",
        )  # fmt: skip
    assert pushed == SESSION["AccessKeyId"]


# Real clients of these services.


def run_client(directory, program: str) -> str:
    """Runs a program of the nightly clients' Python; returns what it printed."""
    done = run([NIGHTLY_VENV / "bin" / "python", "-c", program], directory, nightly=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.nightly
def test_an_mcp_client_calls_a_tool_through_the_proxy(tmp_path):
    """The server is a real one, and takes signed requests alone."""
    port = free_port()
    key = TEMPORARY_KEY
    command = [NIGHTLY_VENV / "bin" / "python", REPOSITORY / "integration" / "clients" / "mcp_server.py", str(port)]
    command += [key.access_key, key.secret_key, key.token]
    environment = environment_without_aws(PYTHONPATH=str(REPOSITORY))
    configuration = listeners({"traffic": RECIPES["AgentCore Gateway, and MCP servers behind IAM"].policy})
    configuration.lead_https_to(port)
    with (
        Process("mcp", command, tmp_path / "mcp.log", environment) as mcp,
        Proxy(tmp_path, None, configuration) as proxy,
    ):
        mcp.wait_ready(lambda: "Uvicorn running" in mcp.log)
        for identity in proxy.identities():
            proxy.push(key, identity)
        printed = run_client(
            tmp_path,
            f"""
import asyncio

from mcp import Client


async def main():
    async with Client("{proxy.url}/mcp") as client:
        print([tool.name for tool in (await client.list_tools()).tools])
        print((await client.call_tool("count", {{"item": "apples"}})).content)


asyncio.run(main())
""",
        )

        assert "['count']" in printed
        assert "2 of apples" in printed
        assert curl(f"http://127.0.0.1:{port}/mcp", "POST", body=b"{}").status == 403


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("recipe", "route", "warehouse", "prefix"),
    [
        ("Iceberg: S3 Tables", "tables", BUCKET := f"arn:aws:s3tables:{REGION}:123456789012:bucket/orders",
         BUCKET.replace(":", "%3A").replace("/", "%2F")),
        ("Iceberg: Glue", "glue", "123456789012", "catalogs/123456789012"),
    ],
)  # fmt: skip
def test_pyiceberg_lists_namespaces_through_the_proxy(tmp_path, keys, recipe, route, warehouse, prefix):
    with serving(tmp_path, recipe, keys) as (proxy, catalogue):
        answer = {"defaults": {}, "overrides": {"prefix": prefix}, "namespaces": [["orders"]]}
        headers = [("content-type", "application/json")]
        catalogue.answer = Answer(headers=headers, parts=[json.dumps(answer).encode()])
        settings = {"type": "rest", "uri": f"{proxy.url}/{route}", "warehouse": warehouse}
        printed = run_client(
            tmp_path,
            f"from pyiceberg.catalog import load_catalog; print(load_catalog('x', **{settings}).list_namespaces())",
        )

        assert "orders" in printed
        assert [each.refusal for each in catalogue.received] == [None, None]
        assert catalogue.last.request.target == f"/iceberg/v1/{prefix}/namespaces"


@pytest.mark.nightly
def test_an_opentelemetry_sdk_sends_traces_through_the_proxy(tmp_path, keys):
    with serving(tmp_path, "CloudWatch's OTLP endpoints", keys) as (proxy, xray):
        run_client(
            tmp_path,
            f"""
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint="{proxy.url}/traces")))
with provider.get_tracer("orders").start_as_current_span("order"):
    pass
""",
        )

        assert xray.last.accepted, xray.last.refusal
        assert xray.last.request.target == "/v1/traces"
        assert xray.last.request.header("content-type") == "application/x-protobuf"


OPENAI = """
from openai import OpenAI

client = OpenAI(base_url="{url}/mantle/v1", api_key="throw-away", max_retries=0)
answer = client.chat.completions.create(model="openai.gpt-oss-120b", messages=[{{"role": "user", "content": "Hello"}}])
print(answer.choices[0].message.content)
"""
COMPLETION = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "openai.gpt-oss-120b",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Good day"}}],
}
ANTHROPIC = """
from anthropic import Anthropic

client = Anthropic(base_url="{url}/mantle/anthropic", api_key="throw-away", max_retries=0)
asked = [{{"role": "user", "content": "Hello"}}]
print(client.messages.create(model="anthropic.claude-haiku-4-5", max_tokens=64, messages=asked).content[0].text)
"""
MESSAGE = {
    "id": "1",
    "type": "message",
    "role": "assistant",
    "model": "anthropic.claude-haiku-4-5",
    "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "Good day"}],
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("program", "answer", "target"),
    [(OPENAI, COMPLETION, "/v1/chat/completions"), (ANTHROPIC, MESSAGE, "/anthropic/v1/messages")],
    ids=["openai", "anthropic"],
)
def test_the_libraries_of_openai_and_anthropic_work_at_mantle(tmp_path, keys, program, answer, target):
    with serving(tmp_path, "Bedrock Mantle", keys) as (proxy, mantle):
        headers = [("content-type", "application/json")]
        mantle.answer = Answer(headers=headers, parts=[json.dumps(answer).encode()])

        assert "Good day" in run_client(tmp_path, program.format(url=proxy.url))
        assert mantle.last.accepted, mantle.last.refusal
        assert mantle.last.request.target == target
        # Neither library's key goes on.
        assert "throw-away" not in str(mantle.last.request.headers)
