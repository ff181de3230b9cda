"""The inputs that `make fuzz` feeds to the compiled filter: those of the fuzz targets, used as their targets use them.

The targets in fuzz/targets run natively and check all their promises. Differences on wasm32 (32-bit sizes, a clock that
begins with 1970, a panic that ends the machine) show only here: no input traps, and the promises that are cheap to
check hold.
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unicodedata import category
from urllib.parse import unquote_to_bytes

from wasmtime import Trap, WasmtimeError

from integration.stack.process import REPOSITORY

from .wasm_host import Exchange, Headers, WasmHost

_SECRET = "a-secret-that-no-answer-tells"
_KEY = {"Version": 1, "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": _SECRET}
_SCOPE = {"service": "s3", "region": "eu-west-1"}
_POLICY = {"routes": {"/": {"target": "https://h.example", **_SCOPE}}}
# The SHA-256 of "token".
_INTAKE = {"intake": {"tokenSha256": ["3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0"]}}
_CREDENTIALS = b"/v1/identities/default/credentials"
_LEASE = 31

# Which no input contains, as a fuzzer could not know it.
_PUSHED_SECRET = "another-secret-that-no-answer-tells"

_STREAMING = {
    b"signed": b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    b"signed-trailer": b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
}
# A header's name, as hyper and Envoy read it.
_HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Broken(Exception):
    """A promise that an input breaks."""


class Machine:
    """A virtual machine with a signer, which holds credentials, and an intake; for one input after another."""

    def __init__(self, wasm: Path):
        shared = {"sigv4.credentials.default": json.dumps(_KEY).encode(), "sigv4.generation": b"1"}
        self.host = WasmHost(wasm, _POLICY, shared)
        intake = self.host.add(json.dumps(_INTAKE).encode())
        assert intake is not None, self.host.log
        self._intake = intake

    def feed(self, target: str, data: bytes) -> None:
        """Uses an input as a target does.

        Raises `Broken` if a promise does not hold. The machine must not be used after that.
        """
        # The identities of earlier inputs' plugins are no longer wanted: nothing grows with their number.
        self.host.seconds_passed += _LEASE
        self.host.log.clear()
        try:
            self.host.tick()
            TARGETS[target](self, data)
        except (Trap, WasmtimeError) as trap:
            said = self.host.log[-1] if self.host.log else "nothing"
            raise Broken(f"the filter trapped; its log: {said}") from trap

    def call(self, method: bytes, path: bytes, body: bytes, authorization: bytes | None = None) -> tuple[int, bytes]:
        """Calls the intake: over the Unix socket, or over TCP with an authorization."""
        headers = [(b":method", method), (b":authority", b"intake"), (b":path", path)]
        if authorization is None:
            self.host.properties[b"source\0address"] = b"/run/sigv4/credentials.sock"
        else:
            headers.append((b"authorization", authorization))
        exchange = self.host.send(headers, *([body] if body else []), plugin=self._intake)
        self.host.properties.clear()
        _check(exchange.reply is not None and not exchange.goes_on, "the intake answers each call itself")
        return exchange.reply.status, exchange.reply.body

    @contextmanager
    def signer(self, route: dict) -> Iterator[Callable[..., Exchange] | None]:
        """Sends requests through a signer with one route, if its policy is accepted."""
        plugin = self.host.add(json.dumps({"routes": [route]}).encode())
        if plugin is None:
            yield None
        else:
            yield lambda headers, *parts: self.host.send(headers, *parts, plugin=plugin)
            self.host.remove(plugin)


def seeds(target: str) -> list[Path]:
    """Returns the inputs that are kept with a target."""
    return sorted((REPOSITORY / "fuzz" / "seeds" / target).iterdir())


def found(target: str) -> list[Path]:
    """Returns the inputs that native runs have found here, in random order, so that short runs take different ones."""
    directory = REPOSITORY / "fuzz" / "corpus" / target
    paths = list(directory.iterdir()) if directory.is_dir() else []
    random.shuffle(paths)
    return paths


def _path(machine: Machine, data: bytes) -> None:
    prefix, target, request = _lines(data, 3)
    try:
        route = {"prefix": prefix.decode(), "target": f"https://h.example{target.decode()}", **_SCOPE}
    except UnicodeDecodeError:
        return
    if target and not target.startswith(b"/"):
        return
    with machine.signer(route) as send:
        if send is None:
            return
        exchange = send(_head(b"GET", request))
        _check_signed_or_refused(exchange, {400, 404})
        if exchange.goes_on:
            path = (exchange.header(b":path") or b"").partition(b"?")[0]
            _check(not _has_dot_segment(path), f"a dot segment is sent: {path!r}")


def _policy(machine: Machine, data: bytes) -> None:
    plugin = machine.host.add(data)
    if plugin is None:
        for line in machine.host.log:
            # As Rust's `char::is_control`.
            _check(not any(category(character) == "Cc" for character in line), f"a refusal is one line: {line!r}")
        return
    machine.host.send(_head(b"GET", b"/"), plugin=plugin)
    machine.host.tick(plugin)
    machine.host.remove(plugin)


def _canonical_request(machine: Machine, data: bytes) -> None:
    first, path, rest = _lines(data, 3)
    method, service, *added = [*first.split(b" "), b""]
    pairs = (line.partition(b":")[::2] for line in rest.split(b"\n"))
    headers = [(name.lower(), value) for name, value in pairs if _HEADER_NAME.fullmatch(name)]
    # The target signs what the filter would refuse; chunked bodies are another target's.
    headers = [(name, value) for name, value in headers if not value.strip().lower().startswith(b"streaming-")]
    service = service.decode() if service in (b"s3", b"glacier") else "execute-api"
    route = {"prefix": "/", "target": "https://api.example.com:8443", "service": service, "region": "eu-west-1"}
    names = [name.decode(errors="ignore") for name in added if name]
    with machine.signer({**route, "signedHeaders": names}) as full, machine.signer(route) as plain:
        send = full or plain
        _check(send is not None, "the policy is valid")
        body = [b""] if method == b"PUT" else []
        exchange = send([*_head(method, path, b"api.example.com:8443"), *headers], *body)
        _check_signed_or_refused(exchange, {400, 404})


def _credential_document(machine: Machine, data: bytes) -> None:
    for document in (data, *_with_pushed_secret(data)):
        status, reply = machine.call(b"PUT", _CREDENTIALS, document)
        _check(status in (204, 400, 413), f"{status} for a document")
        _check(bool(reply) == (status != 204), "a refusal says why")
        _check_tells_no_secret(reply)
        machine.host.tick()
        exchange = machine.host.send(_head(b"GET", b"/key"))
        _check_signed_or_refused(exchange, {503})
        for path in (b"/v1/identities", b"/v1/status"):
            _, reply = machine.call(b"GET", path, b"")
            _check_tells_no_secret(reply)
    status, _ = machine.call(b"PUT", _CREDENTIALS, json.dumps(_KEY).encode())
    _check(status == 204, "the intake takes the next document")


def _intake(machine: Machine, data: bytes) -> None:
    line, body = _lines(data, 2)
    method, path, authorization = [*line.split(b" ", 2), b"", b""][:3]
    status, reply = machine.call(method, path, body, authorization)
    admitted = authorization[:7].lower() == b"bearer " and authorization[7:].strip(b"\t\n\x0c\r ") == b"token"
    _check((status != 401) == admitted, f"{status} for {authorization!r}")
    if not admitted:
        status, reply = machine.call(method, path, body)
    _check(status in (200, 204, 400, 404, 405, 409, 413, 503), f"{status} for a call")
    _check(bool(reply) == (status != 204), "all but 204 has a body")
    if reply:
        _check(("error" in json.loads(reply)) == (status not in (200, 503)), f"{status} {reply!r}")
    for document in _with_pushed_secret(body):
        _check_tells_no_secret(machine.call(method, path, document)[1])
    machine.host.tick()
    _check_signed_or_refused(machine.host.send(_head(b"GET", b"/key")), {503})
    machine.call(b"PUT", _CREDENTIALS, json.dumps(_KEY).encode())


def _aws_chunked(machine: Machine, data: bytes) -> None:
    line, body = _lines(data, 2)
    words = line.split(b" ")
    length = words[1] if len(words) > 1 and words[1].isdigit() else b"0"
    is_too_long = len(length.lstrip(b"0")) > 20 or int(length.lstrip(b"0") or b"0") >= 1 << 64
    headers = [
        *_head(b"PUT", b"/bucket/key"),
        (b"x-amz-content-sha256", _STREAMING.get(words[0], b"STREAMING-UNSIGNED-PAYLOAD-TRAILER")),
        (b"x-amz-decoded-content-length", length),
    ]
    sizes = [int(word[:9]) for word in words[2:] if word.isdigit() and int(word[:9])] or [1]
    split, rest = [], body
    while rest:
        size = sizes[min(len(split), len(sizes) - 1)]
        split.append(rest[:size])
        rest = rest[size:]
    exchanges = [machine.host.send(headers, *parts) for parts in ([body], split or [b""])]
    for exchange in exchanges:
        _check(exchange.goes_on or exchange.reply is not None, "it is held forever")
        _check(exchange.reply is not None or not is_too_long, "a length beyond 64 bits is accepted")
        refusal = 411 if is_too_long else 400
        _check(exchange.reply is None or exchange.reply.status == refusal, f"{exchange.reply}")
        if exchange.reply is None:
            _check(len(exchange.sent) == len(body), "the length stays")
    whole, parts = exchanges
    _check((whole.reply is None) == (parts.reply is None), "the splits make no difference")
    _check(whole.reply is not None or whole.sent == parts.sent, "the splits make no difference")


TARGETS: dict[str, Callable[[Machine, bytes], None]] = {
    "aws_chunked": _aws_chunked,
    "canonical_request": _canonical_request,
    "credential_document": _credential_document,
    "intake": _intake,
    "path": _path,
    "policy": _policy,
}


def _head(method: bytes, path: bytes, authority: bytes = b"h.example") -> Headers:
    return [(b":method", method), (b":scheme", b"http"), (b":authority", authority), (b":path", path)]


def _lines(data: bytes, count: int) -> list[bytes]:
    """Returns the first lines, the last of them with everything that follows."""
    return [*data.split(b"\n", count - 1), *[b""] * count][:count]


def _check(holds: bool, promise: str) -> None:
    if not holds:
        raise Broken(promise)


def _check_signed_or_refused(exchange: Exchange, refusals: set[int]) -> None:
    if exchange.reply is not None:
        _check(not exchange.goes_on, "a request that is refused does not go on")
        _check(exchange.reply.status in refusals, f"refused with {exchange.reply.status} {exchange.reply.body!r}")
        return
    _check(exchange.goes_on, "the request is neither signed nor refused")
    authorization = exchange.header(b"authorization") or b""
    _check(authorization.startswith(b"AWS4-HMAC-SHA256 Credential="), f"it goes on unsigned: {exchange.headers}")


def _check_tells_no_secret(reply: bytes) -> None:
    for secret in (_SECRET, _PUSHED_SECRET):
        _check(secret.encode() not in reply, "a secret leaks")


def _with_pushed_secret(document: bytes) -> list[bytes]:
    """Returns the document with a secret that nothing else contains, if it has a secret."""
    try:
        members = json.loads(document)
    except (ValueError, RecursionError):
        return []
    if not isinstance(members, dict) or not isinstance(members.get("SecretAccessKey"), str):
        return []
    return [json.dumps(members | {"SecretAccessKey": _PUSHED_SECRET}).encode()]


def _has_dot_segment(path: bytes) -> bool:
    segments = re.split(rb"[/\\]", unquote_to_bytes(path))
    return any(re.split(rb"[;?#\0]", segment)[0] in (b".", b"..") for segment in segments)
