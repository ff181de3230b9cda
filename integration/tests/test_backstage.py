"""The sections in docs/migrating-from-backstage.md, pasted into a real Envoy."""

import json
import re
import subprocess

import pytest

from integration.harness.keys import TEMPORARY_KEY
from integration.stack.process import REPOSITORY
from integration.stack.refresher import BINARY

DOCUMENT = REPOSITORY / "docs" / "migrating-from-backstage.md"


def sections() -> list[dict]:
    """Returns the document's examples in order, each converted to JSON as it says."""
    convert = [BINARY, "check-policy", "--convert", "-"]
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return [
        json.loads(subprocess.run(convert, input=block.encode(), capture_output=True, check=True).stdout)
        for block in blocks
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
