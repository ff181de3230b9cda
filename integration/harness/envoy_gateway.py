"""A real Envoy that is configured as Envoy Gateway would configure it from manifests.

Envoy Gateway itself does not run. Its translation of an EnvoyExtensionPolicy and of routes is reproduced below from its
source; EnvoyPatchPolicies are applied unchanged.
"""

import json

from integration.stack.proxy import WASM

from .authentication import local_jwks
from .mesh import ROUTER, Mesh

_TYPES = "type.googleapis.com/"
_JWT_AUTHN = _TYPES + "envoy.extensions.filters.http.jwt_authn.v3"
_LISTENER = _TYPES + "envoy.config.listener.v3.Listener"


class EnvoyGateway(Mesh):
    """The proxy of the manifests' only gateway, with one HTTP listener."""

    @property
    def socket(self):
        return self.local(self._added_listeners()[0]["address"]["pipe"]["path"])

    def pod(self) -> dict:
        """Returns the EnvoyProxy's additions to the proxy's pod."""
        kubernetes = self.of_kind("EnvoyProxy")[0]["spec"]["provider"]["kubernetes"]
        return kubernetes["envoyDeployment"]["patch"]["value"]["spec"]["template"]["spec"]

    def pods(self) -> list[dict]:
        return [self.pod()]

    def _patches_of_policies(self) -> list[dict]:
        return [patch for policy in self.of_kind("EnvoyPatchPolicy") for patch in policy["spec"]["jsonPatches"]]

    def _added_listeners(self) -> list[dict]:
        return [
            json.loads(json.dumps(patch["operation"]["value"]))
            for patch in self._patches_of_policies()
            if patch["operation"]["path"] == ""
        ]

    def _bootstrap(self) -> dict:
        signer = self._signer()
        jwt_authn = self._jwt_authn()
        traffic = self._traffic([*jwt_authn, signer, ROUTER])
        manager = traffic["filter_chains"][0]["filters"][0]["typed_config"]
        # The ClientTrafficPolicy's path settings; Envoy Gateway normalizes by default.
        manager |= {
            "normalize_path": True,
            "merge_slashes": False,
            "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        }
        streams = self.of_kind("ClientTrafficPolicy")[0]["spec"]["http2"]["maxConcurrentStreams"]
        manager["http2_protocol_options"] = {"max_concurrent_streams": streams}
        for host in manager["route_config"]["virtual_hosts"]:
            enabled = {"@type": _TYPES + "envoy.config.route.v3.FilterConfig", "config": {}}
            host["routes"][0]["typed_per_filter_config"] = {signer["name"]: enabled}
            if jwt_authn:
                required = {"@type": _JWT_AUTHN + ".PerRouteConfig", "requirement_name": "aws-egress"}
                host["routes"][0]["typed_per_filter_config"][jwt_authn[0]["name"]] = required
        # A gateway's listener has one chain, the default one.
        traffic["default_filter_chain"] = traffic.pop("filter_chains")[0]

        gateway = self.of_kind("Gateway")[0]
        metadata, (listener,) = gateway["metadata"], gateway["spec"]["listeners"]
        name = f"{metadata['namespace']}/{metadata['name']}/{listener['name']}"
        for patch in self._patches_of_policies():
            assert patch["type"] == _LISTENER
            if patch["operation"]["path"]:
                assert patch["name"] == name
                _add(traffic, patch["operation"]["path"], patch["operation"]["value"])
        added = self._added_listeners()
        for listener in added:
            self._place(listener)
        return {"static_resources": {"listeners": [traffic, *added], "clusters": self._clusters()}}

    def _place(self, listener: dict) -> None:
        path = listener["address"]["pipe"]["path"]
        listener["address"]["pipe"]["path"] = str(self.local(path))
        self._make_directory(path)
        plugin = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][0]["typed_config"]["config"]
        mounted = next(each for each in self.pod()["containers"] if each["name"] == "envoy")["volumeMounts"]
        volume = next(each["mountPath"] for each in mounted if each["name"] == "sigv4-filter")
        local = plugin["vm_config"]["code"]["local"]
        assert local["filename"] == f"{volume}/plugin.wasm"
        local["filename"] = str(WASM)

    def _signer(self) -> dict:
        policy = self.of_kind("EnvoyExtensionPolicy")[0]
        (wasm,) = policy["spec"]["wasm"]
        name = f"envoyextensionpolicy/{policy['metadata']['namespace']}/{policy['metadata']['name']}/wasm/0"
        return {
            "name": f"envoy.filters.http.wasm/{name}",
            "disabled": True,
            "typed_config": {
                "@type": _TYPES + "envoy.extensions.filters.http.wasm.v3.Wasm",
                "config": {
                    "name": wasm["name"],
                    "fail_open": wasm["failOpen"],
                    "configuration": {
                        "@type": _TYPES + "google.protobuf.StringValue",
                        "value": json.dumps(wasm["config"]),
                    },
                    "vm_config": {
                        "vm_id": name,
                        "runtime": "envoy.wasm.runtime.v8",
                        # Envoy Gateway serves the image's module to the proxy.
                        "code": {"local": {"filename": str(WASM)}},
                    },
                },
            },
        }

    def _jwt_authn(self) -> list[dict]:
        """Returns the filter for a SecurityPolicy with tokens, if there is one; Envoy Gateway puts it before wasm."""
        policies = self.of_kind("SecurityPolicy")
        if not policies:
            return []
        [provider] = policies[0]["spec"]["jwt"]["providers"]
        # The issuer's keys come from the tests instead of its URL.
        assert provider["remoteJWKS"]["uri"].startswith("https://")
        name = f"aws-egress/{provider['name']}"
        settings = {"issuer": provider["issuer"], "audiences": provider["audiences"], "forward": True, **local_jwks()}
        return [
            {
                "name": "envoy.filters.http.jwt_authn",
                "typed_config": {
                    "@type": _JWT_AUTHN + ".JwtAuthentication",
                    "providers": {name: {**settings, "payload_in_metadata": provider["issuer"]}},
                    "requirement_map": {"aws-egress": {"provider_name": name}},
                },
            }
        ]

    def _catch_all(self) -> list[dict]:
        return []

    def _external_hosts(self) -> list[str]:
        return [host for route in self.of_kind("HTTPRoute") for host in route["spec"]["hostnames"]]

    def _originates_tls(self, host: str) -> bool:
        return any(tls["spec"]["validation"]["hostname"] == host for tls in self.of_kind("BackendTLSPolicy"))


def _add(document, pointer: str, value) -> None:
    """Applies JSON Patch's `add` to a member of an object."""
    *parents, last = pointer.removeprefix("/").split("/")
    for part in parents:
        document = document[int(part)] if isinstance(document, list) else document[part]
    document[last] = value
