"""The stock configuration is accepted; a policy that can't work is rejected with the place and the fix."""

import pytest

from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, policy
from integration.stack.envoy import validate
from integration.stack.process import ProcessEnded
from integration.stack.proxy import WASM, StockConfiguration


def test_the_stock_configuration_is_valid(tmp_path):
    configuration = StockConfiguration()
    configuration.use_wasm(WASM)
    configuration.use_socket(tmp_path / "s")

    code, output = validate(configuration.document, tmp_path)

    assert code == 0, output


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"routes": {"/a": "ftp://h"}}, 'routes["/a"].target'),
        ({"routes": {"/a": "https://h/p?x=1"}}, 'routes["/a"].target'),
        ({"routes": {"/a": "https://api.example.com"}}, 'routes["/a"]'),
        ({"routes": {"/a": {"target": "https://sqs.eu-west-1.amazonaws.com", "colour": 1}}}, "colour"),
        ({"routes": {}, "unmatched": "maybe"}, "unmatched"),
    ],
    ids=["scheme", "query", "unknown host", "unknown key", "bad value"],
)
def test_a_policy_that_can_not_work_is_refused_with_the_place(start_proxy, change, place):
    with pytest.raises(ProcessEnded) as ended:
        start_proxy(change)

    assert place in str(ended.value)


def test_a_policy_that_envoy_hands_over_as_protobuf_is_refused_with_the_cure(tmp_path):
    configuration = StockConfiguration()
    configuration.use_wasm(WASM)
    configuration.use_socket(tmp_path / "s")
    configuration.signer["configuration"] = {
        "@type": "type.googleapis.com/google.protobuf.Struct",
        "value": {"routes": {"/sqs": "https://sqs.eu-west-1.amazonaws.com"}},
    }

    code, output = validate(configuration.document, tmp_path)

    assert code != 0
    assert "write the policy as JSON in a google.protobuf.StringValue" in output


def test_client_authentication_is_required_where_the_policy_says_so(start_proxy, api):
    routes = {"/open": api_route(api, allowUnauthenticatedRequests=True), "/closed": api_route(api)}
    proxy = start_proxy(policy(routes, allowUnauthenticatedRequests=False))
    proxy.push(TEMPORARY_KEY)

    assert proxy.request("/open").status == 200
    response = proxy.request("/closed")
    assert (response.status, response.json["error"]["code"]) == (401, "Unauthenticated")
    assert response.json["error"]["route"] == "/closed"
    assert len(api.received) == 1


def test_route_metadata_names_a_policy_route_or_switches_signing_off(start_proxy, api):
    configuration = StockConfiguration()
    [host] = configuration.http_connection_manager("traffic")["route_config"]["virtual_hosts"]

    def envoy_route(prefix: str, metadata: dict) -> dict:
        return {
            "match": {"prefix": prefix},
            "route": {"cluster": "http"},
            "metadata": {"filter_metadata": {"sigv4": metadata}},
        }

    host["routes"].insert(0, envoy_route("/off", {"disabled": True}))
    host["routes"].insert(0, envoy_route("/named", {"route": "/api"}))
    proxy = start_proxy(policy({"/api": api_route(api, "/prod")}, routeMetadata=True), configuration)
    proxy.push(TEMPORARY_KEY)

    here = {"Host": f"127.0.0.1:{api.port}"}
    assert proxy.request("/off", headers=here).status == 403
    assert api.last.refusal == "no Authorization header"
    assert proxy.request("/named/x", headers=here).status == 200, api.last.refusal
