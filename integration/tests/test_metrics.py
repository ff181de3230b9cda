"""The operator's view of the filter: metrics for Prometheus, and the access log."""

import json
import re
from collections import Counter, deque
from itertools import pairwise

import pytest
import yaml

from integration.harness.counters import REQUESTS, counts
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route
from integration.stack.process import REPOSITORY, wait_until

ROLE_ARN = "arn:aws:iam::123456789012:role/orders-reader"


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _api):
    routes = {
        "/api": api_route(_api),
        "/api/special": api_route(_api),
        "/warm": api_route(_api),
        "/strict": api_route(_api, allowUnauthenticatedRequests=False),
        "/role": api_route(_api, roleArn=ROLE_ARN),
        "/host": {"hosts": ["*.amazonaws.com"]},
        "/with.dots;and=signs": api_route(_api),
    }
    proxy = start_shared_proxy({"routes": routes, "accessLog": True})
    proxy.push(TEMPORARY_KEY)
    answers = deque(maxlen=20)

    def every_worker_signs() -> bool:
        answers.append(proxy.request("/warm").status)
        return list(answers) == [200] * 20

    wait_until(every_worker_signs, "the push to be seen", every=0)
    return proxy


def counted(proxy, *requests) -> Counter:
    """Returns the requests' increments of the counters."""
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

    assert counts(proxy)["/host", "UnsupportedRequest"] == 1


def test_a_body_that_is_too_large_is_not_counted_as_signed(proxy, api):
    before = counts(proxy)
    assert proxy.request("/api", "POST", body=bytes(17 << 20)).status == 413

    assert counts(proxy)["/api", "Signed"] == before["/api", "Signed"]


def test_a_route_with_odd_characters_keeps_the_other_labels_right(proxy, api):
    [(route, outcome)] = counted(proxy, "/with.dots;and=signs")

    assert outcome == "Signed"
    assert route.startswith("/with.dots")


def test_a_client_can_not_add_metrics(proxy, api):
    proxy.request("/api")
    before = len(counts(proxy))
    for number in range(30):
        proxy.request(f"/api/{number};route=x;outcome=y", headers={"Host": f"h{number}.example"})
        proxy.request(f"/elsewhere/{number};route=x")

    assert len(counts(proxy)) <= before + 1  # NoRoute


def samples(proxy, name: str) -> dict[tuple[str, ...], float]:
    """Returns the values of a metric, by those of its labels."""
    lines = [line for line in proxy.envoy.admin("/stats/prometheus").splitlines() if line.startswith(name + "{")]
    return {tuple(re.findall(r'="([^"]*)"', line)): float(line.rpartition(" ")[2]) for line in lines}


def test_one_request_of_some_is_timed(proxy, api):
    def timed() -> float:
        return samples(proxy, "sigv4_signing_microseconds_count").get(("/api", "Signed"), 0)

    before = timed()
    for _ in range(400):
        proxy.request("/api")

    # Envoy adds to its histograms every five seconds.
    wait_until(lambda: timed() > before, "the histogram")
    assert timed() - before < 400
    took = samples(proxy, "sigv4_signing_microseconds_sum")["/api", "Signed"]
    assert 1 <= took / timed() < 100_000


def test_signing_is_timed_in_buckets_that_tell_its_quantiles_apart(proxy):
    def buckets() -> set[float]:
        return {float(labels[-1]) for labels in samples(proxy, "sigv4_signing_microseconds_bucket")}

    assert proxy.request("/api").status == 200
    wait_until(buckets, "the histogram")
    edges = sorted(edge for edge in buckets() if 4 <= edge <= 250)
    assert (edges[0], edges[-1]) == (4, 250)
    assert all(above <= 2 * below for below, above in pairwise(edges))


def test_the_dashboard_reads_the_same_statistics_as_the_stock_configuration():
    stock, compose = (
        yaml.safe_load((REPOSITORY / path).read_text())["stats_config"]
        for path in ("envoy/envoy.yaml", "envoy/compose/envoy.yaml")
    )
    assert stock == compose


def test_every_request_that_is_held_is_timed(proxy, api):
    def held() -> float:
        return samples(proxy, "sigv4_held_milliseconds_count").get(("/api/special", "Signed"), 0)

    before = held()
    for _ in range(3):
        proxy.request("/api/special", "POST", body=b"to be hashed")

    wait_until(lambda: held() == before + 3, "the histogram")


def test_the_remaining_life_of_each_identity_is_shown(proxy):
    lives = samples(proxy, "sigv4_credentials_remaining_seconds")

    [role] = [identity for (identity,) in lives if identity.startswith("orders-reader-")]
    assert lives[(role,)] == 0, "none are held"
    assert 0 < lives[("default",)] <= 3600


def test_credentials_that_never_expire_alarm_nobody(start_proxy, api):
    proxy = start_proxy({"routes": {"/api": api_route(api)}})
    wait_until(lambda: "default" in proxy.identities(), "the policy's wants")
    document = b'{"Version": 1, "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "secret"}'
    assert proxy.intake("/v1/identities/default/credentials", "PUT", document).status == 204

    life = "sigv4_credentials_remaining_seconds"
    wait_until(lambda: samples(proxy, life).get(("default",)) == 2**32 - 1, "the gauge")


@pytest.mark.parametrize(
    ("path", "described", "status"),
    [
        ("/api/logged", "outcome=Signed route=/api identity=default signing_name=execute-api", 200),
        ("/api/special/logged", "outcome=Signed route=/api/special identity=default signing_name=execute-api", 200),
        ("/strict/logged", "outcome=Unauthenticated route=/strict identity=default", 401),
        ("/elsewhere/logged", "outcome=NoRoute", 404),
    ],
)
def test_the_access_log_describes_a_request(proxy, api, path, described, status):
    # The path is logged as it was rewritten, and without its query, which may be a presigned one.
    segment = "/sent-to" + path.replace("/", "-")
    proxy.request(f"{path}{segment}?X-Amz-Signature=hush")

    def lines() -> list[dict]:
        entries = [json.loads(line) for line in proxy.envoy.log.splitlines() if line.startswith("{")]
        return [entry for entry in entries if entry["path"].endswith(segment)]

    wait_until(lambda: len(lines()) == 1, "the access log")
    [line] = lines()
    assert (line["sigv4"], line["status"]) == (described, status)
