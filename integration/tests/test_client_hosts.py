"""Names that clients choose don't displace the policy's targets: they are resolved separately, within a bound."""

import pytest

from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import policy
from integration.stack.aws_servers import REGION
from integration.stack.proxy import StockConfiguration

MOST = 8


def resolver(configuration: StockConfiguration, name: str) -> dict:
    """Returns the cache of a resolver filter."""
    filters = configuration.http_connection_manager("traffic")["http_filters"]
    [found] = [each for each in filters if each["name"] == name]
    return found["typed_config"]["extension_config"]["typed_config"]["dns_cache_config"]


@pytest.fixture
def wildcard_proxy(start_proxy, api, configuration):
    """Returns a proxy with small caches, so that few names fill one."""
    for name in ("targets", "client_hosts"):
        place = "resolve_target" if name == "targets" else "resolve_client_host"
        resolver(configuration, place)["max_hosts"] = MOST
        for cluster in map(configuration.cluster, ("https", "client_hosts", "http")):
            cache = cluster["cluster_type"]["typed_config"]["dns_cache_config"]
            if cache["name"] == name:
                cache["max_hosts"] = MOST
    scope = {"service": "execute-api", "region": REGION}
    routes = [
        {"prefix": "/", "hosts": ["*.wild.localhost"], **scope},
        {"prefix": "/api", "target": api.url.replace("127.0.0.1", "localhost"), **scope},
    ]
    proxy = start_proxy(policy(routes, unmatched="pass"), configuration)
    proxy.push(TEMPORARY_KEY)
    return proxy


def hosts(proxy, cache: str) -> int:
    return proxy.envoy.stat(f"dns_cache.{cache}.num_hosts")


@pytest.mark.parametrize("domain", ["wild.localhost", "unmatched.localhost"], ids=["signed", "passed"])
def test_many_names_of_clients_leave_targets_reachable(wildcard_proxy, api, domain):
    proxy = wildcard_proxy
    for number in range(5 * MOST):
        assert proxy.request("/", headers={"host": f"n{number}.{domain}"}).status == 503
    assert hosts(proxy, "client_hosts") == MOST
    assert proxy.envoy.stat("dns_cache.client_hosts.host_overflow") > 0
    assert hosts(proxy, "targets") == 0

    assert proxy.request("/api/a").status == 200
    assert hosts(proxy, "targets") == 1
    assert api.last.accepted


def test_a_client_can_not_say_whose_its_host_is(wildcard_proxy, api):
    """The filter state, which no header sets, distinguishes the two."""
    headers = {"host": "a.wild.localhost", "x-sigv4-upstream": "http", "wasm.sigv4.host": "policy"}

    assert wildcard_proxy.request("/", headers=headers).status == 503
    assert (hosts(wildcard_proxy, "client_hosts"), hosts(wildcard_proxy, "targets")) == (1, 0)
