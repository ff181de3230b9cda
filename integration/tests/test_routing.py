"""Prefix, host and path decide where a request goes; nothing leaves its target."""

import copy
import socket

import pytest

from integration.harness import raw
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, policy
from integration.stack.aws_servers import REGION
from integration.stack.proxy import StockConfiguration


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _api):
    routes = {
        "/plain": api_route(_api),
        "/base": api_route(_api, "/prod"),
        "/base/special": api_route(_api, "/special"),
        "/slash": api_route(_api, "/dir/"),
    }
    proxy = start_shared_proxy(policy(routes))
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/plain", "/"),
        ("/plain/", "/"),
        ("/plain?x=1", "/?x=1"),
        ("/plain/a/b?x=1&y=", "/a/b?x=1&y="),
        ("/base", "/prod"),
        ("/base/", "/prod/"),
        ("/base/a?x=1", "/prod/a?x=1"),
        ("/base/special", "/special"),
        ("/base/special/a", "/special/a"),
        ("/base/specials", "/prod/specials"),
        ("/slash/a", "/dir//a"),
    ],
)
def test_the_prefix_is_taken_off_and_the_rest_put_behind_the_targets_path(proxy, api, path, target):
    assert proxy.request(path).status == 200, api.last.refusal

    assert api.last.request.target == target


@pytest.mark.parametrize("path", ["/", "/plainer", "/other", "/bas", "/Plain", "/?/plain"])
def test_what_no_route_matches_is_not_sent(proxy, api, path):
    response = proxy.request(path)

    assert (response.status, response.json["error"]["code"]) == (404, "NoRoute")
    assert not api.received


@pytest.mark.parametrize(
    "path",
    [
        "/base/..",
        "/base/../plain",
        "/base/a/../../x",
        "/base/./a",
        "/base/%2e%2e/x",
        "/base/.%2E/x",
        "/base/a%2f..%2fb",
        "/base/a%2F%2e%2e",
        "/base/..%5cx",
        "/base/..\\x",
        "/base/%2",
        "/base/%zz",
    ],
)
def test_a_path_that_could_leave_its_target_is_refused(proxy, api, path):
    response = proxy.request(path)

    assert (response.status, response.json["error"]["code"]) == (400, "InvalidPath")
    assert not api.received


def test_control_characters_in_a_path_are_refused(proxy, api):
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as tcp:
        tcp.sendall(raw.http1_head(b"GET /base/a\x01b HTTP/1.1"))
        assert tcp.recv(65536).startswith(b"HTTP/1.1 400")

    assert not api.received


def test_dots_that_are_no_segments_pass(proxy, api):
    assert proxy.request("/base/a..b/...%2Fc.").status == 200


def test_a_client_can_not_choose_the_upstream_cluster(proxy, api):
    assert proxy.request("/plain", headers={"x-sigv4-upstream": "https"}).status == 200

    assert api.last.request.header("x-sigv4-upstream") is None


UPSTREAM_SCHEME_HEADERS = {
    "lower case": [b"x-sigv4-upstream: http"],
    "upper case": [b"X-SIGV4-UPSTREAM: http"],
    "blanks": [b"X-Sigv4-Upstream: \t http \t"],
    "twice": [b"x-sigv4-upstream: http", b"X-Sigv4-Upstream: http"],
    "https first": [b"x-sigv4-upstream: https", b"x-sigv4-upstream: http"],
    "upgrade": [b"x-sigv4-upstream: http", b"Upgrade: websocket", b"Connection: upgrade"],
    "named as a hop's": [b"x-sigv4-upstream: http", b"Connection: x-sigv4-upstream"],
    "chunked": [b"x-sigv4-upstream: http", b"Transfer-Encoding: chunked"],
}
"""What a client may write to have a request sent over plain HTTP."""


@pytest.fixture(scope="module")
def passing_proxy(start_shared_proxy, _api):
    """Returns a proxy that passes unmatched requests and those that Envoy's route disables, and signs for some
    hosts."""
    configuration = StockConfiguration()
    [targets] = configuration.http_connection_manager("traffic")["route_config"]["virtual_hosts"]
    disabled = [copy.deepcopy(route) for route in targets["routes"]]
    for route in disabled:
        route["match"]["prefix"] = "/off"
        route["metadata"] = {"filter_metadata": {"sigv4": {"disabled": True}}}
    targets["routes"][:0] = disabled
    routes = {
        "/api": api_route(_api),
        "/off": api_route(_api),
        "/host": {"hosts": ["127.0.0.1"], "service": "execute-api", "region": REGION},
        "/strict": {"hosts": ["127.0.0.1"], "service": "execute-api", "region": REGION,
                    "allowUnauthenticatedRequests": False},
    }  # fmt: skip
    proxy = start_shared_proxy(policy(routes, unmatched="pass", routeMetadata=True), configuration)
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.mark.parametrize("path", ["/other", "/other/../x", "/other%2", "/off/a", "/host/a", "/strict", "/other/../api"])
@pytest.mark.parametrize("headers", UPSTREAM_SCHEME_HEADERS.values(), ids=UPSTREAM_SCHEME_HEADERS)
def test_a_client_can_not_choose_plain_http(passing_proxy, api, path, headers):
    head = raw.http1_head(f"GET {path} HTTP/1.1", *headers, host=f"127.0.0.1:{api.port}")
    body = b"0\r\n\r\n" if b"Transfer-Encoding: chunked" in headers else b""
    answer = raw.http1(passing_proxy.port, head + body)

    # Sent over https, which the upstream does not speak, or refused. In clear text, it would have arrived.
    refused = {"/strict": 401, "/other/../api": 400}
    assert raw.statuses(answer) == [refused.get(path, 503)]
    assert not api.received


@pytest.mark.parametrize("path", ["/other", "/off/a", "/host/a"])
def test_a_client_can_not_choose_plain_http_over_http2(passing_proxy, api, path):
    authority = f"127.0.0.1:{api.port}".encode()
    for headers in ([(b"x-sigv4-upstream", b"http")], [(b"x-sigv4-upstream", b"http")] * 2):
        assert raw.http2(passing_proxy.port, path.encode(), headers, authority=authority) == 503
    assert not api.received


def test_unmatched_requests_pass_untouched_where_the_policy_says_so(start_proxy, api):
    proxy = start_proxy(policy({"/api": api_route(api)}, unmatched="pass"))
    # The route that the request would take without the filter leads over https, where nothing listens.
    response = proxy.request("/other", headers={"Host": f"127.0.0.1:{api.port}"})

    assert response.status == 503
    assert response.headers["content-type"] == "text/plain"


def test_hosts_tell_routes_with_the_same_prefix_apart(start_proxy, api):
    routes = [
        {"prefix": "/", **api_route(api, "/any")},
        {"prefix": "/", "hosts": ["*.orders.internal"], **api_route(api, "/wild")},
        {"prefix": "/", "hosts": ["eu.orders.internal"], **api_route(api, "/exact")},
    ]
    proxy = start_proxy(policy(routes))
    proxy.push(TEMPORARY_KEY)

    for host, path in [
        ("eu.orders.internal", "/exact/x"),
        ("us.orders.internal:8080", "/wild/x"),
        ("orders.internal", "/any/x"),
        ("EU.ORDERS.internal", "/exact/x"),
    ]:
        assert proxy.request("/x", headers={"Host": host}).status == 200
        assert api.last.request.target == path


def test_a_backstage_section_is_a_policy_as_it_stands(start_proxy, api):
    proxy = start_proxy({"/api": api_route(api, "/prod"), "credentialsWaitMs": 5000})
    proxy.push(TEMPORARY_KEY)

    assert proxy.request("/api/orders").status == 200
