"""The measured Envoys: one listener for each filter, all with credentials."""

import json
from pathlib import Path

import yaml
from botocore.credentials import Credentials

from integration.stack.client import curl
from integration.stack.intake import credential_document
from integration.stack.process import REPOSITORY, wait_until
from integration.stack.proxy import HASHER, WASM

EMPTY_FILTER = REPOSITORY / "target/wasm/wasm32-unknown-unknown/filter/empty_filter.wasm"
TOKEN = "IQoJb3JpZ2luX2VjE" + "a1B2" * 180
KEY = Credentials("ASIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", TOKEN)
HOST = "abc123.execute-api.eu-west-1.amazonaws.com"
# Of the 12 headers that the load generator sends, those that the filter does not sign.
NOT_SIGNED = ["cookie", "referer", "cache-control", "dnt", "user-agent"]
NOT_SIGNED_PREFIXES = ["x-forwarded", "x-envoy", "x-request", "sec-", "accept"]


def wasm(name: str, code: Path, configuration: dict | None = None) -> dict:
    """Returns a wasm filter."""
    plugin = {
        "name": name,
        "allow_on_headers_stop_iteration": True,
        "vm_config": {
            "vm_id": code.stem,
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {"filename": str(code)}},
        },
    }
    if configuration is not None:
        plugin["configuration"] = {
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": json.dumps(configuration),
        }
    return {
        "name": name,
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm", "config": plugin},
    }


def native(*, signs_few_headers: bool = False, service: str = "execute-api", rewrites_host: bool = True) -> dict:
    """Returns Envoy's own signer for the same upstream: with its defaults, or with the same signed headers as the
    filter."""
    config = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.aws_request_signing.v3.AwsRequestSigning",
        "service_name": service,
        "region": "eu-west-1",
        "credential_provider": {
            "inline_credential": {
                "access_key_id": KEY.access_key,
                "secret_access_key": KEY.secret_key,
                "session_token": KEY.token,
            }
        },
    }
    if rewrites_host:
        config["host_rewrite"] = HOST if service == "execute-api" else f"{service}.eu-west-1.amazonaws.com"
    if signs_few_headers:
        config["match_excluded_headers"] = [{"prefix": prefix} for prefix in NOT_SIGNED_PREFIXES]
        config["match_excluded_headers"] += [{"exact": name} for name in NOT_SIGNED]
    return {"name": "native", "typed_config": config}


def hasher() -> list[dict]:
    """Returns the filters of envoy/hasher.yaml: Envoy hashes bodies for the signer."""
    return yaml.safe_load(HASHER.read_text())["http_filters"]


ISSUER = "https://issuer.example"
OF_CALLER = {"callers": [{"issuer": ISSUER}], "roleArn": "arn:aws:iam::123456789012:role/mesh-{claim:team}"}
"""The members of a route whose role comes with the caller."""


def verified_token() -> dict:
    """Returns a filter that shows the signer a verified token's claims, without the cost of verifying one."""
    claims = {"iss": ISSUER, "sub": "orders-app", "team": "orders", "exp": 1_900_000_000, "aud": "aws"}
    config = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config",
        "metadata": [{"metadata_namespace": "envoy.filters.http.jwt_authn", "value": {"jwt": claims}}],
    }
    return {"name": "token", "typed_config": config}


def buffer() -> dict:
    """Returns Envoy's filter that buffers a request until its body is complete, and does nothing else."""
    config = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
        "max_request_bytes": 16 << 20,
    }
    return {"name": "buffer", "typed_config": config}


def policy(routes: int = 1, *, identities: int = 1, host: str = f"https://{HOST}", **route) -> dict:
    """Returns a policy with this many routes; the requests match the last one, with its own identity."""

    def one(number: int, target: str) -> dict:
        role = {"roleArn": f"arn:aws:iam::123456789012:role/r{number}"} if number < identities - 1 else {}
        return {"target": target, "service": "execute-api", "region": "eu-west-1", **role, **route}

    others = {f"/other/{n}/of/many": one(n, f"{host}/prod") for n in range(max(routes, identities) - 1)}
    return {"routes": {**others, "/orders": one(len(others), f"{host}/prod/orders")}}


def mesh_policy() -> dict:
    """Returns a policy that signs requests to AWS as they are, for any service and region."""
    return {"routes": {"/": {"hosts": ["*.amazonaws.com"]}}}


def intake(socket: Path) -> dict:
    """Returns the listener that accepts credentials."""
    return listener(
        "intake", [wasm("intake", WASM, {"intake": {}})], address={"pipe": {"path": str(socket), "mode": 384}}
    )


def listener(
    name: str,
    filters: list[dict],
    *,
    address: dict | None = None,
    cluster: str | None = None,
    certificate: tuple[Path, Path] | None = None,
) -> dict:
    """Returns a listener that answers every request itself, after its filters, or sends it to a cluster. It speaks TLS
    if it has a certificate and its key."""
    router = {
        "name": "router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }
    action = {"route": {"cluster": cluster, "timeout": "0s"}} if cluster else {"direct_response": {"status": 200}}
    manager = {
        "@type": "type.googleapis.com/"
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "http_filters": [*filters, router],
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **action}]}]
        },
    }
    chain: dict = {"filters": [{"name": "http", "typed_config": manager}]}
    if certificate:
        chain["transport_socket"] = _tls("Downstream", tls_certificates=[_tls_certificate(*certificate)])
    return {
        "name": name,
        "address": address or {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "per_connection_buffer_limit_bytes": 16 << 20,
        "filter_chains": [chain],
    }


def _tls_certificate(certificate: Path, key: Path) -> dict:
    return {"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key)}}


def _tls(side: str, **context) -> dict:
    config = f"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{side}TlsContext"
    return {"name": "tls", "typed_config": {"@type": config, "common_tls_context": context}}


def cluster(name: str, port: int, *, authority: Path | None = None) -> dict:
    """Returns a cluster of one host, which speaks TLS if there is an authority to trust."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    tls = _tls("Upstream", validation_context={"trusted_ca": {"filename": str(authority)}}) if authority else None
    return {
        **({"transport_socket": tls} if tls else {}),
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def push_all(socket: Path, identities: int) -> None:
    """Pushes credentials for every identity that the signers require and that has none."""

    def required() -> list[dict]:
        return json.loads(curl("http://intake/v1/identities", unix_socket=str(socket)).body)["identities"]

    wait_until(lambda: len(required()) == identities, f"the intake to require {identities} identities")
    for identity in required():
        if identity["held"]:
            continue
        url = f"http://intake/v1/identities/{identity['id']}/credentials"
        answer = curl(url, "PUT", body=credential_document(KEY), unix_socket=str(socket))
        if answer.status != 204:
            raise RuntimeError(f"a push failed: {answer}")
