"""The stock configurations on loopback: requests of other sites' web pages are refused, and programs are served."""

import json
from pathlib import Path

import pytest
import yaml

from integration.harness import raw
from integration.harness.keys import TEMPORARY_KEY
from integration.stack.aws_servers import REGION
from integration.stack.process import REPOSITORY
from integration.stack.proxy import StockConfiguration

CONFIGURATIONS = {"stock": "envoy/envoy.yaml", "compose": "envoy/compose/envoy.yaml"}


def from_file(path: Path, upstream) -> StockConfiguration:
    """Returns the configuration as shipped, including its policy; its targets lead to `upstream`."""
    configuration = StockConfiguration()
    configuration.document = json.loads(json.dumps(yaml.safe_load(path.read_text())))
    policy = configuration.policy
    for route in policy["routes"].values():
        route.pop("roleArn", None)
        route |= {"target": upstream.url, "service": "s3", "region": REGION}
    policy["routes"]["/kept"] = {"hosts": ["*.invalid"], "service": "s3", "region": REGION}
    configuration.configure(configuration.signer, {**policy, "credentialsWaitMs": 5000})
    return configuration


@pytest.fixture(scope="module", params=CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def proxy(request, start_shared_proxy, _s3):
    proxy = start_shared_proxy(None, from_file(REPOSITORY / request.param, _s3))
    proxy.push(TEMPORARY_KEY)
    return proxy


LOOPBACK = ["localhost", "localhost:8080", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:8080"]
FOREIGN = [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "evil-localhost:8080",
    "foo.localhost",
    "127.0.0.1.evil.example",
    "127.0.0.2",
    "127.1",
    "2130706433",
    "0.0.0.0",
    "0177.0.0.1",
    "[::]",
    "[::ffff:127.0.0.1]",
    "192.168.1.10:8080",
    "s3.eu-west-1.amazonaws.com",
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_programs_on_this_machine_are_served(proxy, s3, host):
    for method, body in [("GET", None), ("PUT", b"object")]:
        assert proxy.request("/s3/bucket/key", method, headers={"Host": host}, body=body).status == 200, s3.last.refusal


@pytest.mark.parametrize("host", FOREIGN)
def test_a_name_that_was_led_to_this_machine_finds_no_route(proxy, s3, host):
    for path, method in [("/s3/bucket/key", "GET"), ("/s3/bucket/key", "POST"), ("/orders/7", "GET")]:
        response = proxy.request(path, method, headers={"Host": host}, body=b"x" if method == "POST" else None)
        assert (response.status, response.json["error"]["code"]) == (404, "NoRoute")
    assert not s3.received


@pytest.mark.parametrize("target", ["http://evil.example/s3/bucket/key", "http://evil.example:8080/s3/bucket/key"])
def test_a_foreign_host_in_the_request_line_finds_no_route(proxy, s3, target):
    answer = raw.http1(proxy.port, raw.http1_head(f"GET {target} HTTP/1.1"))

    assert raw.statuses(answer) == [404]
    assert not s3.received


def test_a_route_without_a_target_keeps_its_own_hosts(proxy):
    # Signed, and sent to a name that nobody has (RFC 6761, 6.4); to another, there is no route.
    assert proxy.request("/kept", headers={"Host": "sqs.invalid"}).status == 503
    assert proxy.request("/kept", headers={"Host": "localhost"}).status == 404


def test_only_the_service_name_of_compose_is_taken_beside_loopback(proxy, s3, request):
    is_compose = request.node.callspec.params["proxy"] == CONFIGURATIONS["compose"]
    for headers in ({"Host": "envoy:8080"}, {"Host": "envoy:8080", "Origin": "http://envoy:8080"}):
        assert (proxy.request("/s3/bucket/key", headers=headers).status == 200) == is_compose


# A browser's headers about the page that sends a request.

PAGES_OF_OTHER_SITES = [
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-User": "?1"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:8080"},
    {"SEC-FETCH-SITE": "cross-site"},
    {"Sec-Fetch-Site": "Cross-Site"},
    {"Sec-Fetch-Site": "of-the-future"},
    {"Origin": "https://evil.example"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "null"},
    {"Origin": "null", "Sec-Fetch-Site": "none"},
    {"Origin": "file://"},
    {"Origin": "chrome-extension://abcdefghijklmnop"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://evil.example:80/http://localhost"},
    {"Origin": "http://localhost@evil.example"},
    {"Origin": "http://127.0.0.1.evil.example:8080"},
    {"Origin": "http://127a0b0c1"},
    {"Origin": "http://[::2]"},
    {"Origin": "http://evil.example\thttp://localhost"},
]
OWN_PAGES_AND_PROGRAMS = [
    {},
    {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:8080"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
    {"Origin": "http://127.0.0.1:8080"},
    {"Origin": "http://[::1]:8080"},
    {"Origin": "https://localhost"},
    {"User-Agent": "aws-cli/2.0", "Referer": "https://evil.example/"},
]


@pytest.mark.parametrize("headers", PAGES_OF_OTHER_SITES, ids=str)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_a_page_of_another_site_is_refused(proxy, s3, method, headers):
    body = b"a=b" if method in ("POST", "PUT") else None
    for host in ("localhost:8080", "127.0.0.1:8080"):
        response = proxy.request("/s3/bucket/key", method, headers={"Host": host, **headers}, body=body)
        assert response.status == 403
    assert not s3.received


@pytest.mark.parametrize("lines", [("cross-site", "none"), ("none", "Cross-Site"), ("cross-site", "cross-site")])
def test_of_several_lines_one_of_another_site_counts(proxy, s3, lines):
    head = raw.http1_head("GET /s3/bucket/key HTTP/1.1", *(f"Sec-Fetch-Site: {line}" for line in lines))
    answer = raw.http1(proxy.port, head)

    assert raw.statuses(answer) == [403]
    assert not s3.received


@pytest.mark.parametrize("headers", OWN_PAGES_AND_PROGRAMS, ids=str)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_own_pages_and_programs_are_served(proxy, s3, method, headers):
    body = b"a=b" if method == "POST" else None
    response = proxy.request("/s3/bucket/key", method, headers={"Host": "localhost:8080", **headers}, body=body)

    assert response.status == 200, s3.last.refusal


@pytest.mark.parametrize(
    "headers",
    [
        [b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Site: cross-site"],
        [b"Origin: http://localhost", b"Origin: https://evil.example"],
        [b"Origin: https://evil.example", b"Upgrade: websocket", b"Connection: upgrade"],
    ],
)
def test_a_header_sent_twice_and_a_websocket_are_refused_too(proxy, s3, headers):
    head = raw.http1_head("GET /s3/bucket/key HTTP/1.1", *headers)

    assert raw.statuses(raw.http1(proxy.port, head)) == [403]
    assert not s3.received


@pytest.mark.parametrize(("headers", "status"), [([(b"sec-fetch-site", b"cross-site")], 403), ([], 200)])
def test_http2_is_no_way_around(proxy, s3, headers, status):
    assert raw.http2(proxy.port, b"/s3/bucket/key", headers, authority=b"localhost:8080") == status
