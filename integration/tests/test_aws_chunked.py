"""An SDK's chunked upload with a throw-away key arrives at S3 signed again: its head, every chunk, its trailers."""

import contextlib
import json
import re
import socket
import threading
import time

import pytest

from integration.harness import aws_chunked, raw
from integration.harness.errors import local_error
from integration.harness.keys import TEMPORARY_KEY, THROWAWAY_SESSION
from integration.harness.policies import policy, s3_route
from integration.harness.sdk import sdk_client
from integration.stack.aws_servers import REGION
from integration.stack.client import curl
from integration.stack.process import wait_until
from integration.stack.proxy import StockConfiguration

FIVE_MIB_AND_A_BYTE = bytes(range(256)) * (5 << 12) + b"!"

FORMS = pytest.mark.parametrize("form", aws_chunked.FORMS)
MODES = {
    "auto": {},
    "signed": {"payload": "signed"},
    "unsigned": {"payload": "unsigned"},
    "client": {"payload": "client"},
}


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, ministack, _s3):
    """Returns a proxy for S3 at ministack as a user and as an assumed role, and for our own upstream in every payload
    mode."""
    routes = {
        "/user": s3_route(ministack),
        "/role": s3_route(ministack, roleArn=ministack.role_arn),
        **{f"/{mode}": s3_route(_s3, **members) for mode, members in MODES.items()},
    }
    proxy = start_shared_proxy(policy(routes))
    [role] = [identity for identity, entry in proxy.identities().items() if "roleArn" in entry]
    proxy.push(ministack.user)
    proxy.push(ministack.assume_role(), role)
    return proxy


@pytest.fixture(scope="module")
def own_keys(ministack, _s3):
    """Adds the key that the proxy holds for ministack's user to our own upstream."""
    _s3.verifier.keys[ministack.user.access_key] = ministack.user
    return _s3


@pytest.fixture(scope="module")
def bucket(ministack) -> str:
    location = {"LocationConstraint": REGION}
    ministack.client("s3").create_bucket(Bucket="chunked", CreateBucketConfiguration=location)
    return "chunked"


def stored(ministack, bucket: str, key: str) -> bytes | None:
    """Returns what ministack holds, read without the proxy."""
    s3 = ministack.client("s3")
    with contextlib.suppress(s3.exceptions.NoSuchKey):
        return s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return None


def put(proxy, path: str, upload: aws_chunked.Upload):
    return curl(proxy.url + path, "PUT", {"Expect": "", **upload.headers}, upload.body)


def make(proxy, path: str, form: str, data: bytes, **more) -> aws_chunked.Upload:
    return aws_chunked.upload(proxy.url + path, form, data, THROWAWAY_SESSION, REGION, **more)


@FORMS
@pytest.mark.parametrize("route", ["/user", "/role"])
@pytest.mark.parametrize("data", [b"", b"a", FIVE_MIB_AND_A_BYTE], ids=["empty", "a byte", "5 MiB"])
def test_a_chunked_upload_is_accepted_and_read_back(proxy, ministack, bucket, form, route, data):
    path = f"{route}/{bucket}/{form}-{len(data)}"

    response = put(proxy, path, make(proxy, path, form, data))

    assert response.status == 200, response.text
    assert proxy.request(path).body == data


@FORMS
@pytest.mark.parametrize("chunk_size", [8192, 65536, 1 << 20])
def test_chunks_of_any_size_are_accepted(proxy, ministack, bucket, form, chunk_size):
    path = f"/role/{bucket}/{form}-{chunk_size}"

    response = put(proxy, path, make(proxy, path, form, FIVE_MIB_AND_A_BYTE, chunk_size=chunk_size))

    assert response.status == 200, response.text
    assert stored(ministack, bucket, f"{form}-{chunk_size}") == FIVE_MIB_AND_A_BYTE


@FORMS
@pytest.mark.parametrize("mode", MODES)
def test_the_seed_every_chunk_and_the_trailers_are_signed_anew(proxy, own_keys, s3, form, mode):
    upload = make(proxy, f"/{mode}/bucket/key", form, FIVE_MIB_AND_A_BYTE)

    assert put(proxy, f"/{mode}/bucket/key", upload).status == 200, s3.last.refusal

    assert s3.last.verdict.payload == "chunked"
    assert s3.last.request.header("x-amz-content-sha256") == form
    received = aws_chunked.ChunkedBody.read(s3.last.request.body)
    assert received.data == FIVE_MIB_AND_A_BYTE
    assert len(s3.last.request.body) == len(upload.body)


def test_the_stand_in_refuses_a_chunk_that_is_signed_under_another_key(ministack, bucket):
    user, path = ministack.user, f"/{bucket}/refused"
    upload = aws_chunked.upload(ministack.url + path, aws_chunked.SIGNED, b"data", user, REGION)
    assert curl(ministack.url + path, "PUT", upload.headers, upload.body).status == 200

    tampered = upload.body.replace(b"data", b"tada")
    assert curl(ministack.url + path, "PUT", upload.headers, tampered).status == 403


@FORMS
def test_an_upload_of_unknown_length_is_accepted(proxy, own_keys, s3, form):
    upload = make(proxy, "/auto/bucket/key", form, FIVE_MIB_AND_A_BYTE)
    headers = {"Transfer-Encoding": "chunked", **upload.headers}

    assert curl(proxy.url + "/auto/bucket/key", "PUT", headers, upload.body).status == 200, s3.last.refusal


@FORMS
def test_framing_that_arrives_byte_by_byte_is_understood(proxy, own_keys, s3, form):
    upload = make(proxy, "/auto/bucket/key", form, b"x" * 300, chunk_size=100)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as tcp:
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tcp.sendall(head("/auto/bucket/key", upload))
        for at in range(len(upload.body)):
            tcp.sendall(upload.body[at : at + 1])
            time.sleep(0.0005)
        assert tcp.recv(65536).startswith(b"HTTP/1.1 200"), s3.last.refusal


@FORMS
def test_chunks_go_on_while_the_rest_is_still_to_come(proxy, own_keys, s3, form):
    upload = make(proxy, "/auto/bucket/key", form, b"x" * 300_000)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as tcp:
        tcp.sendall(head("/auto/bucket/key", upload) + upload.body[:200_000])
        wait_until(lambda: s3.arrived >= 131_072, "the first chunks to arrive", timeout=5)
        tcp.sendall(upload.body[200_000:])
        assert tcp.recv(65536).startswith(b"HTTP/1.1 200"), s3.last.refusal


def head(path: str, upload: aws_chunked.Upload) -> bytes:
    headers = {**upload.headers, "Content-Length": len(upload.body)}
    return raw.http1_head(f"PUT {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()))


@FORMS
def test_a_chunked_upload_waits_for_the_first_credentials(start_proxy, s3, form):
    proxy = start_proxy(policy({"/s3": s3_route(s3)}))
    data = b"x" * 300_000
    upload = make(proxy, "/s3/bucket/key", form, data)
    answers = []
    client = threading.Thread(target=lambda: answers.append(put(proxy, "/s3/bucket/key", upload)))
    client.start()
    time.sleep(0.5)
    assert not s3.arrived and not answers

    proxy.push(TEMPORARY_KEY)
    client.join(20)

    assert answers[0].status == 200, answers[0].text
    assert s3.last.verdict.payload == "chunked"
    assert aws_chunked.ChunkedBody.read(s3.last.request.body).data == data


def first_chunk_size(body: bytes, size: bytes) -> bytes:
    return re.sub(rb"^[0-9a-f]+", size, body)


MALFORMED = {
    "no hexadecimal size": (lambda body: first_chunk_size(body, b"xyz"), "hexadecimal"),
    "negative size": (lambda body: first_chunk_size(body, b"-1"), "hexadecimal"),
    "size without digits": (lambda body: first_chunk_size(body, b""), "hexadecimal"),
    "size beyond 64 bits": (lambda body: first_chunk_size(body, b"f" * 17), "hexadecimal"),
    "no CRLF after the size": (lambda body: body.replace(b"\r\n", b"", 1), "hexadecimal"),
    "no CRLF after the data": (lambda body: body.replace(b"x\r\n", b"x", 1), "CRLF"),
    "LF alone after the data": (lambda body: body.replace(b"x\r\n", b"x\n", 1), "CRLF"),
    "truncated in a chunk": (lambda body: body[:50_000], "ended before"),
    "truncated before the last chunk": (lambda body: body[: body.rindex(b"\r\n0") + 2], "ended before"),
    "last CRLF missing": (lambda body: body[:-2], "ended before"),
    "empty": (lambda body: b"", "ended before"),
    "bytes after the end": (lambda body: body + b"more", "bytes follow"),
}


@FORMS
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_framing_ends_the_request_and_stores_nothing(proxy, ministack, bucket, form, case):
    spoil, message = MALFORMED[case]
    path = f"/role/{bucket}/malformed"
    upload = make(proxy, path, form, b"x" * 200_000)

    response = put(proxy, path, aws_chunked.Upload(upload.headers, spoil(upload.body)))

    assert (response.status, local_error(response)["code"]) == (400, "InvalidBody")
    assert message in local_error(response)["message"]
    assert local_error(response)["route"] == "/role"
    assert stored(ministack, bucket, "malformed") is None


@FORMS
def test_malformed_framing_cuts_off_what_went_upstream(proxy, own_keys, s3, form):
    upload = make(proxy, "/auto/bucket/key", form, b"x" * 300_000)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as tcp:
        tcp.sendall(head("/auto/bucket/key", upload) + upload.body[:200_000])
        wait_until(lambda: s3.arrived >= 131_072, "the first chunks to arrive", timeout=5)
        tcp.sendall(b"\r\nno chunk\r\n" * 20_000)
        assert answer_code(tcp) == (400, "InvalidBody")

    assert not s3.received, "the upstream never sees the request's end"


@FORMS
def test_malformed_framing_ends_an_answer_that_has_begun(start_proxy, s3, form):
    """The upstream answers before the body's end, after which no other answer can be sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = {"target": f"http://127.0.0.1:{listener.getsockname()[1]}", "service": "s3", "region": REGION}
        proxy = start_proxy(policy({"/s3": target}))
        proxy.push(TEMPORARY_KEY)
        upload = make(proxy, "/s3/bucket/key", form, b"x" * 300_000)
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as tcp:
            tcp.sendall(head("/s3/bucket/key", upload) + upload.body[:100_000])
            upstream, _ = listener.accept()
            with upstream:
                upstream.settimeout(10)
                upstream.recv(65536)
                upstream.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n")
                answer = b""
                while b"early" not in answer:
                    answer += tcp.recv(65536)
                tcp.sendall(b"\r\nno chunk\r\n" * 20_000)
                assert ends_without(tcp, b"0\r\n\r\n"), "the client sees no whole answer"
                assert ends_without(upstream, b"no chunk"), "the upstream's connection is closed"


def answer_code(tcp: socket.socket) -> tuple[int, str]:
    status, error = raw.read_error(tcp)
    return status, error["code"]


def ends_without(tcp: socket.socket, data: bytes) -> bool:
    """Returns whether the other side ends the connection, in time and without having sent `data`."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while part := tcp.recv(65536):
            received += part
    return data not in received


@FORMS
@pytest.mark.parametrize(
    ("length", "status", "code"),
    [
        ("199999", 400, "InvalidBody"),
        ("200001", 400, "InvalidBody"),
        ("0", 400, "InvalidBody"),
        ("99999999999999999999", 411, "LengthRequired"),
        ("-1", 411, "LengthRequired"),
        ("many", 411, "LengthRequired"),
        ("", 411, "LengthRequired"),
    ],
)
def test_a_wrong_decoded_length_ends_the_request_and_stores_nothing(
    proxy, ministack, bucket, form, length, status, code
):
    path = f"/role/{bucket}/wrong-length"
    upload = make(proxy, path, form, b"x" * 200_000)
    upload.headers["X-Amz-Decoded-Content-Length"] = length

    response = put(proxy, path, upload)

    assert (response.status, local_error(response)["code"]) == (status, code)
    assert "x-amz-decoded-content-length" in local_error(response)["message"]
    assert stored(ministack, bucket, "wrong-length") is None


@FORMS
def test_a_chunked_upload_without_its_decoded_length_is_refused(proxy, ministack, bucket, form):
    path = f"/role/{bucket}/no-length"
    upload = make(proxy, path, form, b"data")
    del upload.headers["X-Amz-Decoded-Content-Length"]

    response = put(proxy, path, upload)

    assert (response.status, local_error(response)["code"]) == (411, "LengthRequired")
    assert "x-amz-decoded-content-length" in local_error(response)["message"]
    assert stored(ministack, bucket, "no-length") is None


def test_a_signed_chunk_that_is_too_large_to_hold_ends_the_request(proxy, ministack, bucket):
    path = f"/role/{bucket}/too-large"
    upload = make(proxy, path, aws_chunked.SIGNED, b"x" * (2 << 20), chunk_size=2 << 20)

    response = put(proxy, path, upload)

    assert (response.status, local_error(response)["code"]) == (400, "InvalidBody")
    assert "1 MiB" in local_error(response)["message"]
    assert stored(ministack, bucket, "too-large") is None


def test_a_streaming_form_that_can_not_be_signed_anew_is_refused(proxy, s3):
    upload = make(proxy, "/auto/bucket/key", aws_chunked.SIGNED, b"data")
    upload.headers["X-Amz-Content-SHA256"] = "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"

    response = put(proxy, "/auto/bucket/key", upload)

    assert (response.status, local_error(response)["code"]) == (400, "UnsupportedRequest")
    assert not s3.received


@FORMS
@pytest.mark.parametrize(
    "spelling", [str.lower, str.title, lambda form: f" {form}\t"], ids=["lower", "title", "blanks"]
)
def test_a_form_in_another_spelling_is_known_and_sent_as_s3_spells_it(proxy, own_keys, s3, form, spelling):
    upload = make(proxy, "/auto/bucket/key", form, b"data")
    upload.headers["X-Amz-Content-SHA256"] = spelling(form)

    assert put(proxy, "/auto/bucket/key", upload).status == 200, s3.last.refusal
    assert s3.last.request.header("x-amz-content-sha256") == form


@FORMS
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_of_two_hashes_the_streaming_form_counts(proxy, own_keys, s3, form, first):
    upload = make(proxy, "/auto/bucket/key", form, b"data")
    del upload.headers["X-Amz-Content-SHA256"]
    values = [form, "0" * 64] if first else ["0" * 64, form]
    headers = [*upload.headers.items(), *(("x-amz-content-sha256", value) for value in values)]

    assert curl(proxy.url + "/auto/bucket/key", "PUT", headers, upload.body).status == 200, s3.last.refusal
    assert s3.last.request.header("x-amz-content-sha256") == form


def test_a_client_that_goes_away_in_the_middle_of_a_chunk_does_no_harm(proxy, ministack, bucket):
    path = f"/role/{bucket}/left"
    upload = make(proxy, path, aws_chunked.SIGNED, b"x" * 200_000)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as tcp:
        tcp.sendall(head(path, upload) + upload.body[:100_000])

    assert put(proxy, f"/role/{bucket}/next", make(proxy, path, aws_chunked.SIGNED, b"x")).status == 200
    assert stored(ministack, bucket, "left") is None


def test_memory_does_not_grow_with_the_body(proxy, own_keys, s3):
    chunk = b"x" * 65536
    upload = make(proxy, "/auto/bucket/key", aws_chunked.SIGNED, chunk * 2048)
    before, peak = allocated(proxy), 0
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as tcp:
        tcp.sendall(head("/auto/bucket/key", upload))
        view = memoryview(upload.body)
        for start in range(0, len(view), 8 << 20):
            tcp.sendall(view[start : start + (8 << 20)])
            peak = max(peak, allocated(proxy))
        assert tcp.recv(65536).startswith(b"HTTP/1.1 200"), s3.last.refusal

    assert peak - before < 40 << 20, "128 MiB went through"


def allocated(proxy) -> int:
    return int(json.loads(proxy.envoy.admin("/memory"))["allocated"])


@pytest.fixture(scope="module")
def tls_proxy(start_shared_proxy, ministack, authority):
    """Over TLS boto3 sends its uploads chunked."""
    configuration = StockConfiguration()
    certificate, key = authority.issue("localhost")
    configuration.serve_tls("traffic", certificate, key)
    routes = {"/s3": s3_route(ministack)}
    proxy = start_shared_proxy(policy(routes), configuration)
    proxy.push(ministack.user)
    return proxy


@pytest.fixture(scope="module")
def sdk(tls_proxy, authority):
    return sdk_client("s3", f"https://localhost:{tls_proxy.port}/s3", verify=str(authority.certificate))


@pytest.mark.parametrize("algorithm", [None, "CRC32", "SHA256"])
def test_boto3_uploads_chunked(sdk, tls_proxy, ministack, bucket, algorithm):
    sent = []
    sdk.meta.events.register_first("before-send.s3.PutObject", lambda request, **_: sent.append(request.headers))
    options = {"ChecksumAlgorithm": algorithm} if algorithm else {}

    sdk.put_object(Bucket=bucket, Key=f"boto3 {algorithm}", Body=FIVE_MIB_AND_A_BYTE, **options)

    assert sent[-1]["X-Amz-Content-SHA256"] in (aws_chunked.UNSIGNED_TRAILER, aws_chunked.UNSIGNED_TRAILER.encode())
    assert stored(ministack, bucket, f"boto3 {algorithm}") == FIVE_MIB_AND_A_BYTE


def test_boto3_uploads_chunked_in_parts(sdk, ministack, bucket, tmp_path):
    file = tmp_path / "large"
    file.write_bytes(FIVE_MIB_AND_A_BYTE * 4)

    sdk.upload_file(str(file), bucket, "boto3 parts")

    assert stored(ministack, bucket, "boto3 parts") == FIVE_MIB_AND_A_BYTE * 4
