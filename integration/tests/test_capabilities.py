"""What code may do in the filter's virtual machine, and which other code can read the credentials."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from wasmtime import Engine, Module

from integration.harness import probe_wasm
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.manifests import ISTIO, MANIFESTS, build
from integration.harness.policies import api_route, policy
from integration.stack.client import curl
from integration.stack.envoy import envoy_binary, validate
from integration.stack.intake import credential_document
from integration.stack.process import ProcessEnded
from integration.stack.proxy import WASM, StockConfiguration

OVERLAYS = [ISTIO / "overlays" / "workload", ISTIO / "overlays" / "egress", ISTIO / "wasm-plugin",
            ISTIO / "traffic-extension", MANIFESTS / "gateway-overlay"]  # fmt: skip
FILES = [MANIFESTS / "envoy.yaml", MANIFESTS / "compose" / "envoy.yaml"]
CONFIGURATIONS = {
    **{str(path.relative_to(MANIFESTS)): lambda path=path: yaml.safe_load(path.read_text()) for path in FILES},
    **{str(path.relative_to(MANIFESTS)): lambda path=path: build(path) for path in OVERLAYS},
}
ALLOWED = list(StockConfiguration().signer["capability_restriction_config"]["allowed_capabilities"])
# Envoy does not call the filter for a request without a body then, so that nothing refuses: docs/security.md says so.
LETS_PASS = "proxy_on_request_headers"


def test_the_list_is_what_the_filter_imports_and_exports():
    module = Module.from_file(Engine(), str(WASM))
    callbacks = [export.name for export in module.exports if export.name.startswith("proxy_on_")]

    assert sorted(ALLOWED) == sorted([*(called.name for called in module.imports), *callbacks])


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_stock_configuration_has_the_list(name):
    found = list(lists(CONFIGURATIONS[name]()))

    # Istio's WasmPlugin and TrafficExtension have no field for it: their intake alone has one.
    assert len(found) == (1 if name in ("istio/wasm-plugin", "istio/traffic-extension") else 2)
    for allowed in found:
        assert allowed == {name: {} for name in ALLOWED}


@pytest.mark.parametrize("removed", ALLOWED)
def test_without_any_of_them_nothing_leaves_unsigned(start_proxy, api, configuration, removed):
    """A list that lacks a call makes the filter refuse, or does no harm; the one exception is what calls the filter."""
    for plugin in (configuration.signer, configuration.intake):
        del plugin["capability_restriction_config"]["allowed_capabilities"][removed]
    # There a request goes that the signer has not touched.
    configuration.lead_https_to(api.port)
    try:
        proxy = start_proxy(policy({"/api": api_route(api)}, credentialsWaitMs=0), configuration, concurrency=1)
    except ProcessEnded:
        return
    document = credential_document(TEMPORARY_KEY)
    for method, url, body in (
        ("PUT", "http://intake/v1/identities/default/credentials", document),
        ("GET", f"{proxy.url}/api/x", None),
        ("POST", f"{proxy.url}/api/x", b"a body"),
    ):
        options = ["--unix-socket", proxy.socket] if "intake" in url else []
        body_options = ["--data-binary", "@-"] if body else []
        subprocess.run(
            ["curl", "-sS", "-o", "/dev/null", "--max-time", "2", "-X", method, *options, *body_options, url],
            input=body, check=False, capture_output=True,
        )  # fmt: skip

    unsigned = [received.refusal for received in api.received if received.verdict is None]
    assert unsigned == (["no Authorization header"] if removed == LETS_PASS else [])


@pytest.mark.parametrize("level", ["plugin", "vm_config"])
def test_envoy_takes_the_list_where_it_knows_the_field(configuration, tmp_path, level):
    """From Envoy 1.40 on it belongs to the machine; the plugin's is taken by each release, there with a warning."""
    configuration.use_wasm(WASM)
    configuration.use_socket(tmp_path / "s")
    if level == "vm_config":
        move_to_vm_config(configuration)

    code, output = validate(configuration.document, tmp_path)

    knows_it_there = envoy_version() >= (1, 40)
    assert (code == 0) == (level == "plugin" or knows_it_there), output
    assert ("Using deprecated option" in output) == (level == "plugin" and knows_it_there)


@pytest.mark.parametrize("restricted", [True, False], ids=["with the list", "without"])
def test_other_code_in_the_filters_place_calls_nothing_else(start_proxy, api, tmp_path, configuration, restricted):
    wasm = probe_wasm.caller(tmp_path / "caller.wasm")
    plugin = add_listener(configuration, wasm, "another")
    if restricted:
        plugin["capability_restriction_config"] = configuration.signer["capability_restriction_config"]

    proxy = start_proxy(policy({"/api": api_route(api)}), configuration)

    told = "is refused" if restricted else "is allowed"
    for call in probe_wasm.FOREIGN_CALLS:
        assert f"{call} {told}" in proxy.envoy.log


@pytest.mark.parametrize("restricts_first", [True, False], ids=["the first has the list", "the second has it"])
def test_the_first_plugins_list_is_the_machines_up_to_envoy_1_39(
    start_proxy, api, tmp_path, configuration, restricts_first
):
    wasm = probe_wasm.caller(tmp_path / "caller.wasm")
    plugins = [add_listener(configuration, wasm, "another", name) for name in ("another", "second")]
    restricted = plugins[0 if restricts_first else 1]
    restricted["capability_restriction_config"] = configuration.signer["capability_restriction_config"]

    proxy = start_proxy(policy({"/api": api_route(api)}), configuration)

    told = set(re.findall("proxy_http_call is (refused|allowed)", proxy.envoy.log))
    if envoy_version() >= (1, 40):
        assert told == {"refused", "allowed"}
    else:
        assert told == ({"refused"} if restricts_first else {"allowed"})


@pytest.mark.parametrize(("vm_id", "reads_it"), [("sigv4", True), ("another", False), ("", False)])
def test_a_plugin_with_the_filters_vm_id_reads_the_secret_and_no_other_does(
    start_proxy, api, tmp_path, configuration, vm_id, reads_it
):
    wasm = probe_wasm.reader(tmp_path / "reader.wasm", "sigv4.credentials.default")
    add_listener(configuration, wasm, vm_id)
    proxy = start_proxy(policy({"/api": api_route(api)}), configuration)
    proxy.push(TEMPORARY_KEY)
    assert proxy.request("/api").status == 200

    assert curl(f"http://127.0.0.1:{proxy.envoy.port('another')}/").status == 204

    assert (TEMPORARY_KEY.secret_key in proxy.envoy.log) == reads_it


def lists(node):
    """Yields the lists of all plugins in a configuration, or in manifests."""
    if isinstance(node, list):
        for each in node:
            yield from lists(each)
    elif isinstance(node, dict):
        for key, value in node.items():
            # A member of the plugin, or what a JSON patch adds as one.
            name = str(node.get("path", "")).rpartition("/")[2] if key == "value" else key
            if name == "capability_restriction_config":
                yield value["allowed_capabilities"]
            else:
                yield from lists(value)


def move_to_vm_config(configuration: StockConfiguration) -> None:
    for plugin in (configuration.signer, configuration.intake):
        plugin["vm_config"]["capability_restriction_config"] = plugin.pop("capability_restriction_config")


def add_listener(configuration: StockConfiguration, wasm: Path, vm_id: str, name: str = "another") -> dict:
    """Adds a listener that has other code in a filter of its own; returns the plugin."""
    plugin = {
        "name": name,
        "vm_config": {
            "vm_id": vm_id,
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {"filename": str(wasm)}},
        },
    }
    types = "type.googleapis.com/envoy.extensions.filters"
    filters = [
        {"name": "another", "typed_config": {"@type": f"{types}.http.wasm.v3.Wasm", "config": plugin}},
        {"name": "router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}},
    ]
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "another",
        "http_filters": filters,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "direct_response": {"status": 204}}]}]},
    }  # fmt: skip
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    configuration.document["static_resources"]["listeners"].append(
        {
            "name": name,
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "filter_chains": [chain],
        }
    )
    return plugin


def envoy_version() -> tuple[int, int]:
    shown = subprocess.run([envoy_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = re.search(r"/(\d+)\.(\d+)\.\d+/", shown).groups()
    return int(major), int(minor)
