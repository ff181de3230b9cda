"""Roles that come with their callers: a policy for a whole mesh in one line, in a real Envoy with the refresher."""

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from integration.harness.authentication import ISSUER, TlsProxy, jwt_authn, token, with_filter_before_the_signer
from integration.harness.doc_examples import examples
from integration.harness.keys import STATIC_KEY
from integration.harness.policies import api_route
from integration.harness.sts import QuickSts
from integration.harness.upstream import Upstream
from integration.harness.verifier import Verifier
from integration.stack.aws_servers import REGION
from integration.stack.client import curl
from integration.stack.process import wait_until
from integration.stack.refresher import Refresher

ACCOUNT = "arn:aws:iam::123456789012:role"


@pytest.fixture
def sts():
    with QuickSts() as sts:
        yield sts


@pytest.fixture
def upstream(sts):
    """An upstream that knows the keys which the STS gave."""
    with Upstream(Verifier(sts.keys, REGION, "execute-api")) as upstream:
        yield upstream


@pytest.fixture
def mesh(start_proxy, upstream, authority):
    """A proxy whose callers each sign as the role of their namespace, and whose refresher never polls."""
    route = api_route(
        upstream,
        callers=["spiffe://cluster.local/ns/*/sa/*"],
        roleArn=f"{ACCOUNT}/mesh-{{namespace}}",
        roleSessionName="{serviceAccount}@{trustDomain}",
        roleTags={"team": "{namespace}"},
        sourceIdentity="{namespace}.{serviceAccount}",
    )
    return TlsProxy(start_proxy, {"routes": {"/a": route}}, authority, push=lambda proxy: None)


@pytest.fixture
def start_refresher(tmp_path, sts, running):
    return lambda proxy, *arguments: running(
        Refresher(tmp_path, proxy, sts, "--interval", "1h", *arguments, credentials=STATIC_KEY)
    )


@pytest.fixture
def caller(authority):
    """Returns a function that issues the certificate of a namespace's workload."""
    return lambda namespace, account="app", domain="cluster.local": authority.issue(
        f"spiffe://{domain}/ns/{namespace}/sa/{account}"
    )


def timed(send):
    start = time.monotonic()
    response = send()
    return response, time.monotonic() - start


def test_the_first_request_of_a_caller_is_served_in_the_time_of_one_call_to_sts(
    mesh, start_refresher, sts, upstream, caller
):
    start_refresher(mesh.proxy)
    mesh.request("/a", caller("warm-up"))
    for namespace in ("orders", "shop"):
        response, took = timed(lambda namespace=namespace: mesh.request("/a/b", caller(namespace)))
        assert response.status == 200, response
        assert took < 1.5
        assert sts.assumed[-1]["RoleArn"] == f"{ACCOUNT}/mesh-{namespace}"
        assert sts.assumed[-1]["RoleSessionName"] == "app@cluster.local"
        assert sts.assumed[-1]["SourceIdentity"] == f"{namespace}.app"
        assert sts.assumed[-1]["Tags.member.1.Value"] == namespace
        assert upstream.last.verdict.access_key_id == list(sts.keys)[-1]
    # The policy alone bounds the labels of metrics.
    statistics = mesh.proxy.envoy.admin("/stats/prometheus")
    assert "sigv4_requests" in statistics and "mesh-orders" not in statistics
    calls = sts.calls
    for namespace in ("orders", "shop", "orders"):
        response, took = timed(lambda namespace=namespace: mesh.request("/a", caller(namespace)))
        assert response.status == 200
    assert sts.calls == calls


def test_callers_that_come_together_cause_one_call(mesh, start_refresher, sts, caller):
    start_refresher(mesh.proxy)
    certificate = caller("orders")
    with ThreadPoolExecutor(16) as pool:
        statuses = set(pool.map(lambda _: mesh.request("/a", certificate).status, range(32)))

    assert (statuses, sts.calls) == ({200}, 1)


def test_many_callers_that_come_together_each_get_their_role(mesh, start_refresher, sts, caller):
    start_refresher(mesh.proxy)
    certificates = [caller(f"team-{number}") for number in range(60)]
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda certificate: mesh.request("/a", certificate).status, certificates))

    assert set(statuses) == {200}
    assert {call["RoleArn"] for call in sts.assumed} == {f"{ACCOUNT}/mesh-team-{number}" for number in range(60)}


@pytest.mark.parametrize(
    ("namespace", "domain", "message"),
    [
        ("orders", "elsewhere.local", "the route's callers do not include this one"),
        ("x" * 70, "cluster.local", "too long"),
    ],
)
def test_a_caller_who_makes_no_role_is_refused_and_sts_hears_nothing(
    mesh, start_refresher, sts, upstream, caller, namespace, domain, message
):
    start_refresher(mesh.proxy)
    response = mesh.request("/a", caller(namespace, domain=domain))

    assert (response.status, response.json["error"]["code"]) == (403, "CallerNotAllowed")
    assert message in response.json["error"]["message"]
    assert not sts.calls
    assert not upstream.received


def test_a_caller_whose_role_is_denied_makes_nothing_unready(mesh, start_refresher, sts, caller):
    refresher = start_refresher(mesh.proxy, "--listen", "127.0.0.1:0")
    wait_until(lambda: "listening for probes" in refresher.log, "the probes")
    probe = f"http://{refresher.log.split('address=')[1].split()[0]}/readyz"
    wait_until(lambda: curl(probe).status == 200, "the refresher to be ready without a caller")
    sts.denied.add("mesh-stranger")
    response = mesh.request("/a", caller("stranger"))

    assert (response.status, response.json["error"]["code"]) == (503, "NoCredentials")
    assert mesh.proxy.intake("/v1/status").status == 200
    assert curl(probe).status == 200
    assert mesh.request("/a", caller("orders")).status == 200


def test_the_refresher_still_says_which_roles_it_assumes(mesh, start_refresher, sts, caller):
    start_refresher(mesh.proxy, "--allow-role", f"{ACCOUNT}/mesh-orders")

    assert mesh.request("/a", caller("orders")).status == 200
    assert mesh.request("/a", caller("shop")).status == 503
    assert {call["RoleArn"] for call in sts.assumed} == {f"{ACCOUNT}/mesh-orders"}


def test_a_renewed_session_keeps_its_name(mesh, start_refresher, sts, caller):
    sts.lifetime = timedelta(seconds=15)
    start_refresher(mesh.proxy)
    assert mesh.request("/a", caller("orders")).status == 200
    wait_until(lambda: sts.calls >= 3, "two renewals", timeout=60)

    assert len({(call["RoleArn"], call["RoleSessionName"]) for call in sts.assumed}) == 1
    assert mesh.request("/a", caller("orders")).status == 200


def test_callers_whose_values_have_one_short_digest_are_two_identities(start_proxy, start_refresher, sts, upstream):
    """The values are found in a second: the SHA-256 digests of both roles begin with the same four bytes."""
    route = api_route(
        upstream, callers=[{"issuer": ISSUER}], roleArn=f"{ACCOUNT}/bedrock", roleSessionName="{claim:sub}"
    )
    proxy = start_proxy({"routes": {"/a": route}}, with_filter_before_the_signer(jwt_authn(payload_in_metadata="jwt")))
    start_refresher(proxy)
    keys = {}
    for sub in ("user-34839", "user-44019"):
        assert proxy.request("/a", headers={"authorization": f"Bearer {token(sub=sub)}"}).status == 200
        keys[sub] = upstream.last.verdict.access_key_id

    assert [call["RoleSessionName"] for call in sts.assumed] == list(keys)
    assert len(set(keys.values())) == 2


def test_the_next_request_after_a_revocation_is_signed_with_another_key(mesh, start_refresher, sts, upstream, caller):
    start_refresher(mesh.proxy)
    certificate = caller("orders")
    assert mesh.request("/a", certificate).status == 200
    revoked = upstream.last.verdict.access_key_id
    [identity] = mesh.proxy.identities()
    mesh.proxy.revoke(identity)
    response, took = timed(lambda: mesh.request("/a", certificate))

    assert response.status == 200, response
    assert took < 3
    assert upstream.last.verdict.access_key_id != revoked
    assert (sts.calls, mesh.proxy.identities()[identity]["revoked"]) == (2, [revoked])


def test_a_pause_of_the_process_takes_no_identity_from_its_callers(mesh, start_refresher, sts, caller):
    start_refresher(mesh.proxy)
    certificates = [caller(namespace) for namespace in ("orders", "shop")]
    assert [mesh.request("/a", certificate).status for certificate in certificates] == [200, 200]
    before = mesh.proxy.identities()
    # Long enough for a lease's age to be trusted, and for a lease to end.
    time.sleep(32)
    mesh.proxy.envoy.process.send_signal(signal.SIGSTOP)
    time.sleep(35)
    mesh.proxy.envoy.process.send_signal(signal.SIGCONT)
    for _ in range(30):
        assert mesh.proxy.identities() == before
        time.sleep(0.1)
    assert [mesh.request("/a", certificate).status for certificate in certificates] == [200, 200]
    assert sts.calls == 2


def test_a_claim_names_the_role(start_proxy, start_refresher, sts, upstream):
    route = api_route(
        upstream,
        callers=[{"issuer": ISSUER}],
        roleArn=f"{ACCOUNT}/bedrock",
        roleSessionName="{claim:sub}",
        roleTags={"team": "{claim:team}"},
    )
    proxy = start_proxy({"routes": {"/a": route}}, with_filter_before_the_signer(jwt_authn(payload_in_metadata="jwt")))
    start_refresher(proxy)

    def send(**claims):
        return proxy.request("/a", headers={"authorization": f"Bearer {token(**claims)}"})

    assert send(sub="ann@example.com", team="orders").status == 200
    assert sts.assumed[-1]["RoleSessionName"] == "ann@example.com"
    assert sts.assumed[-1]["Tags.member.1.Value"] == "orders"
    for claims in (
        {},
        {"team": ""},
        {"team": ["orders"]},
        {"team": "a/b"},
        {"team": "é"},
        {"team": 5},
        {"team": "a" * 257},
    ):
        response = send(sub="ann@example.com", **claims)
        assert (response.status, response.json["error"]["code"]) == (403, "CallerNotAllowed"), claims
    assert sts.calls == 1


def test_bedrock_is_billed_to_the_caller(start_proxy, start_refresher, sts):
    """The recipe, with a token and without."""
    [recipe] = [each for each in examples("recipes.md") if each.place.endswith("Who pays for Bedrock")]
    configuration = with_filter_before_the_signer(jwt_authn(payload_in_metadata="jwt"))
    bedrock = Verifier(sts.keys, "us-east-1", "bedrock")
    with Upstream(bedrock) as upstream:
        configuration.lead_https_to(upstream.port)
        proxy = start_proxy(json.loads(recipe.policy), configuration)
        start_refresher(proxy, "--allow-tag", "team=*", "--allow-role", f"{ACCOUNT}/bedrock")

        def billed_to(**claims) -> tuple[str, str]:
            headers = {"authorization": f"Bearer {token(**claims)}"} if claims else {}
            path = "/bedrock/model/anthropic.claude-3-haiku-20240307-v1:0/converse"
            response = proxy.request(path, "POST", headers=headers, body=b"{}")
            assert response.status == 200, response
            assumed = sts.assumed[list(sts.keys).index(upstream.last.verdict.access_key_id)]
            assert (assumed["RoleArn"], assumed["Tags.member.1.Key"]) == (f"{ACCOUNT}/bedrock", "team")
            return assumed["RoleSessionName"], assumed["Tags.member.1.Value"]

        assert billed_to(email="ann@example.com", team="orders") == ("ann@example.com", "orders")
        assert billed_to(email="bob@example.com", team="billing") == ("bob@example.com", "billing")
        wait_until(lambda: proxy.request("/bedrock/x").status == 200, "the identity of clients without a token")
        assert billed_to() == ("unattributed", "unattributed")
        headers = {"authorization": f"Bearer {token(email='ann@example.com')}"}
        assert proxy.request("/bedrock/x", headers=headers).status == 403
