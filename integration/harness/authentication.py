"""Clients that Envoy authenticates: by a certificate, or by a token that its `jwt_authn` verifies."""

import base64
import json
import time
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from integration.harness.certificates import Authority
from integration.harness.keys import TEMPORARY_KEY
from integration.stack.client import curl
from integration.stack.proxy import StockConfiguration


class TlsProxy:
    """A proxy whose traffic listener speaks TLS and accepts client certificates of `authority`."""

    def __init__(self, start, policy: dict, authority: Authority, require: bool = False, push=None, **validation):
        self._authority = authority.certificate
        certificate, key = authority.issue("localhost")
        common = {
            "tls_certificates": [
                {"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key)}}
            ],
            "validation_context": {"trusted_ca": {"filename": str(authority.certificate)}, **validation},
        }
        configuration = StockConfiguration()
        configuration.listener("traffic")["filter_chains"][0]["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": require,
                "common_tls_context": common,
            },
        }
        self.proxy = start(policy, configuration)
        if push:
            push(self.proxy)
        else:
            self.proxy.push(TEMPORARY_KEY)

    def request(self, path: str, client: tuple[Path, Path] | None = None, **options):
        tls = ["--cacert", str(self._authority)]
        if client:
            certificate, key = client
            tls += ["--cert", str(certificate), "--key", str(key)]
        return curl(f"https://localhost:{self.proxy.port}{path}", options=tls, **options)


ISSUER = "https://issuer.example"
ISSUER_KEY = rsa.generate_private_key(65537, 2048)


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def encode(document: dict) -> str:
    return base64url(json.dumps(document).encode())


def token(key: rsa.RSAPrivateKey = ISSUER_KEY, **claims) -> str:
    claims = {"iss": ISSUER, "sub": "orders", "exp": int(time.time()) + 600, **claims}
    signed = f"{encode({'alg': 'RS256', 'kid': 'one'})}.{encode(claims)}"
    return f"{signed}.{base64url(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def local_jwks() -> dict:
    """Returns the issuer's public key, as a setting of a provider of Envoy's `jwt_authn`."""
    modulus = ISSUER_KEY.public_key().public_numbers().n
    jwk = {"kty": "RSA", "alg": "RS256", "kid": "one", "n": base64url(modulus.to_bytes(256, "big")), "e": "AQAB"}
    return {"local_jwks": {"inline_string": json.dumps({"keys": [jwk]})}}


def jwt_authn(**provider) -> dict:
    """Returns Envoy's filter, which passes requests without a valid token: the signer must refuse them."""
    return {
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"issuer": {"issuer": ISSUER, **local_jwks(), **provider}},
            "rules": [
                {
                    "match": {"prefix": "/"},
                    "requires": {"requires_any": {"requirements": [{"provider_name": "issuer"}, _ANYONE]}},
                }
            ],
        },
    }


_ANYONE = {"allow_missing_or_failed": {}}


def with_filter_before_the_signer(http_filter: dict) -> StockConfiguration:
    configuration = StockConfiguration()
    configuration.http_connection_manager("traffic")["http_filters"].insert(0, http_filter)
    return configuration
