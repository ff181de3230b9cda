"""The effect of pushed, missing, wrong and expired credentials on a request."""

import json
import threading
import time
from datetime import timedelta

import pytest
from botocore.credentials import Credentials

from integration.harness.keys import STATIC_KEY, TEMPORARY_KEY
from integration.harness.policies import api_route
from integration.stack.intake import credential_document
from integration.stack.process import wait_until

ROLE_ARN = "arn:aws:iam::123456789012:role/orders-reader"
PLACE = "/v1/identities/default/credentials"


@pytest.fixture
def proxy(start_proxy, api):
    """Returns a proxy that holds nothing, and lets no request wait."""
    return start_proxy({"routes": {"/api": api_route(api), "/role": api_route(api, roleArn=ROLE_ARN)}})


def wait_for_push(proxy, status: int, path: str = "/api") -> None:
    """Returns when requests get `status` after a push or a revocation, which every worker sees within a second."""
    proxy.wait_for_status(path, status, timeout=1.5)


def no_credentials(response) -> bool:
    return (response.status, response.json["error"]["code"]) == (503, "NoCredentials")


def test_without_credentials_nothing_is_sent(proxy, api):
    response = proxy.request("/api")

    assert no_credentials(response)
    assert response.headers["retry-after"]
    assert response.json["error"]["route"] == "/api"
    assert not api.received


def test_expired_credentials_are_refused(proxy, api):
    wait_until(lambda: "default" in proxy.identities(), "the policy to be loaded")
    answer = proxy.intake(PLACE, "PUT", credential_document(TEMPORARY_KEY, timedelta(seconds=-1)))

    assert (answer.status, answer.json["error"]["code"]) == (400, "InvalidCredentials")
    assert "is in the past" in answer.json["error"]["message"]
    assert proxy.identities()["default"]["held"] is None


@pytest.mark.parametrize("zone", ["Z", "+0000", "+00:00"])
def test_credentials_are_taken_as_people_and_programs_write_them(proxy, api, zone):
    """A Kubernetes secret made with `echo` ends its lines, and Python writes a zone without a colon."""
    wait_until(lambda: "default" in proxy.identities(), "the policy to be loaded")
    document = json.loads(credential_document(STATIC_KEY))
    document["AccessKeyId"] += "\n"
    document["SecretAccessKey"] = f" {document['SecretAccessKey']}\n"
    document["SessionToken"] = ""
    document["Expiration"] = document["Expiration"].replace("Z", zone)
    answer = proxy.intake(PLACE, "PUT", json.dumps(document).encode())

    assert answer.status == 204, answer
    wait_for_push(proxy, 200)
    assert api.last.verdict.access_key_id == STATIC_KEY.access_key


@pytest.mark.parametrize(
    ("member", "value"),
    [("SecretAccessKey", "sec ret"), ("SecretAccessKey", " "), ("SessionToken", "to ken"), ("Expiration", 1893456000)],
)
def test_credentials_that_can_not_be_meant_are_refused_by_name(proxy, member, value):
    wait_until(lambda: "default" in proxy.identities(), "the policy to be loaded")
    document = json.loads(credential_document(STATIC_KEY)) | {member: value}
    answer = proxy.intake(PLACE, "PUT", json.dumps(document).encode())

    assert (answer.status, answer.json["error"]["code"]) == (400, "InvalidCredentials")
    assert answer.json["error"]["message"].startswith(f"{member}: ")


def test_credentials_that_expire_while_they_are_held_are_not_used_any_more(proxy, api):
    proxy.push(TEMPORARY_KEY, seconds=4)
    wait_for_push(proxy, 200)
    time.sleep(4)

    assert no_credentials(proxy.request("/api"))


def test_a_wrong_secret_is_for_the_upstream_to_refuse(proxy, api):
    proxy.push(Credentials(STATIC_KEY.access_key, "not-the-secret"))
    wait_for_push(proxy, 403)

    assert api.last.refusal == "the signature does not match the request"


def test_a_missing_session_token_is_for_the_upstream_to_refuse(proxy, api):
    proxy.push(Credentials(TEMPORARY_KEY.access_key, TEMPORARY_KEY.secret_key))
    wait_for_push(proxy, 403)

    assert "X-Amz-Security-Token" in api.last.refusal


def test_a_push_replaces_what_was_held(proxy, api):
    proxy.push(STATIC_KEY)
    wait_for_push(proxy, 200)
    proxy.push(TEMPORARY_KEY)

    def signed_with_the_new_key() -> bool:
        return proxy.request("/api").json["verdict"]["access_key_id"] == TEMPORARY_KEY.access_key

    wait_until(signed_with_the_new_key, "the new key to sign", timeout=1.5)


def test_a_revoked_key_is_not_used_any_more_and_taken_again_only_from_who_insists(proxy):
    proxy.push(STATIC_KEY)
    wait_for_push(proxy, 200)
    proxy.revoke()

    wait_for_push(proxy, 503)
    assert proxy.identities()["default"]["revoked"] == [STATIC_KEY.access_key]
    again = proxy.intake(f"{PLACE}?unless-revoked", "PUT", credential_document(STATIC_KEY))
    assert (again.status, again.json["error"]["code"]) == (409, "RevokedCredentials")
    assert no_credentials(proxy.request("/api"))
    proxy.push(STATIC_KEY)
    wait_for_push(proxy, 200)
    assert "revoked" not in proxy.identities()["default"]


def test_each_identity_signs_only_its_own_routes(proxy, api):
    [role] = [entry["id"] for entry in proxy.identities().values() if entry.get("roleArn") == ROLE_ARN]
    proxy.push(TEMPORARY_KEY, role)
    wait_for_push(proxy, 200, "/role")

    assert api.last.verdict.access_key_id == TEMPORARY_KEY.access_key
    assert no_credentials(proxy.request("/api"))


def test_a_request_waits_for_the_first_credentials(start_proxy, api):
    proxy = start_proxy({"routes": {"/api": api_route(api)}, "credentialsWaitMs": 10_000})
    push = threading.Timer(1, proxy.push, [STATIC_KEY])
    push.start()
    began = time.monotonic()
    response = proxy.request("/api", "POST", body=b"order")
    waited = time.monotonic() - began
    push.join()

    assert response.status == 200
    assert 0.9 < waited < 3


def test_a_request_does_not_wait_longer_than_the_policy_says(start_proxy, api):
    proxy = start_proxy({"routes": {"/api": api_route(api)}, "credentialsWaitMs": 1000})
    began = time.monotonic()

    assert no_credentials(proxy.request("/api"))
    assert 0.9 < time.monotonic() - began < 3


def test_many_requests_at_once_wait_and_are_all_served(start_proxy, api):
    proxy = start_proxy({"routes": {"/api": api_route(api)}, "credentialsWaitMs": 10_000})
    statuses: list[int] = []
    callers = [threading.Thread(target=lambda: statuses.append(proxy.request("/api").status)) for _ in range(20)]
    for caller in callers:
        caller.start()
    time.sleep(0.5)
    proxy.push(STATIC_KEY)
    for caller in callers:
        caller.join()

    assert statuses == [200] * 20


def test_an_envoy_that_restarts_holds_nothing(proxy):
    proxy.push(STATIC_KEY)
    wait_for_push(proxy, 200)
    proxy.envoy.restart()

    assert no_credentials(proxy.request("/api"))
