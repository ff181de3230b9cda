"""A real Envoy that is configured as Istio would configure it from manifests.

istiod does not run. Its translation of the few resources that are used here is reproduced below from its source:
EnvoyFilter patches are applied unchanged, WasmPlugin and TrafficExtension become filters, ServiceEntry and
DestinationRule become clusters. The filter's image is replaced by a local file, as istio-agent does.
"""

import copy
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from integration.stack.client import curl
from integration.stack.envoy import Envoy
from integration.stack.intake import Intake
from integration.stack.proxy import WASM

from .certificates import Authority

_TYPES = "type.googleapis.com/"
ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": _TYPES + "envoy.extensions.filters.http.router.v3.Router"},
}


_FAILURE_POLICIES = {"FAIL_CLOSE": "FAIL_CLOSED", "FAIL_OPEN": "FAIL_OPEN", "FAIL_RELOAD": "FAIL_RELOAD"}


@dataclass
class Mesh(Intake):
    """The proxy of one workload: a sidecar, or a gateway that requires mutual TLS."""

    manifests: list[dict]
    directory: Path
    upstreams: dict[str, int]
    """The port on 127.0.0.1 at which each host of the ServiceEntry really is, with TLS."""
    authority: Authority
    context: str = "SIDECAR_OUTBOUND"
    pass_through: int = 1
    """The port on 127.0.0.1 to which the sidecar sends, in clear, what no ServiceEntry has."""

    def __enter__(self):
        self.socket_volume = Path(tempfile.mkdtemp(prefix="mesh-"))
        # As the kubelet creates an emptyDir.
        self.socket_volume.chmod(0o777)
        try:
            self.envoy = Envoy(self._bootstrap(), self.directory)
            self.envoy.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if hasattr(self, "envoy"):
            self.envoy.stop()
        shutil.rmtree(self.socket_volume, ignore_errors=True)

    def request(
        self, host: str, path: str, method: str = "GET", certificate: tuple[Path, Path] | None = None, **options
    ):
        """Sends a request of the application to `http://HOST`; over mutual TLS if the proxy is a gateway."""
        port = self.envoy.port("traffic")
        headers = {"Host": host, **options.pop("headers", {})}
        if self.context == "SIDECAR_OUTBOUND":
            return curl(f"http://127.0.0.1:{port}{path}", method, headers=headers, **options)
        tls = ["--insecure"]
        if certificate:
            tls += ["--cert", str(certificate[0]), "--key", str(certificate[1])]
        return curl(f"https://127.0.0.1:{port}{path}", method, headers=headers, options=tls, **options)

    @property
    def socket(self) -> Path:
        (intake,) = self._patches("LISTENER", "ADD")
        return self.local(intake["address"]["pipe"]["path"])

    def local(self, path: str) -> Path:
        """Returns the local path of a path on the pod's volume."""
        return Path(path.replace("/var/run/sigv4", str(self.socket_volume)))

    def pods(self) -> list[dict]:
        """Returns the specifications of the manifests' pods."""
        return [deployment["spec"]["template"]["spec"] for deployment in self.of_kind("Deployment")]

    def of_kind(self, kind: str) -> list[dict]:
        return [manifest for manifest in self.manifests if manifest["kind"] == kind]

    def _patches(self, apply_to: str, operation: str) -> list[dict]:
        """Returns the values that EnvoyFilters patch in there."""
        return [
            patch["patch"]["value"]
            for manifest in self.of_kind("EnvoyFilter")
            for patch in copy.deepcopy(manifest["spec"]["configPatches"])
            if (patch["applyTo"], patch["patch"]["operation"]) == (apply_to, operation)
            and patch["match"]["context"] == self.context
        ]

    def _bootstrap(self) -> dict:
        plugins = [_wasm_filter(plugin) for kind in ("WasmPlugin", "TrafficExtension") for plugin in self.of_kind(kind)]
        # Each one that is inserted first comes before those that were.
        first = reversed(self._patches("HTTP_FILTER", "INSERT_FIRST"))
        traffic = self._traffic([*first, *plugins, *self._patches("HTTP_FILTER", "INSERT_BEFORE"), ROUTER])
        for merged in self._patches("LISTENER", "MERGE"):
            traffic |= merged
        [connections] = traffic["filter_chains"][0]["filters"]
        for merged in self._patches("NETWORK_FILTER", "MERGE"):
            assert merged["name"] == connections["name"]
            connections["typed_config"] |= merged["typed_config"]
        listeners = [traffic, *self._patches("LISTENER", "ADD")]
        for listener in listeners:
            if pipe := listener["address"].get("pipe"):
                pipe["path"] = str(self.local(pipe["path"]))
                self._make_directory(pipe["path"])
        bootstrap = {
            "node": {"id": "mesh", "cluster": "mesh"},
            "static_resources": {"listeners": listeners, "clusters": self._clusters()},
        }
        extensions = {extension["name"]: extension for extension in self._patches("EXTENSION_CONFIG", "ADD")}
        self._discover_from_files(bootstrap, extensions)
        _use_local_file(bootstrap)
        return bootstrap

    def _make_directory(self, socket: str) -> None:
        # By the pod's own init container; if the manifests have no pod, as that one does.
        pods = self.pods()
        commands = [
            each["command"] for pod in pods for each in pod["initContainers"] if each["name"] == "sigv4-directory"
        ]
        command = commands[0] if commands else ["install", "-d", "-m", "0700", str(Path(socket).parent)]
        subprocess.run([str(self.local(part)) if part.startswith("/") else part for part in command], check=True)

    def _traffic(self, filters: list[dict]) -> dict:
        manager = {
            "@type": _TYPES + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "traffic",
            # Istio's default.
            "normalize_path": True,
            "http_filters": filters,
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": f"{host}:80",
                        "domains": [host, f"{host}:80"],
                        "routes": [
                            {"match": {"prefix": "/"}, "route": {"cluster": f"outbound|80||{host}", "timeout": "0s"}}
                        ],
                    }
                    for host in self._routed_hosts()
                ]
                + self._catch_all()
            },
        }
        chain: dict = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        if self.context == "GATEWAY":
            certificate, key = self.authority.issue("gateway.internal")
            chain["transport_socket"] = {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": _TYPES + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    # Istio sets true; here a client without a certificate must reach the filter.
                    "require_client_certificate": False,
                    "common_tls_context": {
                        "tls_certificates": [
                            {"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key)}}
                        ],
                        "validation_context": {"trusted_ca": {"filename": str(self.authority.certificate)}},
                    },
                },
            }
        address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
        return {"name": "traffic", "address": address, "filter_chains": [chain]}

    def _routed_hosts(self) -> list[str]:
        """Returns the hosts that the proxy has routes for: a sidecar from ServiceEntries, a gateway from
        VirtualServices."""
        if self.context == "SIDECAR_OUTBOUND":
            return self._external_hosts()
        return [
            match["authority"]["exact"]
            for service in self.of_kind("VirtualService")
            for route in service["spec"]["http"]
            for match in route["match"]
            if "mesh" not in match["gateways"]
        ]

    def _catch_all(self) -> list[dict]:
        """Returns a sidecar's route for hosts without a ServiceEntry: Istio's default, `outboundTrafficPolicy:
        ALLOW_ANY`."""
        if self.context != "SIDECAR_OUTBOUND":
            return []
        route = {"match": {"prefix": "/"}, "route": {"cluster": "PassthroughCluster", "timeout": "0s"}}
        return [{"name": "allow_any", "domains": ["*"], "routes": [route]}]

    def _external_hosts(self) -> list[str]:
        return [host for entry in self.of_kind("ServiceEntry") for host in entry["spec"]["hosts"]]

    def _clusters(self) -> list[dict]:
        clusters = [_static_cluster("PassthroughCluster", self.pass_through)]
        for host in self._external_hosts():
            cluster = _static_cluster(f"outbound|80||{host}", self.upstreams.get(host, 1))
            if self._originates_tls(host):
                cluster |= _tls_by_the_requests_host(self.authority.certificate)
            clusters.append(cluster)
        return clusters

    def _originates_tls(self, host: str) -> bool:
        for rule in self.of_kind("DestinationRule"):
            wanted = rule["spec"]["host"]
            if wanted == host or (wanted.startswith("*") and host.endswith(wanted[1:])):
                for settings in rule["spec"]["trafficPolicy"].get("portLevelSettings", []):
                    if settings["port"]["number"] == 80:
                        return settings["tls"]["mode"] == "SIMPLE"
        return False

    def _discover_from_files(self, node, extensions: dict[str, dict]) -> None:
        """Reads extensions from a file instead of istiod."""
        if isinstance(node, list):
            for each in node:
                self._discover_from_files(each, extensions)
        elif isinstance(node, dict):
            if "config_discovery" in node:
                assert "ads" in node["config_discovery"]["config_source"]
                extension = extensions[node["name"]]
                _use_local_file(extension)
                path = self.directory / f"{node['name']}.yaml"
                resource = {"@type": _TYPES + "envoy.config.core.v3.TypedExtensionConfig", **extension}
                path.write_text(yaml.safe_dump({"version_info": "1", "resources": [resource]}))
                del node["config_discovery"]["config_source"]["ads"]
                node["config_discovery"]["config_source"]["path_config_source"] = {"path": str(path)}
            for each in node.values():
                self._discover_from_files(each, extensions)


def _static_cluster(name: str, port: int) -> dict:
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
    return {"name": name, "type": "STATIC", "load_assignment": assignment}


def _wasm_filter(plugin: dict) -> dict:
    metadata = plugin["metadata"]
    wasm = plugin["spec"].get("wasm", plugin["spec"])
    name = f"{metadata['namespace']}.{metadata['name']}"
    return {
        "name": name,
        "typed_config": {
            "@type": _TYPES + "envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": name,
                "configuration": {
                    "@type": _TYPES + "google.protobuf.StringValue",
                    "value": json.dumps(wasm["pluginConfig"]),
                },
                "failure_policy": _FAILURE_POLICIES[wasm["failStrategy"]],
                "vm_config": {
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"remote": {"http_uri": {"uri": wasm["url"], "cluster": "_", "timeout": "30s"}}},
                },
            },
        },
    }


def _use_local_file(node) -> None:
    if isinstance(node, list):
        for each in node:
            _use_local_file(each)
    elif isinstance(node, dict):
        if "remote" in node.get("code", {}):
            assert node["code"]["remote"]["http_uri"]["uri"].startswith("oci://")
            node["code"] = {"local": {"filename": str(WASM)}}
        for each in node.values():
            _use_local_file(each)


def _tls_by_the_requests_host(trusted: Path) -> dict:
    return {
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": _TYPES + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {"validation_context": {"trusted_ca": {"filename": str(trusted)}}},
            },
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPES + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "upstream_http_protocol_options": {"auto_sni": True, "auto_san_validation": True},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }
