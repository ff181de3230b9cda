"""If the upstream's clock and the proxy's differ, the upstream's counts."""

import http.client
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, policy, s3_route
from integration.harness.upstream import Answer, Upstream
from integration.stack.aws_servers import REGION
from integration.stack.proxy import StockConfiguration

REQUEST_ID = ("x-amzn-requestid", "0b1c6f7e-8f3f-4f0e-9f6e-2f6d6a1f7f52")
# Workers read their shared data once a second.
SHARED_WITHIN = 1.3


@pytest.fixture
def skewed(api_verifier) -> Iterator[Upstream]:
    """Returns an upstream whose clock is an hour ahead, unless a test changes it."""
    with Upstream(replace(api_verifier, clock_offset=timedelta(hours=1))) as upstream:
        yield upstream


@contextmanager
def connection(proxy) -> Iterator[http.client.HTTPConnection]:
    """Opens a connection that is kept alive, and so stays with one worker of the proxy."""
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)) as kept:
        yield kept


@contextmanager
def connections(proxy) -> Iterator[list[http.client.HTTPConnection]]:
    """Opens enough connections for each worker of the proxy to have some of them."""
    with ExitStack() as stack:
        yield [stack.enter_context(connection(proxy)) for _ in range(32)]


def status(
    kept: http.client.HTTPConnection, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> int:
    kept.request(method, path, body, headers)
    response = kept.getresponse()
    response.read()
    return response.status


def date_in(offset: timedelta) -> tuple[str, str]:
    return "date", format_datetime(datetime.now(UTC) + offset, usegmt=True)


def refuse(upstream: Upstream, *headers: tuple[str, str | bytes], status_code: int = 403) -> None:
    """Makes the upstream refuse what it would accept, until it is reset."""
    upstream.answer = Answer(status_code, headers, [b"refused"])


def assert_nothing_is_learned(proxy, upstream: Upstream) -> None:
    """Gets a response of the upstream, and then another that depends on when the request was signed."""
    with connection(proxy) as kept:
        first = status(kept, "/s3/bucket")
        assert first == (upstream.answer.status if upstream.answer else 200)
        upstream.reset()
        assert status(kept, "/s3/bucket") == 200, upstream.last.refusal
        signed = datetime.strptime(upstream.last.request.header("x-amz-date"), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        assert abs(datetime.now(UTC) - signed) < timedelta(seconds=30)
    assert skew_metric(proxy, upstream) == 0


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
        # By the upstream's clock they have expired; the upstream must report that.
        assert [status(kept, "/api"), status(kept, "/api")] == [403, 200]


@pytest.mark.parametrize(
    "date",
    [
        "tomorrow",
        "",
        "Tue, 24 Nov 2026 25:00:00 GMT",
        "Sun, 01 Jan 1950 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "\udcff",
        "0" * 5000,
    ],
)
def test_a_date_that_is_none_does_no_harm(proxy_of_s3, s3, date):
    refuse(s3, ("date", date.encode("utf-8", "surrogateescape")), REQUEST_ID)

    assert_nothing_is_learned(proxy_of_s3, s3)


def test_nothing_is_learned_from_an_answer_that_is_no_refusal(proxy_of_s3, s3):
    s3.answer = Answer(200, [date_in(timedelta(hours=1)), REQUEST_ID], [b""])

    with connection(proxy_of_s3) as kept:
        assert status(kept, "/s3/bucket") == 200
    assert_nothing_is_learned(proxy_of_s3, s3)


@pytest.mark.parametrize(
    "header",
    [
        ("age", "600"),
        ("Age", "0"),
        ("x-cache", "Hit from cloudfront"),
        ("X-Cache", "RefreshHit from cloudfront"),
        ("x-cache", "MISS, HIT"),
        ("x-cache", "TCP_HIT from edge.example"),
        ("cache-status", "edge; hit"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("status_code", [400, 401, 403])
def test_nothing_is_learned_from_a_refusal_out_of_a_cache(proxy_of_s3, s3, header, status_code):
    refuse(s3, date_in(timedelta(minutes=-10)), REQUEST_ID, header, status_code=status_code)

    assert_nothing_is_learned(proxy_of_s3, s3)


@pytest.mark.parametrize("header", [("x-request-id", "1"), ("x-amz-cf-id", "1"), ("x-amzn-requestid", "")])
def test_nothing_is_learned_from_a_refusal_without_a_request_id_of_aws(proxy_of_s3, s3, header):
    refuse(s3, date_in(timedelta(hours=1)), header)

    assert_nothing_is_learned(proxy_of_s3, s3)


@pytest.mark.parametrize(
    "header",
    [("x-cache", "Error from cloudfront"), ("x-cache", "Miss from cloudfront"), ("via", "1.1 a.cloudfront.net")],
    ids=" ".join,
)
def test_a_refusal_that_a_cache_passed_on_counts(start_proxy, s3, header):
    proxy = start_proxy(policy({"/s3": s3_route(s3)}))
    proxy.push(TEMPORARY_KEY)
    refuse(s3, date_in(timedelta(hours=1)), ("x-amz-request-id", "4442587FB7D0A2F9"), header)

    with connection(proxy) as kept:
        assert status(kept, "/s3/bucket") == 403
        s3.reset()
        assert status(kept, "/s3/bucket") == 403
        assert "15 minutes off" in s3.last.refusal


def test_a_refusal_out_of_a_cache_does_not_take_back_what_was_learned(start_proxy, skewed):
    proxy = start_proxy(policy({"/api": api_route(skewed)}))
    proxy.push(TEMPORARY_KEY)

    with connection(proxy) as kept:
        assert [status(kept, "/api"), status(kept, "/api")] == [403, 200]
        refuse(skewed, date_in(timedelta()), REQUEST_ID, ("age", "3600"))
        assert status(kept, "/api") == 403
        skewed.reset()
        assert status(kept, "/api") == 200, skewed.last.refusal


def test_what_one_worker_learns_the_others_use_within_a_second_or_two(start_proxy, skewed):
    proxy = start_proxy(policy({"/api": api_route(skewed)}))
    proxy.push(TEMPORARY_KEY)

    with connections(proxy) as kept:
        assert [status(kept[0], "/api"), status(kept[0], "/api")] == [403, 200]
        time.sleep(SHARED_WITHIN)
        assert [status(each, "/api") for each in kept] == [200] * len(kept)

        skewed.verifier = replace(skewed.verifier, clock_offset=timedelta())
        assert [status(kept[0], "/api"), status(kept[0], "/api")] == [403, 200]
        time.sleep(SHARED_WITHIN)
        assert [status(each, "/api") for each in kept] == [200] * len(kept)

    assert skew_metric(proxy, skewed) == 0


def test_a_restart_forgets(start_proxy, skewed):
    proxy = start_proxy(policy({"/api": api_route(skewed)}))
    for _ in range(2):
        proxy.push(TEMPORARY_KEY)
        with connection(proxy) as kept:
            assert [status(kept, "/api"), status(kept, "/api")] == [403, 200]
        proxy.envoy.restart()


def test_hosts_that_clients_choose_share_one_gauge(start_proxy, skewed):
    configuration = StockConfiguration.leading_https_to(skewed.port)
    route = {"prefix": "/", "hosts": ["*.amazonaws.com"], "service": "execute-api", "region": REGION}
    proxy = start_proxy(policy([route]), configuration)
    proxy.push(TEMPORARY_KEY)

    with connection(proxy) as kept:
        hosts = [f"b{number}.execute-api.{REGION}.amazonaws.com" for number in range(200)]
        # Few enough that all their responses are sampled.
        for host in hosts[:12]:
            assert [status(kept, "/", Host=spelling) for spelling in (host, host.upper())] == [403, 200], host
        for host in hosts[12:]:
            status(kept, "/", Host=host)

    gauges = [line for line in proxy.envoy.admin("/stats").splitlines() if "clock_skew" in line]
    assert len(gauges) == 1, gauges
    name, _, value = gauges[0].partition(": ")
    assert name == "wasmcustom.sigv4.clock_skew_seconds;host=*.amazonaws.com"
    assert abs(int(value) - 3600) <= 2


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
