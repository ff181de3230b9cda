"""The documents: text that a reader would copy works, and does what the document promises."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from urllib.parse import urlsplit

import pytest
import yaml

from integration.harness.doc_examples import examples, listeners
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.upstream import Upstream
from integration.harness.verifier import AnyScope
from integration.reference import generate
from integration.stack.client import curl
from integration.stack.process import REPOSITORY, environment_without_aws, wait_until
from integration.stack.proxy import Proxy
from integration.stack.refresher import BINARY

EXAMPLES = [
    example
    for document in (
        "recipes.md",
        "migrating-from-aws-sigv4-proxy.md",
        "migrating-from-envoy-aws-request-signing.md",
    )
    for example in examples(document)
]
KEYS = generate.load_examples()
DOCUMENTS = [
    path.relative_to(REPOSITORY)
    for pattern in ("*.md", "docs/*.md", ".github/**/*.md")
    for path in sorted(REPOSITORY.glob(pattern))
]


@pytest.fixture(scope="module")
def _aws(keys):
    with Upstream(AnyScope(keys)) as upstream:
        yield upstream


@pytest.fixture
def aws(_aws):
    _aws.reset()
    return _aws


@pytest.fixture(scope="module")
def proxy(tmp_path_factory, _aws):
    """Returns one Envoy with a listener for the policy of each example."""
    policies = {f"key {place}": example["policy"] for place, example in KEYS.items()}
    policies |= {f"example {number}": example.policy for number, example in enumerate(EXAMPLES)}
    configuration = listeners(policies)
    configuration.lead_https_to(_aws.port)
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(Proxy(tmp_path_factory.mktemp("documents"), None, configuration))
        for identity in proxy.identities():
            proxy.push(TEMPORARY_KEY, identity)
        yield proxy


def test_the_policy_reference_is_what_the_schema_gives():
    assert (REPOSITORY / "docs" / "policy.md").read_text() == generate.render(), (
        "docs/policy.md is stale; regenerate it: .venv/bin/python -m integration.reference.generate"
    )


@pytest.mark.parametrize("place", KEYS)
def test_the_example_of_a_key_does_what_the_reference_says(proxy, aws, place):
    example = KEYS[place]
    method, _, path = example["request"].partition(" ")
    headers = {"host": example.get("host", "proxy.internal"), **example.get("with", {})}
    if client := example.get("client"):
        service, region = client.split()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential=throw-away/20260101/{region}/{service}/aws4_request, "
            f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}"
        )
    body = example["body"].encode() if "body" in example else None
    url = f"http://127.0.0.1:{proxy.envoy.port(f'key {place}')}{path}"

    response = curl(url, method, headers=headers, body=body)

    if status := example.get("answers"):
        assert response.status == status, response.text
        assert not aws.received
        return
    last = aws.last
    if example.get("unsigned"):
        assert (last.request.header("host"), last.request.target) == (headers["host"], path)
        assert last.refusal == "no Authorization header"
        return
    assert response.status == 200, response.text
    sent_method, _, target = example["sends"].partition(" ")
    sent = urlsplit(target)
    # The cluster for http does not lead to the upstream.
    assert sent.scheme == "https"
    asked = last.request.target if last.verdict.location == "header" else last.request.path
    expected = sent.path + (f"?{sent.query}" if sent.query else "")
    assert (last.request.method, last.request.header("host"), asked) == (sent_method, sent.netloc, expected)
    if scope := example.get("scope"):
        assert f"{last.verdict.service} {last.verdict.region}" == scope
    for name, value in example.get("headers", {}).items():
        assert last.request.header(name) == value
    for name, value in example.get("returns", {}).items():
        assert response.headers[name] == value
    if name := example.get("signs"):
        assert name in last.verdict.signed_headers
    if query := example.get("query"):
        assert query in last.request.query.split("&")
    assert last.verdict.location == example.get("location", "header")
    if payload := example.get("payload"):
        assert last.verdict.payload == payload
    if logged := example.get("logs"):

        def entries() -> list[dict]:
            lines = [json.loads(line) for line in proxy.envoy.log.splitlines() if line.startswith("{")]
            return [line for line in lines if line["path"] == sent.path]

        wait_until(entries, "the access log")
        assert entries()[-1]["sigv4"] == logged
    if wants := example.get("wants"):
        assert any(wants.items() <= identity.items() for identity in proxy.identities().values())


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=[example.place for example in EXAMPLES])
def test_a_recipe_is_signed_for_what_it_says(proxy, aws, number):
    example = EXAMPLES[number]
    address = f"127.0.0.1:{proxy.envoy.port(f'example {number}')}"
    commands, programs = example.commands(), example.code("python")
    assert commands or programs

    for command in commands:
        arguments = shlex.split(command.replace("127.0.0.1:8080", address))
        environment = {}
        while "=" in arguments[0]:
            name, _, environment[name] = arguments.pop(0).partition("=")
        assert arguments[0] == "curl"

        done = subprocess.run(
            ["curl", "-sS", "--output", "/dev/null", "--write-out", "%{http_code}", *arguments[1:]],
            input="a file", capture_output=True, text=True, check=False, timeout=20, env=os.environ | environment,
        )  # fmt: skip
        refusal = aws.last.refusal if aws.received else None
        assert (done.stdout, refusal) == (str(example.status), None), done.stderr
    for program in programs:
        code = program.replace("127.0.0.1:8080", address)
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment_without_aws(), capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr

    if example.status == 307:
        assert not aws.received
        return
    assert len(aws.received) == len(commands) + len(programs)
    for received in aws.received:
        verdict = received.verdict
        assert verdict, received.refusal
        assert (verdict.service, verdict.region, received.request.header("host")) == example.scope


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.place for example in EXAMPLES])
def test_the_yaml_beside_a_policy_can_be_read(example):
    for code in example.code("yaml"):
        assert yaml.safe_load(code)


def test_the_calls_of_the_intake_page_are_answered_as_it_says(start_proxy, tmp_path):
    page = (REPOSITORY / "docs" / "intake.md").read_text()
    [commands] = re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    [document] = re.findall(r"^```json\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "credentials.json").write_text(document)
    proxy = start_proxy({"routes": {"/s3": "https://s3.eu-west-1.amazonaws.com"}})

    statuses = []
    for command in commands.splitlines():
        arguments = shlex.split(command.replace("/run/sigv4/credentials.sock", str(proxy.socket)))
        asked = [*arguments, "-sS", "-o", tmp_path / "answer", "-w", "%{http_code}"]
        done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=True)
        statuses.append(done.stdout)

    assert statuses == ["503", "200", "204", "204"]
    [identity] = proxy.identities().values()
    assert identity["revoked"] == [json.loads(document)["AccessKeyId"]]


def test_troubleshooting_has_every_code_of_a_local_reply():
    replies = (REPOSITORY / "docs" / "policy.md").read_text().partition("## Local replies")[2].partition("\n## ")[0]
    codes = re.findall(r"^\| \d{3} \| `(\w+)`", replies, re.MULTILINE)
    text = (REPOSITORY / "docs" / "troubleshooting.md").read_text()

    assert len(codes) >= 6
    for code in codes:
        assert f"`{code}`" in text


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_between_documents_lead_somewhere(document):
    path = REPOSITORY / document
    for target in links(path.read_text()):
        if "://" in target:
            assert re.fullmatch(r"(https|http)://[\w.:-]+(/[\w./@#?=&%-]*)?", target), target
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), target
        assert REPOSITORY in linked.parents, target
        if anchor:
            assert anchor in anchors(linked.read_text()), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_files_that_a_document_names_are_there(document):
    text = (REPOSITORY / document).read_text()
    named = re.findall(r"`((?:src|envoy|integration|build|docs|fuzz)/[\w./-]+)`", text)

    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_the_index_has_every_page():
    index = links((REPOSITORY / "docs" / "README.md").read_text())
    pages = {path.name for path in (REPOSITORY / "docs").glob("*.md")} - {"README.md"}

    assert pages <= {target.partition("#")[0] for target in index}


def test_the_front_page_is_short_and_begins_with_the_two_commands():
    lines = (REPOSITORY / "README.md").read_text().splitlines()

    assert len(lines) <= 150
    beginning = "\n".join(lines[:40])
    for command in ("make demo", "make test"):
        assert re.search(rf"^    {command} .*minutes", beginning, re.MULTILINE), command
    assert "need Debian 12" in beginning


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    [newest, *_] = re.findall(r"^## (\d+\.\d+\.\d+)", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    files = [*(REPOSITORY / "envoy").rglob("*.yaml"), *(REPOSITORY / "docs").glob("*.md")]
    images = [
        tag for path in files for tag in re.findall(r"(?:sigv4-filter|credential-refresher):([\w.]+)", path.read_text())
    ]
    printed = subprocess.run([BINARY, "--version"], capture_output=True, text=True, check=True).stdout

    assert newest == version
    assert len(images) >= 6
    assert set(images) == {version}
    assert printed == f"credential-refresher {version}\n"


def links(text: str) -> list[str]:
    """Returns the targets of a document's links and pictures."""
    text = without_code(text)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return found + re.findall(r"<(https?://[^>]+)>", text) + re.findall(r"^\[[^]]+\]: (\S+)", text, re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Returns the anchors of a document's headings, as GitHub forms them: a repeated one gets a number."""
    found: set[str] = set()
    for title in re.findall(r"^#+ (.*)$", without_code(text), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (name := f"{anchor}-{number}" if number else anchor) in found:
            number += 1
        found.add(name)
    return found


def without_code(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)
