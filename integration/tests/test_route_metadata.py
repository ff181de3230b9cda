"""Envoy's own routes may select, in their metadata, the policy's route that signs, or none."""

import pytest

from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, policy
from integration.stack.process import wait_until
from integration.stack.proxy import StockConfiguration


def with_route_metadata(configuration: StockConfiguration, metadata: dict[str, dict]) -> StockConfiguration:
    """Returns a configuration with an Envoy route for each path, which has the stock target and metadata for the
    filter."""
    [targets] = configuration.http_connection_manager("traffic")["route_config"]["virtual_hosts"]
    targets["routes"][:0] = [
        {
            "name": f"to{path}",
            "match": {"prefix": path},
            "metadata": {"filter_metadata": {"sigv4": fields}},
            "route": {"cluster": "https", "timeout": "0s"},
        }
        for path, fields in metadata.items()
    ]
    return configuration


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _api):
    routes = {
        "/short": api_route(_api, "/short-target"),
        "/expanded": api_route(_api, "/expanded-target"),
        "/strict": api_route(_api, "/strict-target", allowUnauthenticatedRequests=False),
    }
    metadata = {
        "/named": {"route": "/expanded"},
        "/short/named": {"route": "/expanded"},
        "/expanded/named": {"route": "/expanded"},
        "/guarded": {"route": "/strict"},
        "/off": {"disabled": True},
        "/short/off": {"disabled": True},
        "/short/on": {"disabled": False},
        "/short/empty": {},
        "/short/unknown": {"route": "/nowhere"},
        "/unknown": {"route": "expanded"},
        "/short/no-name": {"route": 5},
        "/short/no-switch": {"disabled": "true"},
    }
    configuration = with_route_metadata(StockConfiguration.leading_https_to(_api.port), metadata)
    proxy = start_shared_proxy(policy(routes, routeMetadata=True), configuration)
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.mark.parametrize("metadata", [{"disabled": True}, {"route": "/open"}], ids=str)
@pytest.mark.parametrize("mutation", ["stock", "none"])
@pytest.mark.parametrize("value", ["http", "https"])
def test_a_client_does_not_choose_the_metadata_by_the_header_of_the_signer(start_proxy, api, metadata, mutation, value):
    routes = {"/open": api_route(api), "/strict": api_route(api, allowUnauthenticatedRequests=False)}
    configuration = StockConfiguration()
    connections = configuration.http_connection_manager("traffic")
    if mutation == "none":
        del connections["early_header_mutation_extensions"]
    connections["route_config"]["virtual_hosts"][0]["routes"][0]["metadata"] = {"filter_metadata": {"sigv4": metadata}}
    proxy = start_proxy(policy(routes, routeMetadata=True), configuration)
    proxy.push(TEMPORARY_KEY)

    # Without the header, or if it is removed, the policy chooses; otherwise Envoy's choice is unknown.
    for path, expected in [("/strict/x", 401), ("/open/x", 200)]:
        assert proxy.request(path).status == expected
        answer = proxy.request(path, headers={"X-Sigv4-Upstream": value})
        if mutation == "none":
            assert (answer.status, answer.json["error"]["code"]) == (400, "UnsupportedRequest")
        else:
            assert answer.status == expected


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/expanded/named/a?x=1", "/expanded-target/named/a?x=1"),
        ("/short/on/a", "/short-target/on/a"),
        ("/short/empty", "/short-target/empty"),
        ("/short/other", "/short-target/other"),
    ],
)
def test_the_route_that_the_metadata_names_signs(proxy, api, path, target):
    assert proxy.request(path).status == 200, api.last.refusal

    assert api.last.request.target == target


@pytest.mark.parametrize("path", ["/named/a", "/short/named/a"])
def test_a_named_route_takes_paths_that_do_not_begin_with_its_prefix(proxy, api, path):
    assert proxy.request(path).status == 200, api.last.refusal

    assert api.last.request.target == f"/expanded-target{path}"


@pytest.mark.parametrize("path", ["/off/a?x=1", "/short/off/a?x=1", "/short/off/../a"])
def test_where_signing_is_off_requests_pass_untouched(proxy, api, path):
    proxy.request(path, headers={"authorization": "Bearer mine", "Host": "elsewhere.example"})

    assert api.last.request.target == path
    assert api.last.request.header("authorization") == "Bearer mine"
    assert api.last.request.header("host") == "elsewhere.example"
    assert api.last.request.header("x-amz-date") is None


@pytest.mark.parametrize("path", ["/short/unknown", "/unknown"])
def test_a_route_that_the_policy_does_not_know_is_refused(proxy, api, path):
    response = proxy.request(path)

    assert (response.status, response.json["error"]["code"]) == (500, "SigningFailed")
    assert "not a route of the policy" in response.json["error"]["message"]
    assert not api.received


@pytest.mark.parametrize("path", ["/short/no-name", "/short/no-switch"])
def test_metadata_of_a_wrong_type_never_switches_signing_off(proxy, api, path):
    response = proxy.request(path)

    if api.received:
        assert api.last.accepted, api.last.refusal
    else:
        assert (response.status, response.json["error"]["code"]) == (500, "SigningFailed")


def test_what_the_named_route_asks_for_still_holds(proxy, api):
    response = proxy.request("/guarded")

    assert (response.status, response.json["error"]["code"]) == (401, "Unauthenticated")
    assert not api.received


def test_paths_are_checked_on_a_named_route_too(proxy, api):
    response = proxy.request("/named/../a")

    assert (response.status, response.json["error"]["code"]) == (400, "InvalidPath")
    assert not api.received


@pytest.mark.parametrize("header", ["sigv4", "x-sigv4-route", "x-sigv4-disabled", "x-envoy-metadata"])
def test_a_client_can_not_say_what_the_metadata_says(proxy, api, header):
    value = '{"disabled": true, "route": "/expanded"}'
    assert proxy.request("/short/a", headers={header: value}).status == 200, api.last.refusal

    assert api.last.request.target == "/short-target/a"


@pytest.mark.parametrize("members", [{}, {"routeMetadata": False}], ids=str)
def test_a_policy_that_does_not_ask_for_the_metadata_decides_alone_and_warns(start_proxy, api, members):
    metadata = {"/short/off": {"disabled": True}, "/short/named": {"route": "/expanded"}}
    routes = {"/short": api_route(api, "/short-target"), "/expanded": api_route(api, "/expanded-target")}
    configuration = with_route_metadata(StockConfiguration.leading_https_to(api.port), metadata)
    proxy = start_proxy(policy(routes, **members), configuration)
    proxy.push(TEMPORARY_KEY)

    for path in ["/named/a", "/off/a"]:
        assert proxy.request(f"/short{path}").status == 200, api.last.refusal
        assert api.last.request.target == f"/short-target{path}"

    warning = 'the route "to/short/named" of Envoy has metadata under "sigv4", which the policy ignores'
    wait_until(lambda: warning in proxy.envoy.log, "the warning")
    # Only what has such a route is counted.
    assert proxy.request("/short/other").status == 200
    assert "sigv4_ignored_route_metadata 2" in proxy.envoy.admin("/stats/prometheus").replace("{}", "")
