"""One path, one route: no spelling of a path bypasses a stricter route, and none is refused without a reason."""

import http.client
import itertools
import random
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote_to_bytes

import pytest

from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, policy, s3_route

REQUESTS = 10_000
STRICT = {"allowUnauthenticatedRequests": False}


@pytest.fixture(scope="module")
def proxies(start_shared_proxy, _api, _s3):
    policies = {
        "strict routes inside open ones": {
            "/": s3_route(_s3, "/bucket"),
            "/private": s3_route(_s3, "/bucket/private", **STRICT),
            "/api": api_route(_api),
            "/api/admin": api_route(_api, "/admin", **STRICT),
        },
        "open routes inside strict ones, and some paths without a route": {
            "/private": s3_route(_s3, "/bucket", **STRICT),
            "/private/pub": s3_route(_s3, "/bucket/pub"),
            "/api": api_route(_api),
            "/api/": api_route(_api, "/", **STRICT),
        },
    }
    proxies = {}
    for name, routes in policies.items():
        proxies[name] = start_shared_proxy(policy(routes)), routes
        proxies[name][0].push(TEMPORARY_KEY)
    return proxies


# When an upstream turns `%2F`, or `%5C` and `\`, into a slash: never, before it drops anything, after it has dropped
# parameters as written, or after it has dropped encoded ones too.
STEPS = ["never", "first", "after raw parameters", "last"]
WAYS = [
    *itertools.product(STEPS, STEPS, [True], [False, True]),
    *itertools.product(STEPS[:2], STEPS[:2], [False], [False, True]),
]
SLASHES = [re.compile(r"%2f", re.IGNORECASE), re.compile(r"%5c|\\", re.IGNORECASE)]
RAW_PARAMETERS, PARAMETERS = re.compile(r"[;#][^/]*"), re.compile(r"(;|#|%3b|%3f|%23|%00)[^/]*", re.IGNORECASE)


def readings(path: str) -> set[bytes]:
    """Returns the ways that upstreams may read a path, by rewriting its text in every order that one of them could."""
    read = set()
    for *slashes, drops, merges in WAYS:
        text = path
        for step in STEPS[1:]:
            for spelling, when in zip(SLASHES, slashes, strict=True):
                if when == step:
                    text = spelling.sub("/", text)
            if drops and step == "first":
                text = RAW_PARAMETERS.sub("", text)
            if drops and step == "after raw parameters":
                text = PARAMETERS.sub("", text)
        if merges:
            text = re.sub("/+", "/", text)
        # Bytes that are still encoded belong to their segment, even a slash.
        read.add(b"/".join(unquote_to_bytes(segment).replace(b"/", b"\0slash") for segment in text.split("/")))
    return read


def route_of(path: bytes, routes: dict) -> str | None:
    def takes(prefix: str) -> bool:
        boundary = prefix if prefix.endswith("/") else prefix + "/"
        return path == prefix.encode() or path.startswith(boundary.encode())

    return max(filter(takes, routes), key=len, default=None)


def expected_status(path: str, routes: dict) -> int:
    found = {route_of(reading, routes) for reading in readings(path)}
    if len(found) > 1:
        return 400
    (route,) = found
    if route is None:
        return 404
    return 401 if routes[route].get("allowUnauthenticatedRequests") is False else 200


def hostile_path(dice: random.Random) -> str:
    """Returns a path of the routes' own names, each letter and slash in any spelling, with parts that some upstreams
    drop."""

    def spell(letter: str) -> str:
        return f"%{ord(letter):02x}" if dice.random() < 0.05 else letter

    def slash() -> str:
        return dice.choice(["/"] * 8 + ["//", "%2F", "%2f", "%5C", "%5c", "\\", "/%2F", "%2F/", "/;/", "%2F%2F"])

    def parameters() -> str:
        return dice.choice([""] * 9 + [";", ";x=1", "%3B", "%3bx", "%3Fx", "%23x", "%00", ";x%2Fy", ";x%5cy", "%253B"])

    names = ["private", "private", "api", "admin", "admin", "pub", "x", "", "Private"]
    path = slash() if dice.random() < 0.9 else "/" + parameters() + slash()
    for _ in range(dice.randint(1, 4)):
        path += "".join(map(spell, dice.choice(names))) + parameters() + slash()
    path = path if dice.random() < 0.3 else re.sub(r"(/|\\|%2f|%5c)$", "", path, flags=re.IGNORECASE)
    return path if path.startswith("/") else "/" + path


def hostile_paths(dice: random.Random) -> Iterator[str]:
    """Returns distinct paths that upstreams read in different ways."""
    seen = set()
    while True:
        path = hostile_path(dice)
        if path not in seen and len(readings(path)) > 1:
            seen.add(path)
            yield path


def statuses(port: int, paths: list[str]) -> list[int]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        found = []
        for path in paths:
            connection.request("GET", path)
            with connection.getresponse() as response:
                response.read()
            found.append(response.status)
        return found
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("name", "requests", "outcomes"),
    [
        ("strict routes inside open ones", REQUESTS, (200, 400, 401)),
        ("open routes inside strict ones, and some paths without a route", REQUESTS // 4, (400, 401, 404)),
    ],
)
def test_no_spelling_is_signed_for_another_route_than_an_upstream_may_see(proxies, api, s3, name, requests, outcomes):
    proxy, routes = proxies[name]
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    paths = list(itertools.islice(hostile_paths(dice), requests))

    parts = [paths[start::4] for start in range(4)]
    with ThreadPoolExecutor(len(parts)) as pool:
        found = list(pool.map(lambda part: statuses(proxy.port, part), parts))

    for path, status in itertools.chain(*map(zip, parts, found)):
        assert status == expected_status(path, routes), f"{path} (seed {seed})"
    assert all(received.accepted for received in (*api.received, *s3.received))
    # Each outcome must occur often enough to be meaningful.
    seen = [status for part in found for status in part]
    assert min(seen.count(status) for status in outcomes) > requests / 100, f"seed {seed}: {Counter(seen)}"


@pytest.mark.parametrize(
    "path",
    ["/private%2Fkey", "//private/key", "/private;x=1/key", "/private%3Bx=1/key", "/private%3Fx/key", "/private%5ckey",
     "/private\\key", "/api//admin/x", "/api%2Fadmin/x", "/api/;a/admin", "/%2Fprivate", "/private%00/key"],
)  # fmt: skip
def test_the_refusal_says_what_to_send(proxies, api, s3, path):
    proxy, _ = proxies["strict routes inside open ones"]
    response = proxy.request(path)

    assert (response.status, response.json["error"]["code"]) == (400, "InvalidPath")
    assert "an upstream may read the path as one of another route; send it without" in response.json["error"]["message"]
    assert not api.received
    assert not s3.received


def test_a_path_that_is_refused_passes_unsigned_only_if_no_reading_has_a_route(start_proxy, api):
    proxy = start_proxy(policy({"/private": api_route(api, "/private")}, unmatched="pass"))
    proxy.push(TEMPORARY_KEY)

    for path in ["/x/../private/key", "/x/%2e%2e/private", "/private/..", "/x%2F..%2Fprivate", "/%zz/..//private"]:
        response = proxy.request(path)
        assert (response.status, response.json["error"]["code"]) == (400, "InvalidPath"), path
    # It passes untouched; its own upstream can't be reached from here.
    assert proxy.request("/x/../y", headers={"Host": "127.0.0.1:9"}).headers["content-type"] == "text/plain"
