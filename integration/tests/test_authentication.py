"""If the policy requires it, only clients that Envoy has authenticated are signed for; a client's claims don't
count."""

import base64
import json
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from integration.harness.authentication import (
    ISSUER,
    TlsProxy,
    encode,
    jwt_authn,
    token,
    with_filter_before_the_signer,
)
from integration.harness.certificates import Authority
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, policy


def refused(response) -> bool:
    return (response.status, response.json["error"]["code"]) == (401, "Unauthenticated")


@pytest.fixture(scope="module")
def strict_policy(_api) -> dict:
    routes = {
        "/strict": api_route(_api),
        "/open": api_route(_api, allowUnauthenticatedRequests=True),
        "/unsigned-body": api_route(_api, payload="unsigned"),
    }
    return policy(routes, allowUnauthenticatedRequests=False)


# The stock listener authenticates nobody.


@pytest.fixture(scope="module")
def plain_proxy(start_shared_proxy, strict_policy):
    proxy = start_shared_proxy(strict_policy)
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.mark.parametrize("body", [None, b"x" * 100_000])
@pytest.mark.parametrize("path", ["/strict", "/strict/a?b=c", "/unsigned-body"])
def test_who_is_not_authenticated_is_refused_and_nothing_is_sent(plain_proxy, api, path, body):
    response = plain_proxy.request(path, "POST" if body else "GET", body=body)

    assert refused(response)
    assert response.json["error"]["route"] == path.removesuffix("/a?b=c")
    assert not api.received


def test_a_routes_own_word_wins_over_a_strict_policy(plain_proxy, api):
    assert plain_proxy.request("/open").status == 200


def test_a_routes_own_word_wins_over_an_open_policy(start_proxy, api):
    routes = {"/strict": api_route(api, allowUnauthenticatedRequests=False), "/open": api_route(api)}
    proxy = start_proxy(policy(routes, allowUnauthenticatedRequests=True))
    proxy.push(TEMPORARY_KEY)

    assert refused(proxy.request("/strict"))
    assert not api.received
    assert proxy.request("/open").status == 200


SPOOFED_HEADERS = [
    {"x-forwarded-client-cert": f'Hash={"4" * 64};Subject="CN=orders";URI=spiffe://cluster.local/ns/orders'},
    {"x-envoy-internal": "true", "x-envoy-peer-metadata-id": "sidecar~10.0.0.1"},
    {"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "https", "x-envoy-external-address": "127.0.0.1"},
    {"x-ssl-client-verify": "SUCCESS", "x-client-cert": "MIIB"},
    {"metadata": "envoy.filters.http.jwt_authn", "envoy.filters.http.jwt_authn": '{"payload": {"sub": "a"}}'},
    {"x-jwt-payload": base64.urlsafe_b64encode(b'{"sub": "a"}').decode()},
    {"authorization": "Bearer garbage"},
    {"authorization": "Bearer e30.e30."},
    {"authorization": "AWS4-HMAC-SHA256 Credential=ASIDEXAMPLE/20260101/eu-west-1/execute-api/aws4_request, "
      "SignedHeaders=host, Signature=0"},
]  # fmt: skip


@pytest.mark.parametrize("headers", SPOOFED_HEADERS, ids=lambda headers: next(iter(headers.values()))[:24])
def test_what_a_client_claims_of_itself_counts_nothing(plain_proxy, api, headers):
    assert refused(plain_proxy.request("/strict", headers=headers))

    assert not api.received


# A client certificate.


@pytest.fixture(scope="module")
def tls_proxy(start_shared_proxy, strict_policy, authority):
    """Returns a proxy that accepts client certificates and does not require one."""
    return TlsProxy(start_shared_proxy, strict_policy, authority)


@pytest.fixture(scope="module")
def client(authority) -> tuple[Path, Path]:
    return authority.issue("orders")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory) -> tuple[Path, Path]:
    """Returns a certificate of a CA that the proxy does not know."""
    return Authority(tmp_path_factory.mktemp("stranger")).issue("orders")


def test_a_verified_client_certificate_lets_a_request_through(tls_proxy, client, api):
    assert tls_proxy.request("/strict/a", client).status == 200, api.last.refusal
    assert tls_proxy.request("/strict/a", client, method="POST", body=b"x" * 100_000).status == 200


def test_tls_without_a_client_certificate_authenticates_nobody(tls_proxy, api):
    assert refused(tls_proxy.request("/strict"))

    assert not api.received


@pytest.mark.parametrize("headers", SPOOFED_HEADERS[:4], ids=lambda headers: next(iter(headers)))
def test_a_certificate_that_is_only_claimed_counts_nothing(tls_proxy, api, headers):
    assert refused(tls_proxy.request("/strict", headers=headers))

    assert not api.received


def test_a_certificate_of_a_strange_authority_gets_nowhere(tls_proxy, stranger, api):
    with pytest.raises(RuntimeError, match="curl ended with"):
        tls_proxy.request("/strict", stranger)

    assert not api.received


def test_a_listener_that_requires_certificates_lets_those_with_one_through(
    start_proxy, strict_policy, authority, client, api
):
    proxy = TlsProxy(start_proxy, strict_policy, authority, require=True)

    assert proxy.request("/strict", client).status == 200
    with pytest.raises(RuntimeError, match="curl ended with"):
        proxy.request("/strict")


# See docs/security.md: no property of Envoy shows whether it verified the certificate.
@pytest.mark.xfail(reason="Envoy does not tell the filter", strict=True)
def test_a_certificate_that_envoy_takes_unverified_authenticates_nobody(
    start_proxy, strict_policy, authority, stranger, api
):
    proxy = TlsProxy(start_proxy, strict_policy, authority, trust_chain_verification="ACCEPT_UNTRUSTED")

    assert refused(proxy.request("/strict", stranger))
    assert not api.received


# A token that Envoy's jwt_authn verifies.


def forged_tokens() -> dict[str, str]:
    head, claims, signature = token().split(".")
    others = encode({"iss": ISSUER, "sub": "admin", "exp": int(time.time()) + 600})
    return {
        "another key": token(rsa.generate_private_key(65537, 2048)),
        "other claims": f"{head}.{others}.{signature}",
        "no signature": f"{head}.{claims}.",
        "no algorithm": f"{encode({'alg': 'none'})}.{claims}.",
        "another issuer": token(iss="https://elsewhere.example"),
        "expired": token(exp=int(time.time()) - 600),
        "not yet valid": token(nbf=int(time.time()) + 600),
        "no token": "garbage",
    }


FORGED_TOKENS = forged_tokens()


@pytest.fixture(scope="module")
def jwt_proxy(start_shared_proxy, strict_policy):
    proxy = start_shared_proxy(strict_policy, with_filter_before_the_signer(jwt_authn(payload_in_metadata="jwt")))
    proxy.push(TEMPORARY_KEY)
    return proxy


def test_a_verified_token_lets_a_request_through_and_stays_behind(jwt_proxy, api):
    assert jwt_proxy.request("/strict", headers={"authorization": f"Bearer {token()}"}).status == 200, api.last.refusal

    assert token().split(".")[0] not in json.dumps(api.last.report())


@pytest.mark.parametrize("forged", FORGED_TOKENS.values(), ids=FORGED_TOKENS)
def test_a_forged_token_is_refused(jwt_proxy, api, forged):
    assert refused(jwt_proxy.request("/strict", headers={"authorization": f"Bearer {forged}"}))

    assert not api.received


@pytest.mark.parametrize("headers", [{}, *SPOOFED_HEADERS], ids=lambda headers: str(headers)[:40])
def test_without_a_token_nothing_is_sent(jwt_proxy, api, headers):
    assert refused(jwt_proxy.request("/strict", headers=headers))

    assert not api.received


def test_the_reason_of_a_failed_token_in_the_metadata_is_no_authentication(start_proxy, strict_policy, api):
    failure = jwt_authn(payload_in_metadata="jwt", failed_status_in_metadata="failed")
    proxy = start_proxy(strict_policy, with_filter_before_the_signer(failure))
    proxy.push(TEMPORARY_KEY)

    for value in FORGED_TOKENS.values():
        assert refused(proxy.request("/strict", headers={"authorization": f"Bearer {value}"}))
    assert not api.received
    assert proxy.request("/strict", headers={"authorization": f"Bearer {token()}"}).status == 200
