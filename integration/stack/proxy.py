"""The filter in a real Envoy, run from the stock configuration with a few values replaced."""

import copy
import json
import re
import shutil
import tempfile
from pathlib import Path

import yaml

from .client import Response, curl
from .envoy import Envoy
from .intake import Intake
from .process import REPOSITORY, wait_until

WASM = REPOSITORY / "dist" / "sigv4_filter.wasm"
STOCK_CONFIGURATION = REPOSITORY / "envoy" / "envoy.yaml"
HASHER = REPOSITORY / "envoy" / "hasher.yaml"

# For the policy's targets, and for hosts that clients choose.
HTTPS_CLUSTERS = ("https", "client_hosts")


class StockConfiguration:
    """envoy/envoy.yaml, with names for the places that a test replaces."""

    def __init__(self):
        # The round trip expands the YAML aliases: an edit of one place stays there.
        self.envoy_arguments: list[str] = []
        """Added to Envoy's command line."""
        self.envoy_environment: dict[str, str] = {}
        """Added to Envoy's environment."""
        self.document: dict = json.loads(json.dumps(yaml.safe_load(STOCK_CONFIGURATION.read_text())))

    @classmethod
    def leading_https_to(cls, port: int) -> "StockConfiguration":
        """Returns the stock configuration with https routed to a port of this machine, as by a sidecar's own routes."""
        configuration = cls()
        configuration.lead_https_to(port)
        return configuration

    def listener(self, name: str) -> dict:
        return _named(self.document["static_resources"]["listeners"], name)

    def cluster(self, name: str) -> dict:
        return _named(self.document["static_resources"]["clusters"], name)

    def http_connection_manager(self, listener: str) -> dict:
        return self.listener(listener)["filter_chains"][0]["filters"][0]["typed_config"]

    @property
    def signer(self) -> dict:
        """Returns the signer's PluginConfig."""
        return _named(self.http_connection_manager("traffic")["http_filters"], "sigv4")["typed_config"]["config"]

    @property
    def policy(self) -> dict:
        """Returns the stock policy."""
        return json.loads(self.signer["configuration"]["value"])

    @property
    def loopback_names(self) -> str:
        """Returns the hosts whose web pages may send requests, as a regular expression's alternatives."""
        return re.search(r"\((.*?)\)", self._origins["regex"])[1]

    @loopback_names.setter
    def loopback_names(self, names: str) -> None:
        self._origins["regex"] = self._origins["regex"].replace(self.loopback_names, names)

    @property
    def _origins(self) -> dict:
        web_pages = _named(self.http_connection_manager("traffic")["http_filters"], "web_pages")["typed_config"]
        [*_, origin] = web_pages["rules"]["policies"]["page-of-another-site"]["principals"]
        return origin["header"]["string_match"]["safe_regex"]

    @property
    def intake(self) -> dict:
        """Returns the intake's PluginConfig."""
        return _named(self.http_connection_manager("intake")["http_filters"], "sigv4_intake")["typed_config"]["config"]

    def add_hasher(self, paths: str, clients: str = "127.0.0.0") -> None:
        """Adds the native hasher of envoy/hasher.yaml, for paths that match a regular expression and the clients of an
        IPv4 network of eight bits."""
        hasher = json.loads(json.dumps(yaml.safe_load(HASHER.read_text())))
        for each in hasher["http_filters"]:
            skipped = each["typed_config"]["xds_matcher"]["matcher_list"]["matchers"]
            by_path, by_client = (one["predicate"]["not_matcher"]["single_predicate"] for one in skipped[:2])
            by_path["value_match"] = {"safe_regex": {"google_re2": {}, "regex": paths}}
            by_client["custom_match"]["typed_config"]["cidr_ranges"][0]["address_prefix"] = clients
        filters = self.http_connection_manager("traffic")["http_filters"]
        at = filters.index(_named(filters, "sigv4"))
        filters[at:at] = hasher["http_filters"]

    def configure(self, plugin: dict, document: dict) -> None:
        """Sets the configuration of `signer` or `intake`, which Envoy passes on as text."""
        plugin["configuration"] = {
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": json.dumps(document),
        }

    def add_traffic_listener(self, name: str, policy: dict) -> None:
        """Adds a second listener like `traffic`, with a policy of its own."""
        listener = copy.deepcopy(self.listener("traffic"))
        listener["name"] = name
        self.document["static_resources"]["listeners"].append(listener)
        signer = _named(self.http_connection_manager(name)["http_filters"], "sigv4")["typed_config"]["config"]
        self.configure(signer, policy)

    def use_wasm(self, path: Path) -> None:
        """Sets the .wasm in every listener that has the filter; a plugin of other code keeps its own."""
        for listener in self.document["static_resources"]["listeners"]:
            for each in self.http_connection_manager(listener["name"])["http_filters"]:
                if machine := each["typed_config"].get("config", {}).get("vm_config"):
                    local = machine["code"]["local"]
                    if Path(local["filename"]).name == WASM.name:
                        local["filename"] = str(path)

    def use_socket(self, path: Path) -> None:
        """Sets the intake's Unix socket, if its listener has one, and the admin interface's next to it."""
        if pipe := self.listener("intake")["address"].get("pipe"):
            pipe["path"] = str(path)
        admin = str(path.with_name("admin.sock"))
        self.document["admin"]["address"]["pipe"]["path"] = admin
        [endpoints] = self.cluster("admin")["load_assignment"]["endpoints"]
        endpoints["lb_endpoints"][0]["endpoint"]["address"]["pipe"]["path"] = admin

    def trust(self, certificate: Path) -> None:
        """Checks https targets against this CA instead of the system's."""
        for name in HTTPS_CLUSTERS:
            tls = self.cluster(name)["transport_socket"]["typed_config"]["common_tls_context"]
            tls["validation_context"]["trusted_ca"]["filename"] = str(certificate)

    def lead_https_to(self, port: int, tls: bool = False) -> None:
        """Sends requests for any https host to a port of this machine: names are not resolved in tests. With `tls`, the
        server there must have a certificate for each name."""
        endpoint = _local_endpoint(port)
        for name in HTTPS_CLUSTERS:
            cluster = self.cluster(name)
            kept = {key: cluster[key] for key in ("transport_socket", "typed_extension_protocol_options") if tls}
            cluster.clear()
            cluster.update(
                kept,
                name=name,
                type="STATIC",
                load_assignment={"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
            )

    def lead_host_to(self, host: str, port: int) -> None:
        """Sends requests for one https host to a port of this machine, without TLS."""
        endpoint = _local_endpoint(port)
        load_assignment = {"cluster_name": host, "endpoints": [{"lb_endpoints": [endpoint]}]}
        self.document["static_resources"]["clusters"].append(
            {"name": host, "type": "STATIC", "load_assignment": load_assignment}
        )
        routes = [{"match": {"prefix": "/"}, "route": {"cluster": host}}]
        virtual_hosts = self.http_connection_manager("traffic")["route_config"]["virtual_hosts"]
        virtual_hosts.append({"name": host, "domains": [host], "routes": routes})

    def serve_tls(self, listener: str, certificate: Path, key: Path, client_authority: Path | None = None) -> None:
        """Adds TLS to a listener; with a client CA, it accepts that one's certificates, and requires none."""
        files = {"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key)}}
        context: dict = {"tls_certificates": [files]}
        if client_authority:
            context["validation_context"] = {"trusted_ca": {"filename": str(client_authority)}}
        self.listener(listener)["filter_chains"][0]["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": context,
            },
        }


class Proxy(Intake):
    """A running Envoy that signs by `policy`, or else by `configuration`; credentials are pushed over its socket."""

    def __init__(
        self,
        directory: Path,
        policy: dict | None,
        configuration: StockConfiguration | None = None,
        concurrency: int = 2,
    ):
        if not WASM.exists():
            raise FileNotFoundError(f"{WASM} is not there: run make build")
        configuration = configuration or StockConfiguration()
        if policy is not None:
            configuration.configure(configuration.signer, policy)
        configuration.use_wasm(WASM)
        # A socket's path is limited to about a hundred characters, which test directories exceed.
        self._socket_directory = Path(tempfile.mkdtemp(prefix="sigv4-"))
        self.socket = self._socket_directory / "credentials.sock"
        configuration.use_socket(self.socket)
        self.envoy = Envoy(
            configuration.document,
            directory,
            concurrency,
            "info",
            *configuration.envoy_arguments,
            **configuration.envoy_environment,
        )

    def __enter__(self):
        try:
            self.envoy.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        try:
            self.envoy.stop()
        finally:
            shutil.rmtree(self._socket_directory, ignore_errors=True)

    @property
    def port(self) -> int:
        return self.envoy.port("traffic")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(self, path: str, method: str = "GET", **options) -> Response:
        """Sends a request as a client of the proxy; the options are those of `curl`."""
        return curl(self.url + path, method, **options)

    def wait_for_status(self, path: str, status: int, timeout: float = 20) -> None:
        """Returns when a GET of `path` gets `status`."""
        wait_until(lambda: self.request(path).status == status, f"{path} to answer {status}", timeout)


def _local_endpoint(port: int) -> dict:
    return {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}


def _named(items: list[dict], name: str) -> dict:
    return next(item for item in items if item["name"] == name)
