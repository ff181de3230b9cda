"""Where the upstream's clock and the proxy's differ, the upstream's counts."""

import http.client
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from conftest import TEMPORARY_KEY, api_route, policy, s3_route
from harness.upstream import Answer, Upstream


@pytest.fixture
def skewed(api_verifier) -> Iterator[Upstream]:
    """An upstream whose clock is an hour ahead, until a test says otherwise."""
    with Upstream(replace(api_verifier, clock_offset=timedelta(hours=1))) as upstream:
        yield upstream


@contextmanager
def connection(proxy) -> Iterator[http.client.HTTPConnection]:
    """A connection that is kept alive, and so stays with one worker of the proxy: each learns by itself."""
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)) as kept:
        yield kept


def status(kept: http.client.HTTPConnection, path: str, method: str = "GET", body: bytes | None = None) -> int:
    kept.request(method, path, body)
    response = kept.getresponse()
    response.read()
    return response.status


def skew_metric(proxy, upstream: Upstream) -> int:
    return proxy.envoy.stat(f"wasmcustom.sigv4.clock_skew_seconds;host=127.0.0.1:{upstream.port}")


@pytest.mark.parametrize("hours", [1, -1, 23, -23])
@pytest.mark.parametrize(
    "signing", [{}, {"location": "query"}, {"algorithm": "sigv4a"}], ids=["header", "query", "v4a"]
)
def test_after_a_refusal_requests_are_signed_by_the_upstreams_clock(start_proxy, skewed, hours, signing):
    skewed.verifier = replace(skewed.verifier, clock_offset=timedelta(hours=hours))
    proxy = start_proxy(policy({"/api": api_route(skewed, signing=signing)}))
    proxy.push(TEMPORARY_KEY, hours=30)

    with connection(proxy) as kept:
        assert status(kept, "/api") == 403
        assert "15 minutes off" in skewed.last.refusal or "expired" in skewed.last.refusal
        assert status(kept, "/api") == 200, skewed.last.refusal
        assert status(kept, "/api", "POST", b"order") == 200, skewed.last.refusal

    assert abs(skew_metric(proxy, skewed) - abs(hours) * 3600) <= 2
    assert f"the clock of 127.0.0.1:{skewed.port}" in proxy.envoy.log


def test_other_hosts_keep_their_own_clock(start_proxy, skewed, api):
    proxy = start_proxy(policy({"/skewed": api_route(skewed), "/api": api_route(api)}))
    proxy.push(TEMPORARY_KEY)

    with connection(proxy) as kept:
        assert [status(kept, path) for path in ("/skewed", "/skewed", "/api", "/skewed")] == [403, 200, 200, 200]

    assert skew_metric(proxy, api) == 0


def test_a_clock_that_is_put_right_is_followed_back(start_proxy, skewed):
    proxy = start_proxy(policy({"/api": api_route(skewed)}))
    proxy.push(TEMPORARY_KEY)

    with connection(proxy) as kept:
        assert [status(kept, "/api"), status(kept, "/api")] == [403, 200]
        skewed.verifier = replace(skewed.verifier, clock_offset=timedelta())
        assert [status(kept, "/api"), status(kept, "/api")] == [403, 200]

    assert skew_metric(proxy, skewed) == 0


@pytest.mark.parametrize("hours", [25, -25, 24 * 365])
def test_a_clock_more_than_a_day_off_is_not_followed(start_proxy, skewed, hours):
    skewed.verifier = replace(skewed.verifier, clock_offset=timedelta(hours=hours))
    proxy = start_proxy(policy({"/api": api_route(skewed)}))
    proxy.push(TEMPORARY_KEY)

    with connection(proxy) as kept:
        assert [status(kept, "/api") for _ in range(3)] == [403, 403, 403]

    assert skew_metric(proxy, skewed) == 0


def test_credentials_are_still_held_by_the_proxys_own_clock(start_proxy, skewed):
    proxy = start_proxy(policy({"/api": api_route(skewed)}, credentialsWaitMs=0))
    proxy.push(TEMPORARY_KEY, minutes=10)

    with connection(proxy) as kept:
        # By the upstream's clock they have expired; that is for the upstream to say.
        assert [status(kept, "/api"), status(kept, "/api")] == [403, 200]


@pytest.mark.parametrize(
    "date", ["tomorrow", "", "Tue, 24 Nov 2026 25:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "\udcff", "0" * 5000]
)
def test_a_date_that_is_none_does_no_harm(proxy_of_s3, s3, date):
    s3.answer = Answer(403, [("date", date.encode("utf-8", "surrogateescape"))], [b"refused"])

    with connection(proxy_of_s3) as kept:
        assert [status(kept, "/s3/bucket") for _ in range(2)] == [403, 403]
        s3.reset()
        assert status(kept, "/s3/bucket") == 200, s3.last.refusal


def test_nothing_is_learned_from_an_answer_that_is_no_refusal(proxy_of_s3, s3):
    in_an_hour = "Fri, 01 Jan 2100 00:00:00 GMT"
    s3.answer = Answer(200, [("date", in_an_hour)], [b""])

    with connection(proxy_of_s3) as kept:
        assert status(kept, "/s3/bucket") == 200
        s3.reset()
        assert status(kept, "/s3/bucket") == 200, s3.last.refusal


@pytest.fixture(scope="module")
def proxy_of_s3(start_shared_proxy, _s3):
    proxy = start_shared_proxy(policy({"/s3": s3_route(_s3)}))
    proxy.push(TEMPORARY_KEY)
    return proxy


def test_the_rules_for_response_headers_hold_for_refusals(start_proxy, s3):
    proxy = start_proxy(policy({"/s3": s3_route(s3, responseHeaders={"remove": ["x-secret"]})}))
    proxy.push(TEMPORARY_KEY)
    s3.answer = Answer(403, [("x-secret", "1"), ("x-open", "1"), ("date", "tomorrow")], [b"refused"])

    answer = proxy.request("/s3/bucket")

    assert (answer.status, answer.headers.get("x-open"), answer.headers.get("x-secret")) == (403, "1", None)
