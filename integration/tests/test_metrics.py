"""What an operator sees of the filter: Prometheus counters by route and outcome, and the route in the access log."""

import json
import re
from collections import Counter

import pytest

from conftest import TEMPORARY_KEY, api_route
from harness.process import wait_until

ROLE_ARN = "arn:aws:iam::123456789012:role/orders-reader"
REQUESTS = "envoy_wasmcustom_sigv4_requests"


@pytest.fixture
def proxy(start_proxy, api):
    routes = {
        "/api": api_route(api),
        "/api/special": api_route(api),
        "/strict": api_route(api, allowUnauthenticatedRequests=False),
        "/role": api_route(api, roleArn=ROLE_ARN),
        "/host": {"hosts": ["*.amazonaws.com"]},
        "/with.dots;and=signs": api_route(api),
    }
    proxy = start_proxy({"routes": routes})
    proxy.push(TEMPORARY_KEY)
    # Without this, what is counted would hang on how soon each worker sees the push.
    wait_until(lambda: proxy.request("/api/special").status == 200, "the push to be seen")
    return proxy


def counts(proxy) -> Counter:
    """The requests that the filter has counted, by route and outcome."""
    found = Counter()
    for line in proxy.envoy.admin("/stats/prometheus").splitlines():
        if line.startswith(REQUESTS + "{"):
            labels, value = re.fullmatch(r".*?\{(.*)\} (\d+)", line).groups()
            pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            assert set(pairs) == {"route", "outcome"}, line
            found[pairs["route"], pairs["outcome"]] = int(value)
    return found


def counted(proxy, *requests) -> Counter:
    """What the requests add to the counters."""
    before = counts(proxy)
    for request in requests:
        proxy.request(*request) if isinstance(request, tuple) else proxy.request(request)
    return counts(proxy) - before


def test_signed_requests_are_counted_by_route(proxy, api):
    requests = ["/api", "/api/a?x=1", "/api/b", "/api/special/a", ("/api", "POST")]

    assert counted(proxy, *requests) == {("/api", "Signed"): 4, ("/api/special", "Signed"): 1}


def test_the_line_is_what_a_dashboard_asks_for(proxy, api):
    proxy.request("/api")

    lines = proxy.envoy.admin("/stats/prometheus").splitlines()
    assert f"# TYPE {REQUESTS} counter" in lines
    assert any(
        line.startswith(REQUESTS + "{") and 'route="/api"' in line and 'outcome="Signed"' in line for line in lines
    )


@pytest.mark.parametrize(
    ("path", "route", "code"),
    [
        ("/strict/a", "/strict", "Unauthenticated"),
        ("/role", "/role", "NoCredentials"),
        ("/elsewhere", "none", "NoRoute"),
        ("/api/../a", "none", "InvalidPath"),
    ],
)
def test_refusals_are_counted_by_their_code(proxy, path, route, code):
    assert counted(proxy, path, path) == {(route, code): 2}


def test_a_refusal_to_sign_is_counted(proxy, api):
    proxy.request("/host/a", headers={"Host": "unheard-of.amazonaws.com"})

    assert counts(proxy)["/host", "SigningFailed"] == 1


def test_a_body_that_is_too_large_is_counted_once_or_left_to_envoys_own_counters(proxy, api):
    assert proxy.request("/api", "POST", body=bytes(17 << 20)).status == 413

    assert counts(proxy)["/api", "Signed"] == 0


def test_a_route_with_odd_characters_keeps_the_other_labels_right(proxy, api):
    added = counted(proxy, "/with.dots;and=signs")

    assert [outcome for _, outcome in added] == ["Signed"]
    [(route, _)] = added
    assert route.startswith("/with")


def test_a_client_can_not_add_metrics(proxy, api):
    proxy.request("/api")
    before = len(counts(proxy))
    for number in range(30):
        proxy.request(f"/api/{number};route=x;outcome=y", headers={"Host": f"h{number}.example"})
        proxy.request(f"/elsewhere/{number};route=x")

    assert len(counts(proxy)) <= before + 1  # NoRoute


@pytest.mark.parametrize(
    ("path", "route", "status"),
    [
        ("/api/a", "/api", 200),
        ("/api/special", "/api/special", 200),
        ("/strict", "/strict", 401),
        ("/elsewhere/b", None, 404),
    ],
)
def test_the_access_log_names_the_route(proxy, api, path, route, status):
    def lines() -> list[dict]:
        entries = [json.loads(line) for line in proxy.envoy.log.splitlines() if line.startswith("{")]
        return [entry for entry in entries if entry["status"] == status and entry["route"] == route]

    # Those of the fixture's requests may still be on their way.
    earlier = 0 if path != "/api/special" else len(lines())
    proxy.request(path)

    wait_until(lambda: len(lines()) > earlier, f"an access log line of {route}", timeout=15)
