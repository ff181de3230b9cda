"""A route's payload mode decides how the body is signed, and when it is sent."""

import hashlib
import json
import socket
import subprocess
import time

import pytest

from integration.harness import raw
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, policy, s3_route
from integration.harness.sdk import sdk_client
from integration.harness.upstream import Answer, Upstream
from integration.harness.verifier import AnyScope
from integration.stack.aws_servers import REGION
from integration.stack.client import http2
from integration.stack.process import wait_until
from integration.stack.proxy import StockConfiguration


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _api, _s3):
    routes = {
        "/signed": s3_route(_s3, payload="signed"),
        "/unsigned": s3_route(_s3, payload="unsigned"),
        "/client": s3_route(_s3, payload="client"),
        "/auto": s3_route(_s3),
        "/api": api_route(_api),
        "/query": api_route(_api, signing={"location": "query"}),
    }
    proxy = start_shared_proxy(policy(routes))
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.mark.parametrize(
    ("route", "payload"), [("/signed", "signed"), ("/unsigned", "unsigned"), ("/client", "signed"), ("/auto", "signed")]
)
def test_the_mode_decides_what_is_signed(proxy, s3, route, payload):
    assert proxy.request(f"{route}/bucket/key", "PUT", body=b"object").status == 200, s3.last.refusal

    assert s3.last.verdict.payload == payload


def test_an_upload_to_s3_over_tls_is_left_unsigned_by_auto(start_proxy, authority, s3_verifier):
    configuration = StockConfiguration()
    configuration.trust(authority.certificate)
    with Upstream(s3_verifier, tls=authority.server_context("localhost")) as s3:
        proxy = start_proxy(policy({"/s3": s3_route(s3)}), configuration)
        proxy.push(TEMPORARY_KEY)

        assert proxy.request("/s3/bucket/key", "PUT", body=b"object").status == 200
        assert s3.last.verdict.payload == "unsigned"
        assert proxy.request("/s3/bucket/key").status == 200
        assert s3.last.verdict.payload == "signed"


def test_a_hash_that_the_client_gave_is_signed_for(proxy, s3):
    headers = {"X-Amz-Content-SHA256": hashlib.sha256(b"object").hexdigest()}

    assert proxy.request("/client/bucket/key", "PUT", headers=headers, body=b"object").status == 200
    assert s3.last.verdict.payload == "signed"


def test_a_false_hash_that_the_client_gave_is_for_the_upstream_to_refuse(proxy, s3):
    headers = {"X-Amz-Content-SHA256": hashlib.sha256(b"another").hexdigest()}

    assert proxy.request("/client/bucket/key", "PUT", headers=headers, body=b"object").status == 403
    assert s3.last.refusal == "X-Amz-Content-SHA256 is not the hash of the body"


def signed_hash(value: str, *others: str) -> dict:
    """Returns the headers of a client that signed its hash under a throw-away key, as S3's clients and AWS's SDK for
    JavaScript do."""
    names = ";".join(["host", *others, "x-amz-content-sha256", "x-amz-date"])
    credential = f"AKIDTHROWAWAY/20260101/{REGION}/dynamodb/aws4_request"
    authorization = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={'0' * 64}"
    return {"X-Amz-Content-SHA256": value, "Authorization": authorization, "X-Amz-Date": "20260101T000000Z"}


@pytest.mark.parametrize("route", ["/auto/b/k", "/api", "/query"])
def test_auto_takes_a_hash_that_the_client_signed_and_streams(proxy, api, s3, route):
    upstream, body = s3 if route == "/auto/b/k" else api, b"x" * 20_000
    headers = signed_hash(hashlib.sha256(body).hexdigest())
    lines = [f"{name}: {value}" for name, value in headers.items()]
    head = raw.http1_head(f"PUT {route} HTTP/1.1", "Content-Length: 20000", *lines)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as tcp:
        tcp.sendall(head + body[:5_000])
        wait_until(lambda: upstream.arrived == 5_000, "the first bytes to arrive", timeout=5)
        tcp.sendall(body[5_000:])
        assert tcp.recv(65536).startswith(b"HTTP/1.1 200"), upstream.last.refusal

    assert upstream.last.verdict.payload == "signed"


@pytest.mark.parametrize(
    ("route", "refusal"),
    [
        ("/auto/b/k", "X-Amz-Content-SHA256 is not the hash of the body"),
        ("/api", "the signature does not match the request"),
    ],
)
def test_a_false_hash_that_the_client_signed_is_refused_by_the_upstream(proxy, api, s3, route, refusal):
    headers = signed_hash(hashlib.sha256(b"another").hexdigest())
    upstream = api if route == "/api" else s3

    assert proxy.request(route, "PUT", headers=headers, body=b"object").status == 403
    assert upstream.last.refusal == refusal


@pytest.mark.parametrize("value", ["UNSIGNED-PAYLOAD", "no hash", "0" * 63])
def test_auto_never_takes_a_clients_word_that_the_body_need_not_be_signed(proxy, api, s3, value):
    for route, upstream in (("/auto/b/k", s3), ("/api", api)):
        assert proxy.request(route, "PUT", headers=signed_hash(value), body=b"object").status == 200
        assert upstream.last.verdict.payload == "signed"


@pytest.fixture(scope="module")
def small_proxy(start_shared_proxy, _api, _s3):
    """Returns a proxy that buffers at most 64 KiB."""
    configuration = StockConfiguration()
    configuration.listener("traffic")["per_connection_buffer_limit_bytes"] = 64 * 1024
    # Over HTTP/2, the stream's window bounds Envoy's buffer.
    window = {"initial_stream_window_size": 65536}
    configuration.http_connection_manager("traffic")["http2_protocol_options"] = window
    routes = {
        "/api": api_route(_api),
        "/signed": api_route(_api, payload="signed"),
        "/unsigned": api_route(_api, payload="unsigned"),
        "/s3": s3_route(_s3),
    }
    proxy = start_shared_proxy(policy(routes), configuration)
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.mark.parametrize("headers", [{}, {"Expect": ""}, {"Expect": "100-continue"}], ids=["", "no Expect", "Expect"])
@pytest.mark.parametrize("size", [70_000, 1_000_000, 20_000_000])
def test_a_body_that_outgrows_the_buffer_gets_413_and_is_not_sent(small_proxy, api, size, headers):
    response = small_proxy.request("/api/orders", "POST", headers=headers, body=b"x" * size, timeout=15)

    assert (response.status, response.headers["content-type"]) == (413, "application/json")
    error = response.json["error"]
    assert (error["code"], error["route"]) == ("PayloadTooLarge", "/api")
    assert "per_connection_buffer_limit_bytes" in error["message"]
    assert not api.received
    assert small_proxy.request("/api/orders", "POST", body=b"x" * 60_000).status == 200


def test_a_body_of_unknown_length_that_outgrows_the_buffer_gets_413(small_proxy, api):
    headers = {"Transfer-Encoding": "chunked"}
    response = small_proxy.request("/api", "POST", headers=headers, body=b"x" * 1_000_000, timeout=15)

    assert (response.status, response.json["error"]["code"]) == (413, "PayloadTooLarge")
    assert not api.received


def test_a_body_that_outgrows_the_buffer_of_an_http2_stream_gets_413(small_proxy, api):
    response = http2(small_proxy.port, "POST", "/api", body=b"x" * 2_000_000)

    assert (response.status, response.json["error"]["code"]) == (413, "PayloadTooLarge")
    assert not api.received


def test_a_body_that_streams_may_outgrow_the_buffer(small_proxy, api):
    assert small_proxy.request("/unsigned", "POST", body=b"x" * 20_000_000).status == 200
    assert len(api.last.request.body) == 20_000_000


def test_a_body_that_outgrows_the_buffer_streams_under_the_clients_hash(small_proxy, api):
    body = b"x" * 1_000_000
    headers = signed_hash(hashlib.sha256(body).hexdigest())

    assert small_proxy.request("/api", "POST", headers=headers, body=body).status == 200, api.last.refusal
    assert small_proxy.request("/signed", "POST", headers=headers, body=body).status == 413
    assert small_proxy.request("/api", "POST", headers=signed_hash("UNSIGNED-PAYLOAD"), body=body).status == 413


def test_boto3_uploads_to_s3_without_tls_what_outgrows_the_buffer(small_proxy, s3):
    s3.answer = Answer()
    sdk_client("s3", f"{small_proxy.url}/s3").put_object(Bucket="bucket", Key="key", Body=b"x" * 1_000_000)

    assert s3.last.verdict.payload == "signed"
    assert len(s3.last.request.body) == 1_000_000


LARGE = b"x" * 200_000

# The operations whose body AWS's SDKs don't sign.
UNSIGNED_OPERATIONS = {
    "ebs": lambda client: client.put_snapshot_block(
        SnapshotId="snap-1", BlockIndex=0, BlockData=LARGE, DataLength=len(LARGE), Checksum="a",
        ChecksumAlgorithm="SHA256",
    ),
    "lex-runtime": lambda client: client.post_content(
        botName="bot", botAlias="alias", userId="user", contentType="audio/l16; rate=16000", inputStream=LARGE
    ),
    "lexv2-runtime": lambda client: client.recognize_utterance(
        botId="BOTID12345", botAliasId="a", localeId="en_US", sessionId="session", requestContentType="audio/l16",
        inputStream=LARGE,
    ),
    "mediastore-data": lambda client: client.put_object(Path="a/b.mp4", Body=LARGE),
    "omics": lambda client: client.upload_read_set_part(
        sequenceStoreId="1234567890", uploadId="1234567890", partSource="SOURCE1", partNumber=1, payload=LARGE
    ),
    "s3": lambda client: client.write_get_object_response(RequestRoute="route", RequestToken="token", Body=LARGE),
}  # fmt: skip

# Their signing names.
SERVICES = {
    "ebs": "ebs",
    "lex-runtime": "lex",
    "lexv2-runtime": "lex",
    "mediastore-data": "mediastore",
    "omics": "omics",
    "s3": "s3-object-lambda",
}


@pytest.fixture(scope="module")
def unsigned_operations(start_shared_proxy, authority, keys):
    """Returns a proxy with a small buffer, and an upstream with TLS for all of their services."""
    configuration = StockConfiguration()
    configuration.trust(authority.certificate)
    configuration.listener("traffic")["per_connection_buffer_limit_bytes"] = 64 * 1024
    with Upstream(AnyScope(keys), tls=authority.server_context("localhost"), answer=Answer(parts=[b"{}"])) as upstream:
        target = upstream.url.replace("127.0.0.1", "localhost")
        routes = {
            f"/{name}": {"target": target, "service": service, "region": REGION} for name, service in SERVICES.items()
        }
        proxy = start_shared_proxy(policy(routes), configuration)
        proxy.push(TEMPORARY_KEY)
        yield proxy, upstream


@pytest.mark.parametrize("name", UNSIGNED_OPERATIONS)
def test_an_operation_with_an_unsigned_body_streams_under_auto(unsigned_operations, name):
    proxy, upstream = unsigned_operations
    upstream.reset()

    UNSIGNED_OPERATIONS[name](sdk_client(name, f"{proxy.url}/{name}", inject_host_prefix=False))

    # To an http:// endpoint, boto3 signs what goes to S3.
    payload = "signed" if name == "s3" else "unsigned"
    assert (upstream.last.verdict.service, upstream.last.verdict.payload) == (SERVICES[name], payload)
    assert upstream.last.request.body == LARGE


def test_other_operations_of_their_services_are_signed(unsigned_operations):
    proxy, upstream = unsigned_operations
    upstream.reset()

    assert proxy.request("/ebs/snapshots/completion/snap-1", "POST", body=b"{}").status == 200
    assert upstream.last.verdict.payload == "signed"


def test_a_filter_before_the_signer_that_changes_bodies_needs_payload_signed(start_proxy, api):
    configuration = StockConfiguration()
    filters = configuration.http_connection_manager("traffic")["http_filters"]
    code = "function envoy_on_request(handle) handle:body():setBytes('changed') end"
    lua = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
    place = [each["name"] for each in filters].index("sigv4")
    filters.insert(
        place, {"name": "lua", "typed_config": {"@type": lua, "default_source_code": {"inline_string": code}}}
    )
    proxy = start_proxy(policy({"/auto": api_route(api), "/signed": api_route(api, payload="signed")}), configuration)
    proxy.push(TEMPORARY_KEY)
    headers = signed_hash(hashlib.sha256(b"order").hexdigest())

    assert proxy.request("/auto", "POST", headers=headers, body=b"order").status == 403
    assert api.last.refusal == "the signature does not match the request"
    assert proxy.request("/signed", "POST", headers=headers, body=b"order").status == 200, api.last.refusal
    assert api.last.request.body == b"changed"


@pytest.mark.parametrize("route", ["/signed", "/unsigned", "/client", "/auto", "/api"])
def test_a_client_that_waits_for_100_continue_is_told_to_go_on(proxy, request, route):
    upstream = request.getfixturevalue("api" if route == "/api" else "s3")
    body = bytes(range(256)) * (2 << 12)

    # curl waits for ten seconds, longer than the request may take.
    headers, options = {"Expect": "100-continue"}, ["--expect100-timeout", "10"]
    response = proxy.request(f"{route}/b/k", "PUT", headers=headers, body=body, timeout=8, options=options)

    assert response.status == 200, upstream.last.refusal
    assert upstream.last.request.body == body


@pytest.mark.parametrize("claimed", ["hash", "UNSIGNED-PAYLOAD"])
def test_with_a_hash_of_the_client_the_body_streams(proxy, s3, claimed):
    body = b"x" * 20_000
    value = hashlib.sha256(body).hexdigest() if claimed == "hash" else claimed
    head = raw.http1_head("PUT /client/b/k HTTP/1.1", "Content-Length: 20000", f"X-Amz-Content-SHA256: {value}")
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as tcp:
        tcp.sendall(head + body[:5_000])
        wait_until(lambda: s3.arrived == 5_000, "the first bytes to arrive", timeout=5)
        tcp.sendall(body[5_000:])
        assert tcp.recv(65536).startswith(b"HTTP/1.1 200"), s3.last.refusal

    assert s3.last.verdict.payload == ("signed" if claimed == "hash" else "unsigned")


@pytest.mark.parametrize("value", ["", "no hash", "g" * 64, "0" * 63, "0" * 65, "unsigned-payload"])
def test_what_the_client_sends_for_a_hash_and_is_none_is_dropped(proxy, s3, value):
    response = proxy.request("/client/b/k", "PUT", headers={"X-Amz-Content-SHA256": value}, body=b"object")

    assert response.status == 200, s3.last.refusal
    assert s3.last.verdict.payload == "signed"


def test_a_proxy_that_can_not_hold_a_request_at_its_headers_says_so(start_proxy, api):
    configuration = StockConfiguration()
    del configuration.signer["allow_on_headers_stop_iteration"]
    proxy = start_proxy(policy({"/api": api_route(api)}), configuration)
    proxy.push(TEMPORARY_KEY)

    response = proxy.request("/api", "POST", body=b"x", timeout=10)

    assert (response.status, response.json["error"]["code"]) == (500, "SigningFailed")
    assert "allow_on_headers_stop_iteration" in response.json["error"]["message"]
    assert not api.received


@pytest.mark.parametrize("body", [b"", b"x", b"order" * 20_000], ids=["empty", "a byte", "100 kB"])
@pytest.mark.parametrize("route", ["/api", "/signed/bucket/key"])
def test_a_hashed_body_goes_out_with_its_length(proxy, api, s3, route, body):
    upstream = api if route == "/api" else s3
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part) + b"0\r\n\r\n"
    request = raw.http1_head(f"PUT {route} HTTP/1.1", "Transfer-Encoding: chunked") + chunked
    assert raw.statuses(raw.http1(proxy.port, request)) == [200], upstream.last.refusal
    assert_sent_with_length(upstream, body)

    upstream.reset()
    # curl does not know the length of standard input.
    upload = ["curl", "-s", "--http2-prior-knowledge", "--noproxy", "*", "-T", "-", proxy.url + route]
    subprocess.run(upload, input=body, capture_output=True, check=True)
    assert_sent_with_length(upstream, body)


def assert_sent_with_length(upstream, body: bytes) -> None:
    assert upstream.last.accepted, upstream.last.refusal
    assert upstream.last.request.body == body
    assert upstream.last.request.header("content-length") == str(len(body))
    assert upstream.last.request.header("transfer-encoding") is None


def test_a_length_that_the_client_gave_is_left_alone(proxy, api):
    assert proxy.request("/api", "POST", body=b"order").status == 200, api.last.refusal

    assert [value for name, value in api.last.request.headers if name == "content-length"] == ["5"]


def test_a_hashed_body_that_waits_for_credentials_goes_out_with_its_length(start_proxy, api):
    proxy = start_proxy(policy({"/api": api_route(api)}))
    script = f"echo order | curl -s -T - {proxy.url}/api/early"
    with subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE) as client:
        time.sleep(0.5)
        proxy.push(TEMPORARY_KEY)
        client.communicate(timeout=20)

    assert_sent_with_length(api, b"order\n")


def test_a_hashed_body_with_trailers_stays_chunked(start_proxy, api):
    """HTTP/1.1 has trailers only with chunks; here the upstream's connection accepts them."""
    configuration = StockConfiguration()
    options = {"explicit_http_config": {"http_protocol_options": {"enable_trailers": True}}}
    protocols = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    cluster = configuration.cluster("http")
    cluster["cluster_type"]["typed_config"]["allow_insecure_cluster_options"] = True
    cluster["typed_extension_protocol_options"] = {
        protocols: {"@type": f"type.googleapis.com/{protocols}", **options},
    }
    proxy = start_proxy(policy({"/api": api_route(api)}), configuration)
    proxy.push(TEMPORARY_KEY)

    assert http2(proxy.port, "POST", "/api", body=b"order", trailers=[("x-checksum", "1")]).status == 200
    assert api.last.request.body == b"order"
    assert api.last.request.header("content-length") is None
    assert api.last.trailers == [("x-checksum", "1")]


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2-prior-knowledge"])
def test_a_body_that_comes_late_is_awaited(proxy, api, protocol):
    # Longer than the check whether the proxy withholds the body.
    script = f"(sleep 2.5; echo order) | curl -s {protocol} -T - {proxy.url}/api/late"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)

    assert json.loads(done.stdout)["bodyLength"] == len("order\n"), done.stdout
    assert api.last.accepted, api.last.refusal
