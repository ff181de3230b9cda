"""The filter among a cluster's own HTTP filters: it signs every attempt, so a retry is signed again.

Each attempt begins with the headers of the one before: retries need a policy that changes neither path nor authority
when applied again.
"""

import copy
from pathlib import Path

import pytest

from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, policy
from integration.harness.upstream import Answer
from integration.stack.proxy import StockConfiguration

# Longer than a second, the resolution of a signature's date.
PAUSE_BETWEEN_ATTEMPTS = "1.2s"


def with_retries(configuration: StockConfiguration) -> StockConfiguration:
    """Retries twice on any 5xx."""
    retries = {
        "retry_on": "5xx",
        "num_retries": 2,
        "retry_back_off": {"base_interval": PAUSE_BETWEEN_ATTEMPTS, "max_interval": PAUSE_BETWEEN_ATTEMPTS},
        # Envoy waits a random part of the interval, but the full value of this header.
        "rate_limited_retry_back_off": {
            "reset_headers": [{"name": "retry-after", "format": "SECONDS"}],
            "max_interval": "5s",
        },
    }
    [virtual_host] = configuration.http_connection_manager("traffic")["route_config"]["virtual_hosts"]
    for route in virtual_host["routes"]:
        route["route"]["retry_policy"] = retries
    return configuration


class SigningCluster(StockConfiguration):
    """The stock configuration with the signer moved from the listener to the cluster, which leads to `upstream`."""

    def __init__(self, upstream):
        super().__init__()
        manager = self.http_connection_manager("traffic")
        filters = {each["name"]: each for each in manager["http_filters"]}
        manager["http_filters"] = [filters["envoy.filters.http.router"]]
        manager["route_config"]["virtual_hosts"][0]["routes"][-1]["route"]["cluster"] = "https"
        self._signer = filters["sigv4"]
        codec = {"@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"}
        cluster = self.cluster("https")
        cluster.clear()
        address = {"socket_address": {"address": "127.0.0.1", "port_value": upstream.port}}
        cluster.update(
            name="https",
            type="STATIC",
            load_assignment={
                "cluster_name": "https",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
            typed_extension_protocol_options={
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http_protocol_options": {}},
                    "http_filters": [
                        self._signer,
                        {"name": "envoy.filters.http.upstream_codec", "typed_config": codec},
                    ],
                }
            },
        )

    @property
    def signer(self) -> dict:
        return self._signer["typed_config"]["config"]

    def use_wasm(self, path: Path) -> None:
        super().use_wasm(path)
        self.signer["vm_config"]["code"]["local"]["filename"] = str(path)


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _api):
    """Returns a proxy that signs in the cluster; Envoy's own route has already rewritten the path."""
    configuration = with_retries(SigningCluster(_api))
    [virtual_host] = configuration.http_connection_manager("traffic")["route_config"]["virtual_hosts"]
    virtual_host["routes"].insert(0, copy.deepcopy(virtual_host["routes"][-1]))
    virtual_host["routes"][0]["match"] = {"path_separated_prefix": "/api"}
    virtual_host["routes"][0]["route"]["prefix_rewrite"] = "/prod"
    proxy = start_shared_proxy(policy({"/": api_route(_api)}), configuration)
    proxy.push(TEMPORARY_KEY)
    return proxy


def attempts(api) -> list[tuple[str, str]]:
    """Returns the date and signature of each attempt that arrived; all of them verified."""
    assert all(received.accepted for received in api.received), api.received
    requests = [received.request for received in api.received]
    return [(request.header("x-amz-date"), request.header("authorization")) for request in requests]


def test_a_retry_is_signed_anew(proxy, api):
    api.answer = Answer(503, [("retry-after", "1")])

    assert proxy.request("/api/orders?b=2&a=1").status == 503

    dates, signatures = zip(*attempts(api), strict=True)
    assert len(dates) == 3
    assert sorted(set(dates)) == list(dates)
    assert len(set(signatures)) == 3
    assert {received.request.target for received in api.received} == {"/prod/orders?b=2&a=1"}
    assert {received.request.header("host") for received in api.received} == {f"127.0.0.1:{api.port}"}


def test_on_the_listener_a_retry_bears_the_first_signature(start_proxy, api):
    proxy = start_proxy(policy({"/api": api_route(api, "/prod")}), with_retries(StockConfiguration()))
    proxy.push(TEMPORARY_KEY)
    api.answer = Answer(503, [("retry-after", "1")])

    assert proxy.request("/api/orders").status == 503

    assert len(attempts(api)) == 3
    assert len(set(attempts(api))) == 1


def test_a_body_is_signed_again_with_every_attempt(proxy, api):
    api.answer = Answer(503, [("retry-after", "1")])

    assert proxy.request("/api/orders", "POST", body=b"one order").status == 503

    assert len(set(attempts(api))) == 3
    assert {received.request.body for received in api.received} == {b"one order"}


def test_a_policy_that_moves_paths_takes_no_retry(start_proxy, api):
    proxy = start_proxy(policy({"/api": api_route(api, "/prod")}), with_retries(SigningCluster(api)))
    proxy.push(TEMPORARY_KEY)
    assert proxy.request("/api/orders").status == 200
    api.reset()
    api.answer = Answer(503)

    refused = proxy.request("/api/orders")

    # The second attempt asks for /prod/orders, which matches no route: it is refused, not sent with an old signature.
    assert (refused.status, refused.json["error"]["code"]) == (404, "NoRoute")
    assert len(attempts(api)) == 1


def test_what_no_route_takes_is_refused(start_proxy, api):
    proxy = start_proxy(policy({"/api": api_route(api)}), SigningCluster(api))

    refused = proxy.request("/elsewhere")

    assert (refused.status, refused.json["error"]["code"]) == (404, "NoRoute")
    assert not api.received
