"""What a request costs in host calls and in memory: each call leaves the virtual machine for the proxy."""

from collections import Counter

import pytest

from conftest import TEMPORARY_KEY
from harness.intake import credential_document
from harness.proxy import WASM
from harness.wasm_host import WasmHost

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
# What signing a request takes: read its headers and the clock once, write what changes, count.
SIGNED_AT_ONCE = {
    "get_header_map_pairs": 1,
    "get_property": 1,  # the metadata of Envoy's route
    "set_property": 1,  # the route's name, for the access log
    "get_current_time_nanoseconds": 1,
    "replace_header_map_value": 2,  # :authority and :path
    "add_header_map_value": 3,  # authorization, x-amz-date, x-amz-security-token
    "call_foreign_function": 1,  # clear_route_cache
    "increment_metric": 1,
}


def host(**policy) -> WasmHost:
    """A signer that holds credentials, and has signed as many requests as it takes for all its buffers to have room."""
    route = {"target": f"https://{AUTHORITY}/prod", **policy.pop("route", {})}
    shared = {"sigv4.credentials.default": credential_document(TEMPORARY_KEY), "sigv4.generation": b"1"}
    host = WasmHost(WASM, {"routes": {"/orders": route}, **policy}, shared)
    # One of 32 requests is timed, and of some answers the upstream's clock is read: none of the next ones.
    for _ in range(65):
        host.request(BROWSER)
    host.calls.clear()
    return host


def test_a_request_makes_as_few_host_calls_as_it_can():
    signer = host()
    written = signer.request(BROWSER)

    assert signer.calls == Counter(SIGNED_AT_ONCE)
    assert set(written) == {":authority", ":path", "authorization", "x-amz-date", "x-amz-security-token"}
    assert written[":path"] == "/prod/42/lines?limit=10"


def test_more_for_the_access_log_is_three_calls_more():
    signer = host(accessLog=True)
    signer.request(BROWSER)

    assert signer.calls - Counter(SIGNED_AT_ONCE) == {"set_property": 3}


def test_leftovers_of_a_signature_are_replaced():
    signer = host()
    signer.request([*BROWSER, ("authorization", "AWS4-HMAC-SHA256 Credential=of-the-client"), ("x-amz-date", "then")])

    expected = Counter(SIGNED_AT_ONCE) - Counter({"add_header_map_value": 3})
    assert signer.calls == expected + Counter({"replace_header_map_value": 3})


def test_one_request_of_32_is_timed():
    signer = host()
    for _ in range(64):
        signer.request(BROWSER)

    assert signer.calls["record_metric"] == 2
    assert signer.calls["get_current_time_nanoseconds"] == 64 + 2 * 2


def test_a_request_leaves_no_memory_behind():
    signer = host()
    before = signer.memory_bytes
    for number in range(2000):
        signer.request([*BROWSER[:2], (":path", f"/orders/{number}?{'x' * (number % 500)}"), *BROWSER[3:]])

    assert signer.memory_bytes == before


@pytest.mark.parametrize("size", [1 << 10, 8 << 20])
def test_a_body_is_hashed_part_by_part_and_not_kept(size):
    signer = host(route={"payload": "signed"})
    part = bytes(min(size, 16 << 10))
    before = signer.memory_bytes
    written = signer.request(BROWSER, *[part] * (size // len(part)))

    assert "authorization" in written
    assert signer.memory_bytes - before <= 64 << 10
