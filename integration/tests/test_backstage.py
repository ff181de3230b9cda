"""The sections in docs/migrating-from-backstage.md, pasted into a real Envoy."""

import json
import re
import shlex
import subprocess

import pytest
import yaml

from integration.harness.authentication import jwt_authn, token, with_filter_before_the_signer
from integration.harness.keys import TEMPORARY_KEY
from integration.stack.process import REPOSITORY
from integration.stack.refresher import BINARY

DOCUMENT = REPOSITORY / "docs" / "migrating-from-backstage.md"


def blocks(language: str = "yaml") -> list[str]:
    """Returns the document's blocks of code."""
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def sections() -> list[dict]:
    """Returns the document's examples in order, each converted to JSON as it says."""
    convert = [BINARY, "check-policy", "--convert", "-"]
    return [
        json.loads(subprocess.run(convert, input=block.encode(), capture_output=True, check=True).stdout)
        for block in blocks()
        if "proxysigv4:" in block
    ]


def pasted(section: dict, upstream_url: str) -> dict:
    """Returns the section with the targets' hosts replaced by the upstream's."""
    # As in all these tests, a request waits until its worker has seen a push.
    routes = {"credentialsWaitMs": 5000}
    for prefix, route in section["proxysigv4"].items():
        if prefix.startswith("/"):
            route = {"target": route} if isinstance(route, str) else dict(route)
            route["target"] = re.sub(r"^https://[^/]+", upstream_url, route["target"])
            # The upstream's address does not imply a service and region, as the document's hosts do.
            route |= {"service": "execute-api", "region": "eu-west-1"}
        routes[prefix] = route
    return {"proxysigv4": routes}


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _api):
    expanded = next(section for section in sections() if "roleArn" in str(section))
    proxy = start_shared_proxy(pasted(expanded, _api.url))
    proxy.push(TEMPORARY_KEY)
    for role in set(proxy.identities()) - {"default"}:
        proxy.push(TEMPORARY_KEY, role)
    return proxy


def test_a_pasted_section_signs_end_to_end(proxy, api):
    response = proxy.request("/orders/1?limit=2")

    assert response.status == 200, api.last.refusal
    assert api.last.request.target == "/1?limit=2"
    assert api.last.accepted


def test_a_path_is_sent_as_it_was_asked_for(proxy, api):
    for asked, sent in [("/billing", "/v2"), ("/billing/", "/v2/"), ("/billing/a", "/v2/a")]:
        assert proxy.request(asked).status == 200, api.last.refusal
        assert api.last.request.target == sent


def test_a_body_that_is_no_json_arrives_as_it_was_sent(proxy, api):
    body = bytes(range(256)) * 100

    assert proxy.request("/orders", "POST", headers={"Content-Type": "image/png"}, body=body).status == 200
    assert api.last.request.body == body


def test_the_policy_asks_for_the_roles_of_the_section(proxy):
    roles = {identity.get("roleArn"): identity.get("roleSessionName") for identity in proxy.identities().values()}

    assert roles["arn:aws:iam::123456789012:role/orders-reader"] == "backstage"


def test_a_section_for_signed_in_callers_alone_refuses_others(start_proxy, api):
    strict = next(section for section in sections() if "allowUnauthenticatedRequests" in section["proxysigv4"])
    proxy = start_proxy(pasted(strict, api.url))

    response = proxy.request("/orders")
    assert (response.status, response.json["error"]["code"]) == (401, "Unauthenticated")
    assert not api.received


def test_the_nine_headers_of_the_plugin_pass_and_no_others(start_proxy, api):
    nine = next(section for section in sections() if "requestHeaders" in str(section))
    proxy = start_proxy(pasted(nine, api.url))
    proxy.push(TEMPORARY_KEY)

    headers = {"Accept-Language": "de", "Cookie": "a=b", "X-Team": "a", "Content-Type": "text/plain"}
    assert proxy.request("/orders", "POST", headers=headers, body=b"x").status == 200, api.last.refusal
    arrived = {name.lower() for name, _ in api.last.request.headers}
    assert {"accept-language", "content-type", "content-length"} <= arrived
    assert not {"cookie", "x-team", "user-agent"} & arrived


# Signed-in users.

PORTAL = "https://portal.example.com/api/auth"


@pytest.fixture(scope="module")
def portal(start_shared_proxy, _api):
    """Returns a proxy with the document's provider of tokens and its section of callers."""
    [document] = [block for block in blocks() if block.startswith("providers:")]
    provider = yaml.safe_load(document)["providers"]["backstage"]
    # The keys are those of the tests' issuer.
    del provider["remote_jwks"]
    [section] = [section for section in sections() if "callers" in str(section)]
    proxy = start_shared_proxy(pasted(section, _api.url), with_filter_before_the_signer(jwt_authn(**provider)))
    for identity in proxy.identities():
        proxy.push(TEMPORARY_KEY, identity)
    return proxy


def of_user(user: str, *groups: str, **claims) -> dict:
    """Returns the claims of a signed-in user; without groups, as a current Backstage issues the token."""
    ownership = {"ent": [f"user:default/{user}", *(f"group:default/{group}" for group in groups)]} if groups else {}
    return {"iss": PORTAL, "aud": "backstage", "sub": f"user:default/{user}", **ownership, **claims}


@pytest.mark.parametrize(
    ("claims", "orders", "billing"),
    [
        (of_user("bob", "billing"), 200, 200),
        (of_user("bob", "first", "billing", "last"), 200, 200),
        (of_user("bob", "orders"), 200, 403),
        (of_user("bob"), 200, 403),
        (of_user("alice"), 200, 200),
        (of_user("alice", "orders"), 200, 200),
        (of_user("alice", iss="https://other.example.com/api/auth"), 401, 401),
        (of_user("alice", aud="other"), 401, 401),
        (None, 401, 401),
    ],
    ids=str,
)
def test_a_signed_in_user_is_known_by_the_claims_of_the_token(portal, api, claims, orders, billing):
    headers = {"authorization": f"Bearer {token(**claims)}"} if claims else {}
    statuses = [portal.request(f"/{prefix}/1", headers=headers).status for prefix in ("orders", "billing")]

    assert statuses == [orders, billing]
    assert len(api.received) == statuses.count(200)


def test_the_command_shows_the_routes_of_a_user(tmp_path):
    [command] = [block for block in blocks("sh") if "--caller-claims" in block]
    [section] = [block for block in blocks() if "callers:" in block]
    (tmp_path / "app-config.yaml").write_text(section)
    program, *arguments = shlex.split(command.replace("\\\n", " "))
    done = subprocess.run([BINARY, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert program == "credential-refresher"
    taken = done.stdout.partition(f"Requests of {PORTAL} user:default/alice:")[2]
    assert re.search(r"^/billing +every +/billing +billing-reader", taken, re.MULTILINE)
    assert re.search(r"^/orders +every +/orders +default$", taken, re.MULTILINE)
