"""The cost of a request in host calls, each of which leaves the virtual machine, and in memory."""

import json
from collections import Counter
from datetime import datetime, timedelta

import pytest
from botocore.credentials import Credentials

from integration.harness.keys import TEMPORARY_KEY
from integration.harness.wasm_host import WasmHost
from integration.stack.intake import credential_document
from integration.stack.proxy import WASM

DATE = "%Y%m%dT%H%M%SZ"
AUTHORITY = "abc123.execute-api.eu-west-1.amazonaws.com"
BROWSER = [
    (":method", "GET"),
    (":authority", "app.example"),
    (":path", "/orders/42/lines?limit=10"),
    (":scheme", "http"),
    *(
        (name, "some value")
        for name in ("user-agent", "accept", "accept-language", "cookie", "referer", "content-type")
    ),
]
# The calls for signing a request: read its headers, and write the changes.
SIGNED_AT_ONCE = {
    "get_header_map_pairs": 1,
    "replace_header_map_value": 2,  # :authority and :path
    "add_header_map_value": 3,  # authorization, x-amz-date, x-amz-security-token
    "set_property": 1,  # that the policy chose the host
}
# The calls of a sampled request: all while a worker has little load, else one in 32.
SAMPLED = {
    "get_current_time_nanoseconds": 2,  # when it came, and when it was signed
    "record_metric": 1,  # how long that took
    "increment_metric": 1,
    "get_header_map_value": 1,  # the response's :status
    "get_property": 1,  # metadata of Envoy's route that the policy ignores
}


def host(**policy) -> WasmHost:
    """Returns a signer that holds credentials, and has signed enough requests for all its buffers to be large
    enough."""
    route = {"target": f"https://{AUTHORITY}/prod", **policy.pop("route", {})}
    route = {key: value for key, value in route.items() if value is not None}
    shared = {"sigv4.credentials.default": credential_document(TEMPORARY_KEY), "sigv4.generation": b"1"}
    host = WasmHost(WASM, {"routes": {"/orders": route}, **policy}, shared)
    # The first requests of a second are sampled, and one in 32 after them: none of the next ones.
    warm_up = BROWSER if "target" in route else to_aws(BROWSER)
    for _ in range(65):
        host.request(warm_up)
    host.calls.clear()
    return host


def to_aws(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Returns the same request to the AWS host itself."""
    return [(name, AUTHORITY if name == ":authority" else value) for name, value in headers]


def were_sampled(signer: WasmHost, requests: int) -> bool:
    """Returns whether exactly this many requests were sampled."""
    return all(signer.calls[call] == requests * count for call, count in SAMPLED.items())


def test_a_request_makes_as_few_host_calls_as_it_can():
    signer = host()
    written = signer.request(BROWSER)

    assert signer.calls == Counter(SIGNED_AT_ONCE)
    assert set(written) == {":authority", ":path", "authorization", "x-amz-date", "x-amz-security-token"}
    assert written[":path"] == "/prod/42/lines?limit=10"


def test_a_policy_that_asks_for_route_metadata_costs_a_call_more():
    signer = host(routeMetadata=True)
    signer.request(BROWSER)

    assert signer.calls - Counter(SIGNED_AT_ONCE) == {"get_property": 1}


@pytest.mark.parametrize(("members", "more"), [({}, 1), ({"upstreamTls": False}, 0)])
def test_a_route_without_a_target_writes_the_signature_alone_and_looks_at_the_cluster(members, more):
    signer = host(route={"target": None, "hosts": [AUTHORITY], **members})
    signer.properties[b"cluster_name"] = b"outbound|80||" + AUTHORITY.encode()
    signer.request(to_aws(BROWSER))

    # Authority and path stay the same, and Envoy's resolver needs no filter state for the host.
    unchanged = Counter({"replace_header_map_value": 2, "set_property": 1})
    assert signer.calls == Counter(SIGNED_AT_ONCE) - unchanged + Counter({"get_property": more})


def test_the_access_log_is_one_call_more():
    signer = host(accessLog=True)
    signer.request(BROWSER)

    assert signer.calls - Counter(SIGNED_AT_ONCE) == {"set_property": 1}


def test_leftovers_of_a_signature_are_replaced():
    signer = host()
    signer.request([*BROWSER, ("authorization", "AWS4-HMAC-SHA256 Credential=of-the-client"), ("x-amz-date", "then")])

    expected = Counter(SIGNED_AT_ONCE) - Counter({"add_header_map_value": 3})
    assert signer.calls == expected + Counter({"replace_header_map_value": 3})


def test_of_many_requests_one_of_32_is_sampled():
    signer = host()
    for _ in range(64):
        signer.request(BROWSER)

    assert were_sampled(signer, 2), signer.calls


def test_after_a_second_requests_are_sampled_again():
    signer = host()
    signer.seconds_passed += 1
    signer.tick()
    signer.calls.clear()
    for _ in range(32):
        signer.request(BROWSER)

    assert were_sampled(signer, 32), signer.calls


def test_every_request_is_counted_within_a_second():
    signer = host()
    for _ in range(10):
        signer.request(BROWSER)
    before = signer.requests_counted
    signer.tick()

    assert (before, signer.requests_counted) == (65, 75)


def test_the_last_requests_under_a_policy_that_is_replaced_are_counted():
    signer = host()
    for _ in range(10):
        signer.request(BROWSER)
    signer.remove()

    assert signer.requests_counted == 75


def test_a_busy_worker_takes_the_time_from_the_last_tick():
    signer = host()
    now = datetime.strptime(signer.request(BROWSER)["x-amz-date"], DATE)
    signer.seconds_passed += 1
    before = datetime.strptime(signer.request(BROWSER)["x-amz-date"], DATE)
    signer.tick()
    after = datetime.strptime(signer.request(BROWSER)["x-amz-date"], DATE)

    assert (before, after) == (now, now + timedelta(seconds=1))


def test_a_request_leaves_no_memory_behind():
    signer = host()
    before = signer.memory_bytes
    for number in range(2000):
        signer.request([*BROWSER[:2], (":path", f"/orders/{number}?{'x' * (number % 500)}"), *BROWSER[3:]])

    assert signer.memory_bytes == before


# The last arrives at once: a piece of it has 64 KiB, more than the page of wasm that holds a part of the others.
@pytest.mark.parametrize(
    ("size", "at_a_time", "pages"), [(1 << 10, 1 << 10, 1), (8 << 20, 16 << 10, 1), (8 << 20, 8 << 20, 2)]
)
def test_a_body_is_hashed_piece_by_piece_and_not_kept(size, at_a_time, pages):
    signer = host(route={"payload": "signed"})
    part = bytes(at_a_time)
    before = signer.memory_bytes
    written = signer.request(BROWSER, *[part] * (size // len(part)))

    assert "authorization" in written
    assert signer.memory_bytes - before <= pages * (64 << 10)


SLASHES = ";%2F%5C//"


@pytest.mark.parametrize("names_copy_source", [False, True], ids=["", "copy source"])
@pytest.mark.parametrize("path", ["a" * 57_000 + SLASHES, ("a" + SLASHES) * 5_700, "aaaa" + SLASHES * 6_300])
def test_a_path_of_many_readings_costs_what_a_path_of_its_length_costs(path, names_copy_source):
    s3 = "https://s3.eu-west-1.amazonaws.com/mine"
    shared = {"sigv4.credentials.default": credential_document(TEMPORARY_KEY), "sigv4.generation": b"1"}
    policy = {"routes": {"/": s3, "/private": f"{s3}/private", "/aaaa/b": f"{s3}/x"}}
    signer = WasmHost(WASM, policy, shared, counts_instructions=True)
    copy_source = ("x-amz-copy-source", "mine/" + "a%2F;" * 1_000)

    def instructions(path: str) -> int:
        before = signer.instructions
        head = [(":method", "PUT"), (":authority", "app.example"), (":path", f"/{path}"), (":scheme", "http")]
        signer.request([*head, copy_source] if names_copy_source else head)
        return signer.instructions - before

    assert instructions(path) < 10 * instructions("a" * len(path))


# Of a signed GET with a session token of 728 characters, as AWS makes them: a thirtieth more than what was measured.
# They don't depend on the machine or its load, but a little on the compiler.
INSTRUCTIONS = {
    ("a target", "one path"): 53_500,
    ("a target", "paths of their own"): 117_500,
    ("no target", "one path"): 60_500,
    ("no target", "paths of their own"): 125_000,
}


@pytest.mark.parametrize(("target", "paths"), INSTRUCTIONS)
def test_a_signed_request_takes_no_more_instructions_than_it_did(target, paths):
    key = Credentials(TEMPORARY_KEY.access_key, TEMPORARY_KEY.secret_key, "t" * 728)
    shared = {"sigv4.credentials.default": credential_document(key), "sigv4.generation": b"1"}
    route = {"target": f"https://{AUTHORITY}/prod"} if target == "a target" else {"hosts": [AUTHORITY]}
    headers = BROWSER if target == "a target" else to_aws(BROWSER)
    signer = WasmHost(WASM, {"routes": {"/orders": route}}, shared, counts_instructions=True)
    for _ in range(65):
        signer.request(headers)
    before = signer.instructions
    for number in range(200):
        path = f"/orders/{number:05}/lines" if paths == "paths of their own" else "/orders/42/lines"
        signer.request([*headers[:2], (":path", f"{path}?limit=10"), *headers[3:]])

    instructions = (signer.instructions - before) // 200
    print(f"{instructions} instructions")
    assert instructions <= INSTRUCTIONS[target, paths]


CALLERS = {"callers": ["spiffe://cluster.local/ns/*/sa/*"]}
OF_NAMESPACE = {"roleArn": "arn:aws:iam::123456789012:role/mesh-{namespace}", "roleSessionName": "{serviceAccount}"}


@pytest.mark.parametrize(
    ("members", "more"), [({}, 2_500), (OF_NAMESPACE, 6_000)], ids=["one role", "a role of its own"]
)
def test_a_known_caller_costs_one_property_and_few_instructions(members, more):
    key = Credentials(TEMPORARY_KEY.access_key, TEMPORARY_KEY.secret_key, "t" * 728)
    target = {"target": f"https://{AUTHORITY}/prod"}

    def cost(route: dict) -> tuple[int, Counter]:
        shared = {"sigv4.credentials.default": credential_document(key), "sigv4.generation": b"1"}
        signer = WasmHost(WASM, {"routes": {"/orders": {**target, **route}}}, shared, counts_instructions=True)
        signer.properties[b"connection\0uri_san_peer_certificate"] = b"spiffe://cluster.local/ns/orders/sa/app"
        if route.get("roleArn"):
            signer.request(BROWSER)
            [lease] = [lease for lease in json.loads(signer.shared_data["sigv4.wanted"]) if lease.get("used")]
            [identity] = lease["identities"]
            assert identity["roleArn"] == "arn:aws:iam::123456789012:role/mesh-orders"
            signer.put(f"sigv4.credentials.{identity['id']}", credential_document(key))
            signer.put("sigv4.generation", b"9999999999999")
            signer.tick()
        for _ in range(65):
            signer.request(BROWSER)
        signer.calls.clear()
        before = signer.instructions
        written = signer.request(BROWSER)
        assert "authorization" in written
        return signer.instructions - before, signer.calls

    (without, calls), (with_caller, more_calls) = cost({}), cost({**CALLERS, **members})
    print(f"{with_caller - without} instructions more")
    assert more_calls - calls == {"get_property": 1}
    assert with_caller - without < more
