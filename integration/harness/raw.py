"""Bytes as an attacker would send them: over HTTP/1.1 as written, over HTTP/2 without a client library's checks."""

import contextlib
import json
import socket
import ssl
import struct
from collections.abc import Sequence

import hpack

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY, _CONTINUATION = 0x0, 0x1, 0x3, 0x4, 0x7, 0x9
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_FRAME_SIZE = 16384
_MAX_CONCURRENT_STREAMS = 0x3


# The headers of a client that asks for a WebSocket.
WEBSOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def http1_head(line: str | bytes, *headers: str | bytes, host: str = "localhost") -> bytes:
    """Returns the head of a request: its first line and its headers as they stand, and a `Host` between them."""
    lines = [line, f"Host: {host}", *headers, "", ""]
    return b"\r\n".join(each.encode() if isinstance(each, str) else each for each in lines)


@contextlib.contextmanager
def http1_flood(port: int, request: bytes, count: int):
    """Opens as many connections, each with the request and nothing after it."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            tcp = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            with contextlib.suppress(ConnectionError):
                tcp.sendall(request)
        yield


def read_error(tcp: socket.socket) -> tuple[int, dict]:
    """Reads a local reply of the filter; returns its status and its error."""
    answer = b""
    while b"}}" not in answer:
        part = tcp.recv(65536)
        assert part, answer
        answer += part
    return int(answer.split(b" ", 2)[1]), json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


def http1(port: int, request: bytes, patience: float = 2, answers: int = 1) -> bytes:
    """Sends the bytes; returns what arrives until the answers are there, the proxy closes, or `patience` seconds are
    silent.

    The proxy may wait for the rest of an incomplete request: then nothing arrives.
    """
    answer = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as tcp:
        with contextlib.suppress(ConnectionError):
            tcp.sendall(request)
        tcp.settimeout(patience)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while len(statuses(answer)) < answers and (data := tcp.recv(65536)):
                answer += data
        tcp.settimeout(0.05)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while data := tcp.recv(65536):
                answer += data
    return bytes(answer)


def statuses(answer: bytes) -> list[int]:
    """Returns the statuses of all the HTTP/1.1 answers in it, in order."""
    parts = (b"\r\n" + answer).split(b"\r\nHTTP/1.1 ")[1:]
    return [int(part[:3]) for part in parts]


def http2(
    port: int,
    path: bytes,
    headers: Sequence[tuple[bytes, bytes]] = (),
    authority: bytes = b"localhost",
    method: bytes = b"GET",
    timeout: float = 10,
) -> int | None:
    """Sends one request without a body, unchecked; returns its status, or `None` if the proxy reset it."""
    head = [(b":method", method), (b":scheme", b"http"), (b":authority", authority), (b":path", path), *headers]
    block = hpack.Encoder().encode(head)
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as tcp:
        tcp.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b""))
        with contextlib.suppress(ConnectionError):
            tcp.sendall(b"".join(_header_frames(block)))
        return _status(tcp)


@contextlib.contextmanager
def http2_heads(port: int, path: bytes, headers: Sequence[tuple[bytes, bytes]], streams: int):
    """Opens streams, 100 on a connection, each with the same head and no end; they stay open inside the context, which
    gets the number of bytes that were sent."""
    head = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"localhost"), (b":path", path), *headers]
    sent = 0
    with contextlib.ExitStack() as connections:
        for first in range(0, streams, 100):
            tcp = connections.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            tcp.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b""))
            # After the first one, HPACK has an octet for each header.
            encoder = hpack.Encoder()
            for number in range(min(100, streams - first)):
                frame = _frame(_HEADERS, _END_HEADERS, 1 + 2 * number, encoder.encode(head, huffman=False))
                tcp.sendall(frame)
                sent += len(frame)
        yield sent


def http2_most_streams(port: int, tls: ssl.SSLContext | None = None) -> int | None:
    """Returns how many streams the server takes on a connection at a time; `None` if it does not say."""
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        if tls:
            tcp = stack.enter_context(tls.wrap_socket(tcp))
        tcp.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b""))
        reader = tcp.makefile("rb")
        head = reader.read(9)
        assert head[3:5] == bytes([_SETTINGS, 0]), head
        payload = reader.read(int.from_bytes(head[:3], "big"))
    settings = {number: value for number, value in struct.iter_unpack("!HI", payload)}
    return settings.get(_MAX_CONCURRENT_STREAMS)


def _header_frames(block: bytes):
    parts = [block[at : at + _FRAME_SIZE] for at in range(0, len(block), _FRAME_SIZE)]
    for number, part in enumerate(parts):
        last = _END_HEADERS if number == len(parts) - 1 else 0
        yield _frame(_CONTINUATION, last, 1, part) if number else _frame(_HEADERS, last | _END_STREAM, 1, part)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _status(tcp: socket.socket) -> int | None:
    decoder, reader = hpack.Decoder(), tcp.makefile("rb")
    with contextlib.suppress(ConnectionError):
        while len(head := reader.read(9)) == 9:
            payload = reader.read(int.from_bytes(head[:3], "big"))
            kind, flags = head[3], head[4]
            if kind == _SETTINGS and not flags & _ACK:
                tcp.sendall(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _HEADERS and flags & _END_HEADERS:
                return int(dict(decoder.decode(payload))[":status"])
            elif kind in (_RST_STREAM, _GOAWAY):
                return None
    return None
