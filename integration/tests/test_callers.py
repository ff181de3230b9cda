"""A route's callers: the names in a client's certificate and the claims of its token, as a real Envoy verifies them."""

import hashlib
import json
import re
import shlex
import subprocess

import pytest
from botocore.credentials import Credentials

from integration.harness.authentication import ISSUER, TlsProxy, jwt_authn, token, with_filter_before_the_signer
from integration.harness.certificates import Authority
from integration.harness.counters import counts
from integration.harness.policies import api_route, policy
from integration.harness.upstream import Upstream
from integration.harness.verifier import Verifier
from integration.stack.aws_servers import REGION
from integration.stack.process import REPOSITORY, wait_until
from integration.stack.refresher import BINARY

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

FIRST_CALLERS = [
    "spiffe://cluster.local/ns/*/sa/*",
    "spiffe://cluster.local/ns/orders/sa/*",
    "spiffe://cluster.local/ns/orders/sa/shop",
]


def name_routes(upstream: Upstream) -> dict:
    any_team, orders, shop = FIRST_CALLERS
    return listed(
        upstream,
        role("mesh", [any_team]),
        role("orders", [orders, "orders.internal"]),
        role("shop", [shop, "spiffe://cluster.local/ns/shop/sa/*"]),
    )


@pytest.fixture(scope="module")
def mesh(start_shared_proxy, _teams, authority):
    """A proxy whose routes differ by the SPIFFE ids of their callers."""
    return TlsProxy(start_shared_proxy, name_routes(_teams) | {"accessLog": True}, authority, push=push_keys)


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


def test_envoys_spiffe_validator_binds_a_trust_domain_to_its_authority(start_proxy, authority, tmp_path, api):
    """By itself, Envoy lets each CA that it trusts issue any name."""
    federated = Authority(tmp_path)
    validator = {
        "name": "envoy.tls.cert_validator.spiffe",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
            "trust_domains": [
                {"name": "cluster.local", "trust_bundle": {"filename": str(authority.certificate)}},
                {"name": "federated.local", "trust_bundle": {"filename": str(federated.certificate)}},
            ],
        },
    }
    callers = ["spiffe://cluster.local/ns/orders/sa/*", "spiffe://federated.local/ns/orders/sa/*"]
    routes = listed(api, {"prefix": "/a", "callers": callers})
    proxy = TlsProxy(start_proxy, routes, authority, custom_validator_config=validator)

    name = "spiffe://federated.local/ns/orders/sa/x"
    assert proxy.request("/a", federated.issue(name)).status == 200
    with pytest.raises(RuntimeError, match="curl ended with"):
        proxy.request("/a", federated.issue("spiffe://cluster.local/ns/orders/sa/x"))
    with pytest.raises(RuntimeError, match="curl ended with"):
        proxy.request("/a", authority.issue(name))


def last_logged(proxy, segment: str) -> dict:
    """Returns the access log's entry for the only path that ends so."""

    def entries() -> list[dict]:
        lines = [json.loads(line) for line in proxy.envoy.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["path"].endswith(segment)]

    wait_until(lambda: len(entries()) == 1, "the access log")
    return entries()[0]


@pytest.mark.parametrize(
    ("name", "route", "outcome"),
    [
        ("spiffe://cluster.local/ns/orders/sa/logged", "/a for spiffe://cluster.local/ns/orders/sa/*", "Signed"),
        ("orders.internal", "/a for spiffe://cluster.local/ns/orders/sa/*", "Signed"),
        ("spiffe://cluster.local/ns/shop/sa/logged", "/a for spiffe://cluster.local/ns/orders/sa/shop", "Signed"),
        ("spiffe://elsewhere.local/ns/orders/sa/logged", None, "CallerNotAllowed"),
    ],
)
def test_the_access_log_names_caller_and_identity_and_the_metrics_neither(mesh, authority, teams, name, route, outcome):
    segment = f"/log-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    mesh.request(f"/a{segment}", authority.issue(name))

    entry = last_logged(mesh.proxy, segment)
    described = f"outcome={outcome}"
    if route:
        identity = identity_of(mesh.proxy, signed_by(teams))
        described += f" route={route} identity={identity} signing_name=execute-api"
    assert (entry["caller"], entry["sigv4"]) == (name, described)
    counted = counts(mesh.proxy)
    assert counted[route or "none", outcome] >= 1
    assert {route for route, _ in counted} <= {"none", *(f"/a for {caller}" for caller in FIRST_CALLERS)}


# The same selection, without Envoy.


def check_policy(document: dict, *arguments: str) -> list[dict]:
    """Returns what `check-policy` says of each prefix for a caller."""
    command = [BINARY, "check-policy", "-", "--json", *arguments]
    done = subprocess.run(command, input=json.dumps(document), capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr
    return json.loads(done.stdout)["caller"]["routes"]


@pytest.mark.parametrize(
    "caller",
    [
        ["spiffe://cluster.local/ns/orders/sa/default"],
        ["spiffe://cluster.local/ns/orders/sa/shop"],
        ["spiffe://cluster.local/ns/other/sa/x", "orders.internal"],
        ["spiffe://elsewhere.local/ns/orders/sa/default"],
        ["spiffe://cluster.local/ns/orders/sa/a%2Fb"],
        ["billing.internal"],
        {"team": "orders"},
        {"team": ["first", "shop"]},
        {"team": ["orders", "shop"]},
        {"team": {"orders": "x"}},
        {"team": 5, "admin": True},
        {"team": "orders", "sub": "admin"},
    ],
    ids=str,
)
def test_check_policy_selects_as_the_filter(mesh, gateway, authority, teams, caller):
    if isinstance(caller, dict):
        arguments = ["--caller-claims", json.dumps({"iss": ISSUER, "sub": "orders", **caller})]
        [said] = check_policy(claim_routes(teams), *arguments)
        response = gateway.request("/a/b", headers={"authorization": f"Bearer {token(**caller)}"})
    else:
        [said] = check_policy(name_routes(teams), *(f"--caller={name}" for name in caller))
        response = mesh.request("/a/b", authority.issue(*caller))

    if response.status == 200:
        assert said["identity"]["id"].startswith(signed_by(teams))
    else:
        assert refused(response) and said["reply"] == "CallerNotAllowed"
        assert response.json["error"]["message"].endswith(said["message"])


def test_the_policy_reference_shows_how_to_ask(tmp_path):
    section = (REPOSITORY / "docs" / "policy.md").read_text().partition("\n## Callers\n")[2].partition("\n## ")[0]
    policy_text, _ = re.findall(r"^```json\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    [commands] = re.findall(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    (tmp_path / "policy.json").write_text(policy_text)

    for command in commands.splitlines():
        program, *arguments = shlex.split(command)
        assert program == "credential-refresher"
        done = subprocess.run([BINARY, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        [taken] = [line for line in done.stdout.splitlines() if line.startswith("/ ")]
        assert "for spiffe://cluster.local/ns/orders/sa/*" in taken


# Tokens.


def claim_routes(upstream: Upstream) -> dict:
    def of_team(team: str) -> dict:
        return {"issuer": ISSUER, "claims": {"team": team}}

    return listed(
        upstream,
        role("mesh", [{"issuer": ISSUER}]),
        role("orders", [of_team("orders")]),
        role("shop", [of_team("shop"), {"issuer": ISSUER, "claims": {"team": "orders", "sub": "admin"}}]),
    )


@pytest.fixture(scope="module")
def gateway(start_shared_proxy, _teams):
    """A proxy whose routes differ by the claims of their callers' tokens."""

    filters = jwt_authn(payload_in_metadata="jwt", failed_status_in_metadata="failed")
    proxy = start_shared_proxy(claim_routes(_teams) | {"accessLog": True}, with_filter_before_the_signer(filters))
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


@pytest.mark.parametrize(
    ("claims", "named"),
    [
        ({"sub": "alice"}, f"{ISSUER} alice"),
        ({"sub": 'a"b\n\u202e{"status": 200}'}, f'{ISSUER} a"b????{{"status":?200}}'),
        ({"sub": "s" * 1000}, f"{ISSUER} {'s' * 1000}"[:256]),
    ],
)
def test_the_access_log_names_a_tokens_subject_without_control_characters(gateway, claims, named):
    segment = f"/log-{hashlib.sha256(named.encode()).hexdigest()[:8]}"
    gateway.request(f"/a{segment}", headers={"authorization": f"Bearer {token(**claims)}"})

    assert last_logged(gateway, segment)["caller"] == named
