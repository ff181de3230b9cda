"""A route's callers: the names in a client's certificate and the claims of its token, as a real Envoy verifies them."""

import pytest
from botocore.credentials import Credentials

from integration.harness.authentication import ISSUER, TlsProxy, jwt_authn, token, with_filter_before_the_signer
from integration.harness.certificates import Authority
from integration.harness.policies import api_route, policy
from integration.harness.upstream import Upstream
from integration.harness.verifier import Verifier
from integration.stack.aws_servers import REGION
from integration.stack.process import wait_until

ACCOUNT = "arn:aws:iam::123456789012:role"
KEYS = {name: Credentials(f"ASIA{name.upper()}", f"secret-of-{name}", "token") for name in ("orders", "shop", "mesh")}


@pytest.fixture(scope="module")
def _teams():
    """An upstream that knows the keys of all roles."""
    verifier = Verifier({key.access_key: key for key in KEYS.values()}, REGION, "execute-api")
    with Upstream(verifier) as upstream:
        yield upstream


@pytest.fixture
def teams(_teams) -> Upstream:
    _teams.reset()
    return _teams


def role(name: str, callers: list, prefix: str = "/a") -> dict:
    return {"prefix": prefix, "roleArn": f"{ACCOUNT}/{name}", "callers": callers}


def listed(upstream: Upstream, *routes: dict) -> dict:
    return policy([{**api_route(upstream), **route} for route in routes])


def push_keys(proxy) -> None:
    """Pushes each role's key."""
    for name, key in KEYS.items():
        wait_until(lambda name=name: identity_of(proxy, name), f"the identity of {name}")
        proxy.push(key, identity_of(proxy, name))


def identity_of(proxy, name: str) -> str | None:
    arns = {id: identity.get("roleArn", "") for id, identity in proxy.identities().items()}
    return next((id for id, arn in arns.items() if arn.endswith(f"/{name}")), None)


def signed_by(upstream: Upstream) -> str:
    """Returns whose key signed the last request."""
    assert upstream.last.accepted, upstream.last.refusal
    [authorization] = [value for name, value in upstream.last.request.headers if name == "authorization"]
    return next(name for name, key in KEYS.items() if key.access_key in authorization)


def refused(response, code: str = "CallerNotAllowed") -> bool:
    status = {"CallerNotAllowed": 403, "Unauthenticated": 401}[code]
    return (response.status, response.json["error"]["code"]) == (status, code)


# Client certificates.


@pytest.fixture(scope="module")
def mesh(start_shared_proxy, _teams, authority):
    """A proxy whose routes differ by the SPIFFE ids of their callers."""
    routes = listed(
        _teams,
        role("mesh", ["spiffe://cluster.local/ns/*/sa/*"]),
        role("orders", ["spiffe://cluster.local/ns/orders/sa/*", "orders.internal"]),
        role("shop", ["spiffe://cluster.local/ns/orders/sa/shop", "spiffe://cluster.local/ns/shop/sa/*"]),
    )
    proxy = TlsProxy(start_shared_proxy, routes, authority, push=push_keys)
    return proxy


@pytest.mark.parametrize(
    ("name", "signer"),
    [
        ("spiffe://cluster.local/ns/orders/sa/default", "orders"),
        ("spiffe://cluster.local/ns/orders/sa/shop", "shop"),
        ("spiffe://cluster.local/ns/shop/sa/x", "shop"),
        ("spiffe://cluster.local/ns/other/sa/x", "mesh"),
        ("orders.internal", "orders"),
    ],
)
def test_the_most_exact_route_signs(mesh, authority, teams, name, signer):
    assert mesh.request("/a/b", authority.issue(name)).status == 200
    assert signed_by(teams) == signer


@pytest.mark.parametrize(
    "name",
    [
        "spiffe://elsewhere.local/ns/orders/sa/default",
        "spiffe://cluster.local/ns/orders/sa/a/b",
        "spiffe://cluster.local/ns/orders/sa/..",
        "spiffe://cluster.local/ns/orders/sa/a%2Fb",
        "spiffe://cluster.local/ns/orders",
        "https://cluster.local/ns/orders/sa/default",
        "billing.internal",
        "cluster.local",
    ],
)
def test_a_certificate_with_another_name_is_refused(mesh, authority, teams, name):
    response = mesh.request("/a/b", authority.issue(name))

    assert refused(response), response
    assert not teams.received


def test_only_the_first_uri_counts(mesh, authority, teams):
    first, second = "spiffe://elsewhere.local/ns/orders/sa/x", "spiffe://cluster.local/ns/orders/sa/x"

    assert refused(mesh.request("/a", authority.issue(first, second)))
    assert not teams.received


def test_without_a_certificate_nobody_is_a_caller(mesh, teams):
    spoofed = {"x-forwarded-client-cert": "URI=spiffe://cluster.local/ns/orders/sa/default"}

    assert refused(mesh.request("/a", headers=spoofed), "Unauthenticated")
    assert not teams.received


def test_a_certificate_of_another_authority_gets_nowhere(mesh, tmp_path, teams):
    stranger = Authority(tmp_path).issue("spiffe://cluster.local/ns/orders/sa/default")
    with pytest.raises(RuntimeError, match="curl ended with"):
        mesh.request("/a", stranger)

    assert not teams.received


# Tokens.


@pytest.fixture(scope="module")
def gateway(start_shared_proxy, _teams):
    """A proxy whose routes differ by the claims of their callers' tokens."""

    def of_team(team: str) -> dict:
        return {"issuer": ISSUER, "claims": {"team": team}}

    routes = listed(
        _teams,
        role("mesh", [{"issuer": ISSUER}]),
        role("orders", [of_team("orders")]),
        role("shop", [of_team("shop"), {"issuer": ISSUER, "claims": {"team": "orders", "sub": "admin"}}]),
    )
    filters = jwt_authn(payload_in_metadata="jwt", failed_status_in_metadata="failed")
    proxy = start_shared_proxy(routes, with_filter_before_the_signer(filters))
    push_keys(proxy)
    return proxy


@pytest.mark.parametrize(
    ("claims", "signer"),
    [
        ({}, "mesh"),
        ({"team": "orders"}, "orders"),
        ({"team": ["first", "orders", "last"]}, "orders"),
        ({"team": "shop"}, "shop"),
        ({"team": "orders", "sub": "admin"}, "shop"),
        ({"team": ["orders"], "sub": "admin"}, "shop"),
        # Not a claim of this team.
        ({"team": "order"}, "mesh"),
        ({"team": "orders shop"}, "mesh"),
        ({"team": ["order", "s"]}, "mesh"),
        ({"team": {"orders": "x"}}, "mesh"),
        ({"team": 5}, "mesh"),
        ({"team": True}, "mesh"),
        ({"nested": {"team": "orders"}}, "mesh"),
    ],
)
def test_the_claims_of_a_verified_token_choose_the_role(gateway, teams, claims, signer):
    assert gateway.request("/a/b", headers={"authorization": f"Bearer {token(**claims)}"}).status == 200
    assert signed_by(teams) == signer


def test_a_token_with_a_claim_of_null_authenticates_nobody(gateway, teams):
    """Envoy can't serialize such a payload for the filter."""
    response = gateway.request("/a", headers={"authorization": f"Bearer {token(team='orders', other=None)}"})

    assert refused(response, "Unauthenticated"), response
    assert not teams.received


def test_a_caller_of_two_teams_is_admitted_by_neither_route(gateway, teams):
    response = gateway.request("/a", headers={"authorization": f"Bearer {token(team=['orders', 'shop'])}"})

    assert refused(response)
    assert "several routes admit this caller equally" in response.json["error"]["message"]
    assert not teams.received


@pytest.mark.parametrize("value", ["garbage", token(iss="https://elsewhere.example"), token(exp=1)])
def test_a_token_that_is_not_verified_has_no_claims(gateway, teams, value):
    assert refused(gateway.request("/a", headers={"authorization": f"Bearer {value}"}), "Unauthenticated")
    assert not teams.received
