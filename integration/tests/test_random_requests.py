"""Thousands of random requests through a real Envoy, each verified by botocore.

The environment variables SEED and REQUESTS repeat or extend a run.
"""

import http.client
import os
import random
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import pytest

from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, policy, s3_route
from integration.stack.client import Http2

SEED = int(os.environ.get("SEED", random.SystemRandom().randrange(1 << 32)))
REQUESTS = int(os.environ.get("REQUESTS", 6000))

LETTERS = "abcXYZ019-_.~"
# The characters that a client may send unescaped in a path or a query.
MARKS = "!$&'()*+,;=:@"
ESCAPES = [f"%{byte:02X}" for byte in range(256)] + [f"%{byte:02x}" for byte in range(256)]
DOTS = [
    ".",
    "..",
    "...",
    "%2e",
    "%2E%2e",
    ".%2e",
    "..;",
    ".;x=1",
    "%5c..",
    "..%2f",
    "%2f..%2F",
    "%252e%252e",
    ".a",
    "a..",
]
MALFORMED = ["%", "%4", "%zz", "%-1", "%%41"]

SERVICES = {"s3": "/s3", "execute-api": "/api"}


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def is_refused(self) -> bool:
        """Returns whether its path has a dot segment in some spelling, or a malformed escape."""
        path = self.target.partition("?")[0]
        if re.search(r"%(?![0-9A-Fa-f]{2})", path):
            return True
        segments = re.split(rb"[/\\]", unquote_to_bytes(path))
        # A servlet container cuts a segment at ";", others at the end of a path or a string.
        return any(re.match(rb"\.\.?([;?#\0]|\Z)", segment) for segment in segments)


def text(chance: random.Random, marks: str, raw: Sequence[str], longest: int = 12) -> str:
    kinds = [LETTERS, LETTERS, marks, ESCAPES, raw] if raw else [LETTERS, LETTERS, marks, ESCAPES]
    return "".join(chance.choice(chance.choice(kinds)) for _ in range(chance.randrange(longest)))


def segment(chance: random.Random, raw: Sequence[str]) -> str:
    kind = chance.random()
    if kind < 0.02:
        return chance.choice(DOTS)
    if kind < 0.025:
        return chance.choice(MALFORMED)
    if kind < 0.10:
        return ""
    if kind < 0.15:
        return text(chance, MARKS, raw) + chance.choice(["%2F", "%2f", "%252F"]) + text(chance, MARKS, raw)
    return text(chance, MARKS, raw)


def pair(chance: random.Random, raw: Sequence[str]) -> str:
    marks = MARKS.replace("&", "") + "/?"
    name = text(chance, marks.replace("=", ""), raw, 6)
    return chance.choice([name, f"{name}=", f"{name}={text(chance, marks, raw)}", f"{name}={text(chance, marks, raw)}"])


def query(chance: random.Random, raw: Sequence[str]) -> str:
    pairs = [pair(chance, raw) for _ in range(chance.randrange(6))]
    if pairs and chance.random() < 0.3:
        pairs.append(chance.choice(pairs))
    chance.shuffle(pairs)
    return "&".join(pairs)


def header(chance: random.Random) -> tuple[str, str]:
    name = chance.choice(
        ["X-Amz-Meta-A", "x-amz-meta-a", "X-AMZ-META-B", "Content-Type", "Content-MD5", "X-Team", "Accept"]
    )
    value = "".join(chance.choice("ab  \t,;=\"'/%ü") for _ in range(chance.randrange(12)))
    return name, value.encode().decode("latin-1").strip()


def random_request(chance: random.Random, raw: Sequence[str] = ()) -> Request:
    prefix = chance.choice(list(SERVICES.values()))
    path = "".join(f"/{segment(chance, raw)}" for _ in range(chance.randrange(6)))
    asked = query(chance, raw)
    target = prefix + path + (f"?{asked}" if asked or chance.random() < 0.05 else "")
    method = chance.choice(["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"])
    body = chance.randbytes(chance.choice([0, 0, 1, 100, 5000])) if method in ("PUT", "POST", "PATCH") else b""
    once = {"content-type", "content-md5"}
    headers = []
    for name, value in [header(chance) for _ in range(chance.randrange(5))]:
        if name.lower() not in once or name.lower() not in {other.lower() for other, _ in headers}:
            headers.append((name, value))
    return Request(method, target, headers, body)


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _api, _s3):
    routes = {"/s3": s3_route(_s3), "/api": api_route(_api, "/prod", signedHeaders=["x-team"])}
    proxy = start_shared_proxy(policy(routes))
    proxy.push(TEMPORARY_KEY)
    return proxy


def send(kept: http.client.HTTPConnection, request: Request) -> int:
    kept.putrequest(request.method, request.target, skip_accept_encoding=True)
    for name, value in request.headers:
        kept.putheader(name, value.encode("latin-1"))
    if request.body or request.method in ("PUT", "POST", "PATCH"):
        kept.putheader("Content-Length", str(len(request.body)))
    kept.endheaders(request.body or None)
    response = kept.getresponse()
    response.read()
    return response.status


def send_over_http2(kept: Http2, request: Request) -> int:
    headers = [(name.lower(), value.encode("latin-1")) for name, value in request.headers]
    return kept.request(request.method, request.target, headers, request.body).status


def check(request: Request, status: int, upstreams) -> str | None:
    """Returns the defect, if any."""
    expected = 400 if request.is_refused else 200
    refusals = [upstream.last.refusal for upstream in upstreams if upstream.received]
    for upstream in upstreams:
        upstream.reset()
    if status != expected:
        return f"{status}, not {expected}, {refusals} for {request}"
    if expected == 400 and refusals:
        return f"reached the upstream: {request}"
    return None


def test_random_requests_are_accepted_or_refused_for_their_path(proxy, s3, api):
    print(f"SEED={SEED} REQUESTS={REQUESTS}")
    chance, wrong, refused = random.Random(SEED), [], 0
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)) as kept:
        for _ in range(REQUESTS):
            request = random_request(chance)
            refused += request.is_refused
            if complaint := check(request, send(kept, request), (s3, api)):
                wrong.append(complaint)
                print(complaint)
            assert len(wrong) < 20

    assert not wrong
    # Both must occur.
    assert REQUESTS * 0.01 < refused < REQUESTS * 0.3
    assert " wasm log " not in proxy.envoy.log


def test_random_requests_with_bytes_outside_ascii_are_accepted(proxy, s3, api):
    """Over HTTP/2, as Envoy itself refuses them over HTTP/1.1."""
    print(f"SEED={SEED}")
    chance, wrong = random.Random(SEED), []
    with Http2(proxy.port) as http2:
        for _ in range(REQUESTS // 10):
            request = random_request(chance, raw=["ü", "日", "🙂", '"', "<", ">", "[", "]", "^", "`", "{", "|", "}"])
            if complaint := check(request, send_over_http2(http2, request), (s3, api)):
                wrong.append(complaint)
                print(complaint)
            assert len(wrong) < 20

    assert not wrong
