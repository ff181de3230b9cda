"""Until the first credentials arrive, requests wait within the policy's bound, and resume on the push."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from integration.harness import aws_chunked
from integration.harness.keys import STATIC_KEY, TEMPORARY_KEY
from integration.harness.policies import api_route, s3_route
from integration.stack.aws_servers import REGION
from integration.stack.process import wait_until

ROLE_ARN = "arn:aws:iam::123456789012:role/orders-reader"
LONG_MS, SHORT_MS = 20_000, 700


def cold_policy(api, s3, wait_ms: int) -> dict:
    routes = {
        "/api": api_route(api),
        "/unsigned": s3_route(s3, payload="unsigned"),
        "/streamed": api_route(api, payload="unsigned"),
        "/role": api_route(api, roleArn=ROLE_ARN),
    }
    return {"routes": routes, "credentialsWaitMs": wait_ms}


@pytest.fixture
def patient_proxy(start_proxy, api, s3):
    return start_proxy(cold_policy(api, s3, LONG_MS))


@pytest.fixture(scope="module")
def hasty_proxy(start_shared_proxy, _api, _s3):
    return start_shared_proxy(cold_policy(_api, _s3, SHORT_MS))


def timed(request, *arguments, **options):
    """Returns the response, and the time at which it arrived."""
    response = request(*arguments, **options)
    return response, time.monotonic()


def wait_for_streams(proxy, count: int) -> None:
    wait_until(lambda: proxy.envoy.stat("http.traffic.downstream_rq_active") == count, f"{count} requests to wait")


REQUESTS = [
    ("/api/a", {}),
    ("/api/small", {"method": "POST", "body": b"x"}),
    ("/api/large", {"method": "PUT", "body": bytes(range(256)) * 8000}),
    ("/api/http2", {"http2": True}),
    ("/api/http2/body", {"method": "POST", "body": b"y" * 300_000, "http2": True}),
    ("/unsigned/bucket/key", {"method": "PUT", "body": b"z" * 30_000}),
]


def test_all_requests_wait_for_the_first_push_and_go_on_at_once(patient_proxy, api, s3):
    with ThreadPoolExecutor(3 * len(REQUESTS)) as pool:
        waiting = [pool.submit(timed, patient_proxy.request, path, **options) for path, options in REQUESTS * 3]
        wait_for_streams(patient_proxy, len(waiting))
        time.sleep(1)
        assert not api.received
        assert not s3.received
        patient_proxy.push(TEMPORARY_KEY)
        pushed = time.monotonic()
        answers = [request.result() for request in waiting]

    assert [response.status for response, _ in answers] == [200] * len(answers)
    assert max(answered for _, answered in answers) - pushed < 1.0
    for (_, options), (response, _) in zip(REQUESTS * 3, answers, strict=True):
        assert response.json["bodyLength"] == len(options.get("body", b""))
        assert response.json["verdict"]["access_key_id"] == TEMPORARY_KEY.access_key


@pytest.mark.parametrize(
    "options",
    [{}, {"headers": {"transfer-encoding": "chunked"}}, {"http2": True}],
    ids=["with a length", "without a length", "over HTTP/2"],
)
def test_a_body_that_streams_waits_for_credentials_however_large_it_is(patient_proxy, api, options):
    body = bytes(range(256)) * (64 << 12)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(patient_proxy.request, "/streamed/orders", method="PUT", body=body, **options)
        wait_for_streams(patient_proxy, 1)
        time.sleep(1)
        assert not waiting.done()
        assert not api.received
        # The stream's buffer and the connection's, of 16 MiB each; the rest waits at the client.
        assert patient_proxy.envoy.stat("http.traffic.downstream_cx_rx_bytes_total") < 36 << 20
        patient_proxy.push(TEMPORARY_KEY)
        response = waiting.result()

    assert response.status == 200, response.text
    assert response.json["bodyLength"] == len(body)


def test_a_chunked_upload_that_waited_for_credentials_is_signed_anew(patient_proxy, s3):
    data = bytes(range(256)) * (4 << 12)
    path = "/unsigned/bucket/key"
    upload = aws_chunked.upload(
        patient_proxy.url + path, aws_chunked.SIGNED, data, STATIC_KEY, REGION, chunk_size=1 << 20
    )
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(patient_proxy.request, path, method="PUT", headers=upload.headers, body=upload.body)
        wait_for_streams(patient_proxy, 1)
        time.sleep(0.3)
        patient_proxy.push(TEMPORARY_KEY)
        response = waiting.result()

    assert response.status == 200, response.text
    assert s3.last.accepted
    assert aws_chunked.ChunkedBody.read(s3.last.request.body).data == data


def test_a_chunked_upload_that_waited_takes_no_more_memory_than_one_that_did_not(start_proxy, api, s3):
    def growth(waits: bool) -> int:
        """Returns by how much Envoy grew."""
        proxy = start_proxy(cold_policy(api, s3, LONG_MS), concurrency=1)
        wait_until(lambda: "default" in proxy.identities(), "the intake to answer")
        if not waits:
            proxy.push(TEMPORARY_KEY)
        before = proxy.envoy.used_bytes()
        data = bytes(range(256)) * (30 << 12)
        path = "/unsigned/bucket/key"
        upload = aws_chunked.upload(proxy.url + path, aws_chunked.SIGNED, data, STATIC_KEY, REGION, chunk_size=1 << 16)
        with ThreadPoolExecutor(1) as pool:
            request = pool.submit(proxy.request, path, method="PUT", headers=upload.headers, body=upload.body)
            if waits:
                # As much as Envoy buffers; the rest waits with the client.
                received = "http.traffic.downstream_cx_rx_bytes_total"
                wait_until(lambda: proxy.envoy.stat(received) > 15 << 20, "the body to wait")
                assert not request.done()
                proxy.push(TEMPORARY_KEY)
            response = request.result()
        assert response.status == 200, response.text
        assert s3.last.accepted
        assert aws_chunked.ChunkedBody.read(s3.last.request.body).data == data
        return proxy.envoy.used_bytes() - before

    without_waiting, waiting = growth(False), growth(True)
    assert waiting - without_waiting < 8 << 20, (waiting, without_waiting)


def test_a_push_for_another_identity_lets_nobody_go_on(patient_proxy, api):
    [role] = patient_proxy_roles(patient_proxy)
    with ThreadPoolExecutor(2) as pool:
        default = pool.submit(patient_proxy.request, "/api")
        wait_for_streams(patient_proxy, 1)
        patient_proxy.push(TEMPORARY_KEY, role)
        assert patient_proxy.request("/role").status == 200
        time.sleep(0.5)
        assert not default.done()
        patient_proxy.push(TEMPORARY_KEY)
        assert default.result().status == 200


def patient_proxy_roles(proxy) -> list[str]:
    wait_until(lambda: len(proxy.identities()) == 2, "both identities to be wanted")
    return [identity for identity, entry in proxy.identities().items() if entry.get("roleArn") == ROLE_ARN]


def test_expired_credentials_end_no_wait(patient_proxy, api):
    with ThreadPoolExecutor(1) as pool:
        patient_proxy.push(TEMPORARY_KEY, seconds=1)
        time.sleep(1.5)
        waiting = pool.submit(patient_proxy.request, "/api")
        wait_for_streams(patient_proxy, 1)
        time.sleep(0.5)
        assert not waiting.done()
        patient_proxy.push(TEMPORARY_KEY)
        assert waiting.result().status == 200


def test_a_client_that_gives_up_does_no_harm_to_those_who_wait_on(patient_proxy, api):
    with ThreadPoolExecutor(4) as pool:
        for options in ({}, {"method": "POST", "body": b"x" * 5000}, {"http2": True}):
            with pytest.raises(RuntimeError, match="curl ended with 28"):
                patient_proxy.request("/api", timeout=0.3, **options)
        waiting = pool.submit(patient_proxy.request, "/api/on")
        wait_for_streams(patient_proxy, 1)
        patient_proxy.push(TEMPORARY_KEY)
        assert waiting.result().status == 200

    assert [received.request.target for received in api.received] == ["/on"]
    assert "[critical]" not in patient_proxy.envoy.log


@pytest.mark.parametrize(("path", "options"), REQUESTS, ids=[path for path, _ in REQUESTS])
def test_after_the_bound_the_wait_ends_with_a_refusal(hasty_proxy, api, s3, path, options):
    began = time.monotonic()
    response, answered = timed(hasty_proxy.request, path, **options)

    assert (response.status, response.json["error"]["code"]) == (503, "NoCredentials")
    assert int(response.headers["retry-after"]) > 0
    assert SHORT_MS / 1000 <= answered - began < SHORT_MS / 1000 + 1
    assert not api.received
    assert not s3.received


def test_what_is_refused_anyway_does_not_wait(patient_proxy, api):
    began = time.monotonic()

    assert patient_proxy.request("/elsewhere").status == 404
    assert patient_proxy.request("/api/../x").status == 400
    assert time.monotonic() - began < 2


def test_where_credentials_are_taken_away_requests_wait_again(start_proxy, api, s3):
    proxy = start_proxy(cold_policy(api, s3, SHORT_MS))
    proxy.push(TEMPORARY_KEY)
    assert proxy.request("/api").status == 200
    proxy.revoke()
    wait_until(lambda: proxy.request("/api").status == 503, "the credentials to be gone")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(proxy.request, "/api")
        time.sleep(0.1)
        proxy.push(STATIC_KEY)
        assert waiting.result().status == 200
