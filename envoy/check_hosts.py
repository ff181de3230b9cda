#!/usr/bin/env python3
"""Compares the hosts that manifests sign for with those for which they originate TLS. Needs PyYAML.

    kubectl kustomize envoy/istio/overlays/workload | envoy/check_hosts.py

Exits with 0, or with 1 and a line for each host that would be signed and leave without TLS. Reads the manifests of
Istio and of Envoy Gateway, and every policy in them.
"""

import json
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import yaml


def main() -> int:
    manifests = [manifest for manifest in yaml.safe_load_all(sys.stdin) if manifest]
    if not any(policies(manifests)):
        print("there is no signing policy in these manifests; pipe in the output of kubectl kustomize", file=sys.stderr)
        return 1
    signed, routed = set(signed_hosts(manifests)), list(routed_hosts(manifests))
    problems = [problem for host in sorted(signed) for problem in without_tls(host, routed)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def without_tls(signed: str, routed: list[tuple[str, str, bool]]) -> Iterator[str]:
    """Yields the defects of a signed host, or pattern of hosts."""
    if not any(tls and covers(host, signed) for host, _, tls in routed):
        yield (
            f"{signed} is signed, but nothing originates TLS for it: list it in a ServiceEntry whose DestinationRule "
            "does (Envoy Gateway: HTTPRoute, Backend and BackendTLSPolicy), or remove it from the policy's hosts"
        )
    # A route without hosts matches those that no other route names.
    named = any(host == signed for host, _, _ in routed)
    for host, place, tls in routed:
        if not tls and not (host == "*" and named) and (covers(host, signed) or covers(signed, host)):
            yield f"{signed} is signed, but {place} sends {host} without TLS that verifies the host: originate it there"


def covers(pattern: str, host: str) -> bool:
    """Returns whether `pattern` covers every name of `host`, which is a name or `*.` and a domain."""
    return pattern in (host, "*") or (pattern.startswith("*.") and host.removeprefix("*").endswith(pattern[1:]))


# What is signed.


def signed_hosts(manifests: list[dict]) -> Iterator[str]:
    """Yields the hosts whose requests are signed and must leave over TLS, from all policies."""
    for policy in policies(manifests):
        for route in routes(policy):
            if isinstance(route, str) or "target" in route:
                target = urlsplit(route if isinstance(route, str) else route["target"])
                # The policy itself says plain http.
                if target.scheme.lower() == "https":
                    yield target.hostname or ""
            elif route.get("upstreamTls", True):
                yield from (without_port(host).lower() for host in route["hosts"])


def without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if port.isdigit() else host


def policies(node) -> Iterator[dict]:
    """Yields every signing policy in a manifest: as JSON text in a plugin's configuration, or as an object."""
    if isinstance(node, dict):
        if str(node.get("@type", "")).endswith("google.protobuf.StringValue"):
            policy = json.loads(node["value"])
            if "intake" not in policy:
                yield policy
            return
        for key, value in node.items():
            if key in ("pluginConfig", "config") and isinstance(value, dict) and is_policy(value):
                yield value
            else:
                yield from policies(value)
    elif isinstance(node, list):
        for each in node:
            yield from policies(each)


def is_policy(value: dict) -> bool:
    return "routes" in value or "proxysigv4" in value or any(key.startswith("/") for key in value)


def routes(policy: dict) -> Iterator[dict | str]:
    if "proxysigv4" in policy:
        yield from routes(policy["proxysigv4"])
    listed = policy.get("routes", {key: value for key, value in policy.items() if key.startswith("/")})
    yield from listed.values() if isinstance(listed, dict) else listed


# Where it goes: host, the resource that sends it, and whether that is over TLS.

# The protocols of a ServiceEntry's port that Istio does not read as HTTP. Without one, it inspects the bytes.
NOT_HTTP = {"HTTPS", "TLS", "TCP", "UDP", "MONGO", "REDIS", "MYSQL"}


def routed_hosts(manifests: list[dict]) -> Iterator[tuple[str, str, bool]]:
    for manifest in manifests:
        kind, spec = manifest["kind"], manifest.get("spec", {})
        place = f"{kind}/{manifest['metadata']['name']}"
        if kind == "ServiceEntry":
            for host in spec["hosts"]:
                yield from ((host, place, tls) for tls in entry_tls(host, spec, manifests))
        elif kind == "VirtualService":
            for destination in destinations(spec, manifests):
                yield from (
                    (host, place, destination_has_tls(destination, manifests)) for host in spec.get("hosts", [])
                )
        elif kind in ("HTTPRoute", "GRPCRoute"):
            for host in spec.get("hostnames", ["*"]):
                yield host, place, all(backend_has_tls(each, host, manifest, manifests) for each in backends(spec))


# Istio


def entry_tls(host: str, spec: dict, manifests: list[dict]) -> Iterator[bool]:
    """Yields the TLS of each port over which a proxy may send HTTP; an entry that only some proxies see does not
    count."""
    for port in spec["ports"]:
        if port.get("protocol", "").upper() not in NOT_HTTP:
            tls = rules_originate(("SIMPLE", "MUTUAL"), host, port["number"], manifests)
            if is_for_all(spec) or not tls:
                yield tls


def is_for_all(spec: dict) -> bool:
    """Returns whether every proxy of the mesh sees a resource."""
    return "workloadSelector" not in spec and "*" in spec.get("exportTo", ["*"])


def destinations(virtual_service: dict, manifests: list[dict]) -> Iterator[dict]:
    for route in virtual_service.get("http", []):
        mirrors = [{"destination": route["mirror"]}] if "mirror" in route else route.get("mirrors", [])
        for each in [*route.get("route", []), *mirrors]:
            yield each["destination"]
        if "delegate" in route:
            for manifest in manifests:
                if manifest["kind"] == "VirtualService" and manifest["metadata"]["name"] == route["delegate"]["name"]:
                    # A delegate delegates no further.
                    yield from destinations({"http": manifest["spec"].get("http", [])}, [])


def destination_has_tls(destination: dict, manifests: list[dict]) -> bool:
    """Returns whether the connection has TLS: the host's own, or the mesh's to a gateway that forwards."""
    port, subset = destination.get("port", {}).get("number"), destination.get("subset")
    return rules_originate(("SIMPLE", "MUTUAL", "ISTIO_MUTUAL"), destination["host"], port, manifests, subset)


def rules_originate(
    modes: tuple[str, ...], host: str, port: int | None, manifests: list[dict], subset: str | None = None
) -> bool:
    """Returns whether a host has one of these modes of TLS under every DestinationRule that a proxy may use.

    A proxy uses the most exact rule of a namespace, and its own namespace before others, so each namespace's must have
    TLS. So must each rule that only some proxies see; it guarantees nothing to the others.
    """
    namespaces, restricted = {}, []
    for manifest in manifests:
        if manifest["kind"] == "DestinationRule" and covers(manifest["spec"]["host"], host):
            rule = manifest["spec"]
            if not is_for_all(rule):
                restricted.append(rule)
                continue
            namespace = manifest["metadata"].get("namespace", "")
            namespaces[namespace] = max(namespaces.get(namespace, rule), rule, key=exactness)
    found = [*namespaces.values(), *restricted]
    return bool(namespaces) and all(tls_mode(rule, port, subset) in modes for rule in found)


def exactness(rule: dict) -> tuple[bool, int]:
    """Returns a sort key: an exact host comes before a pattern, a longer pattern before a shorter one."""
    return not rule["host"].startswith("*"), len(rule["host"])


def tls_mode(rule: dict, port: int | None, subset: str | None) -> str | None:
    """Returns the mode of TLS, or `None` if nothing is verified. A subset's settings override the rule's, and a port's
    override the general ones, without inheriting from them."""
    policies = [each.get("trafficPolicy", {}) for each in rule.get("subsets", []) if each["name"] == subset]
    for policy in [*policies, rule.get("trafficPolicy", {})]:
        of_port = [each for each in policy.get("portLevelSettings", []) if each["port"]["number"] == port]
        if of_port or "tls" in policy:
            tls = (of_port[0] if of_port else policy).get("tls", {})
            return None if tls.get("insecureSkipVerify", False) else tls.get("mode")
    return None


# Gateway API


def backends(spec: dict) -> Iterator[dict]:
    """Yields every backend of a route, including those of its mirrors."""
    for rule in spec.get("rules", []):
        references = rule.get("backendRefs", [])
        yield from references
        for filters in [rule.get("filters", []), *(each.get("filters", []) for each in references)]:
            yield from (each["requestMirror"]["backendRef"] for each in filters if "requestMirror" in each)


def backend_has_tls(backend: dict, host: str, route: dict, manifests: list[dict]) -> bool:
    own = route["metadata"].get("namespace", "")
    return any(
        target["kind"] == backend.get("kind", "Service")
        and target["name"] == backend["name"]
        and policy["metadata"].get("namespace", "") == backend.get("namespace", own)
        and policy["spec"]["validation"]["hostname"] == host
        for policy in manifests
        if policy["kind"] == "BackendTLSPolicy"
        for target in policy["spec"]["targetRefs"]
    )


if __name__ == "__main__":
    sys.exit(main())
