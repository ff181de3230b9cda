"""Two versions of the filter with one vm_id: each reads what the other wrote, and names what it can't read.

The other version is the last one before the listing had a version. Its values were recorded verbatim from its .wasm;
only the times of its leases are replaced.
"""

import json
import time

import pytest

from integration.harness.wasm_host import WasmHost
from integration.stack.proxy import WASM

HOST = "abc123.execute-api.eu-west-1.amazonaws.com"
ROLE_ARN = "arn:aws:iam::123456789012:role/orders-reader"
ROLE_ID = "orders-reader-ba016a16"
ROLE = {
    "roleArn": ROLE_ARN,
    "roleSessionName": "orders",
    "externalId": "x-1",
    "roleDurationSeconds": 900,
    "roleTags": {"team": "orders"},
    "roleChain": ["arn:aws:iam::123456789012:role/hub"],
}
POLICY = {
    "routes": {"/api": {"target": f"https://{HOST}"}, "/role": {"target": "https://s3.eu-west-1.amazonaws.com", **ROLE}}
}
DOCUMENT = b'{"Version":1,"AccessKeyId":"AKIDEXAMPLE","SecretAccessKey":"secret","Expiration":"2099-01-01T00:00:00Z"}'
SESSION = (
    b'{"Version":1,"AccessKeyId":"ASIAROLE","SecretAccessKey":"secret","SessionToken":"token",'
    b'"Expiration":"2099-01-01T00:00:00Z"}'
)
LEAKED = DOCUMENT.replace(b"AKIDEXAMPLE", b"AKIDLEAKED")
WANTED = (
    '[{"policy":"00b51551f1341f48","until":UNTIL,"identities":[{"id":"default"},{"id":"orders-reader-ba016a16",'
    '"roleArn":"arn:aws:iam::123456789012:role/orders-reader","roleSessionName":"orders","externalId":"x-1",'
    '"roleDurationSeconds":900,"roleTags":{"team":"orders"},"roleChain":["arn:aws:iam::123456789012:role/hub"]}]}]'
)


def of_the_earlier_version() -> dict[str, bytes]:
    """Returns shared data in which two identities are supplied, and a key of one was revoked before."""
    until = str(int(time.time()) + 30)
    return {
        "sigv4.wanted": WANTED.replace("UNTIL", until).encode(),
        "sigv4.watchers": f"[{until}]".encode(),
        "sigv4.clock_skew": b"\n",
        "sigv4.credentials.default": DOCUMENT,
        f"sigv4.credentials.{ROLE_ID}": SESSION,
        "sigv4.generation": b"4",
        "sigv4.revoked.default": b'["AKIDLEAKED"]',
    }


class Filter:
    """A signer and an intake of this version over shared data."""

    def __init__(self, shared_data: dict[str, bytes]):
        self.host = WasmHost(WASM, POLICY, shared_data)
        self.host.properties[b"source\0address"] = b"/run/sigv4/credentials.sock"
        self._intake = self.host.add(b'{"intake": {}}')

    def intake(self, path: str, method: str = "GET", body: bytes | None = None):
        headers = {":method": method, ":path": path, ":authority": "intake", ":scheme": "http"}
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        reply = self.host.send(pairs, *([body] if body else []), plugin=self._intake).reply
        return reply.status, json.loads(reply.body) if reply.body else None

    def push(self, body: bytes, identity: str = "default", query: str = "") -> int:
        return self.intake(f"/v1/identities/{identity}/credentials{query}", "PUT", body)[0]

    def signed_with(self, path: str) -> str | int:
        """Returns the access key, or the status of a refusal."""
        headers = {":method": "GET", ":path": path, ":authority": "proxy.internal", ":scheme": "http"}
        exchange = self.host.send([(name.encode(), value.encode()) for name, value in headers.items()])
        if exchange.reply:
            return exchange.reply.status
        return exchange.header(b"authorization").decode().partition("Credential=")[2].partition("/")[0]


def test_this_version_goes_on_with_what_the_earlier_one_wrote():
    shared = of_the_earlier_version()
    filter = Filter(shared)
    assert (filter.signed_with("/api"), filter.signed_with("/role")) == ("AKIDEXAMPLE", "ASIAROLE")

    _, listing = filter.intake("/v1/identities?from=")
    default, role = listing["identities"]
    assert (default["id"], default["held"]["accessKeyId"], default["revoked"]) == (
        "default",
        "AKIDEXAMPLE",
        ["AKIDLEAKED"],
    )
    assert role.pop("held") == {"accessKeyId": "ASIAROLE", "expiration": "2099-01-01T00:00:00Z"}
    assert role == {"id": ROLE_ID, **ROLE}
    assert filter.push(LEAKED, query="?unless-revoked") == 409
    assert filter.intake("/v1/status")[0] == 200
    # Nothing is taken from its policy, which stays loaded.
    [theirs] = json.loads(shared["sigv4.wanted"])
    assert theirs in json.loads(filter.host.shared_data["sigv4.wanted"])
    assert not [line for line in filter.host.log if "can't" in line or "another version" in line]


def test_the_earlier_version_can_read_what_this_one_writes():
    """It reads lists of these members and ignores others; its own .wasm was seen to sign with this."""
    filter = Filter({})
    filter.push(LEAKED)
    filter.intake("/v1/identities/default/credentials", "DELETE")
    salted = json.dumps(json.loads(DOCUMENT) | {"FingerprintSalt": "0123456789abcdef"}).encode()
    assert filter.push(salted, query="?unless-revoked") == 204
    assert filter.push(SESSION, ROLE_ID, "?unless-revoked") == 204

    written, earlier = filter.host.shared_data, of_the_earlier_version()
    [want], [theirs] = json.loads(written["sigv4.wanted"]), json.loads(earlier["sigv4.wanted"])
    assert set(want) == set(theirs)
    assert want["identities"] == theirs["identities"]
    assert isinstance(want["until"], int)
    for key in ["sigv4.credentials.default", f"sigv4.credentials.{ROLE_ID}"]:
        assert json.loads(earlier[key]).items() <= json.loads(written[key]).items()
    assert written["sigv4.revoked.default"] == earlier["sigv4.revoked.default"]
    assert written["sigv4.generation"].isdigit()
    assert isinstance(json.loads(written["sigv4.watchers"])[0], int)


@pytest.mark.parametrize("later", [b'{"wants": []}', b'[{"policy": "x", "needs": []}]', b"\xff"])
def test_wants_of_a_later_version_are_left_alone_and_named(later):
    shared = of_the_earlier_version() | {"sigv4.wanted": later}
    filter = Filter(shared)
    for path in ["/v1/identities", "/v1/identities?from=", "/v1/status"]:
        status, answer = filter.intake(path)
        assert (status, answer["error"]["code"]) == (500, "SharedData")
        assert "another version of the filter wrote the data of this vm_id" in answer["error"]["message"]
    assert filter.push(DOCUMENT) == 500
    assert filter.host.shared_data["sigv4.wanted"] == later
    assert any("another version of the filter wrote the data" in line for line in filter.host.log)
    # Readable values still serve.
    assert filter.signed_with("/api") == "AKIDEXAMPLE"


@pytest.mark.parametrize("later", [b'{"keys": ["AKIDLEAKED"]}', b'["AKIDLEAK', b"\xff"])
def test_revocations_that_can_not_be_read_leave_nothing_in_use(later):
    filter = Filter(of_the_earlier_version() | {"sigv4.revoked.default": later})
    assert (filter.signed_with("/api"), filter.signed_with("/role")) == (503, "ASIAROLE")
    assert any('nothing is signed for "default"' in line for line in filter.host.log)
    assert [filter.push(DOCUMENT, query=query) for query in ["", "?unless-revoked"]] == [500, 500]
    default, role = filter.intake("/v1/identities")[1]["identities"]
    assert (default["held"], "can't be read" in default["problem"], "problem" in role) == (None, True, False)
    status, answer = filter.intake("/v1/status")
    assert (status, answer["missing"], answer["problem"].partition(":")[0]) == (503, ["default"], "default")

    assert filter.intake("/v1/identities/default/credentials", "DELETE")[0] == 500
    assert filter.host.shared_data["sigv4.credentials.default"] == b""
    assert filter.host.shared_data["sigv4.revoked.default"] == later


def test_credentials_of_a_later_version_are_not_taken_for_others():
    later = b'{"Version": 2, "AccessKeyId": "AKIDLATER", "SecretAccessKey": "secret"}'
    filter = Filter(of_the_earlier_version() | {"sigv4.credentials.default": later})
    assert (filter.signed_with("/api"), filter.signed_with("/role")) == (503, "ASIAROLE")
    assert filter.push(DOCUMENT) == 204
    filter.host.tick()
    assert filter.signed_with("/api") == "AKIDEXAMPLE"
