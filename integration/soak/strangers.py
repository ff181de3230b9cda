"""Hostile clients beside an honest load: what they send is malformed, or never ends, or is taken back.

Together they stay below what the workers may hold, as an honest request that has to be held shares that bound; floods
past it are those of integration/tests/test_overload.py.
"""

import contextlib
import functools
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable

from integration.harness import raw

CONTENT_SHA256 = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
KIB_64 = 64 << 10

head = functools.partial(raw.http1_head, host="app.example")

STALLED_UPLOAD = (
    head(
        "PUT /bucket/key HTTP/1.1",
        "Transfer-Encoding: chunked",
        f"x-amz-content-sha256: {CONTENT_SHA256}",
        f"x-amz-decoded-content-length: {KIB_64}",
    )
    + f"{86 + KIB_64 - 1:x}\r\n{KIB_64:x};chunk-signature={'0' * 64}\r\n".encode()
    + bytes(KIB_64 - 1)
)
LARGE_HEADERS = [(b"x-a", b"v" * 3900)] * 14


class Strangers:
    """Runs every kind of attack again and again while the context is open, each in a thread of its own."""

    def __init__(self, port: int):
        self._port = port
        self._stop = threading.Event()
        self.attacks: dict[str, int] = {}
        kinds = (self.stalled_uploads, self.header_flood, self.slow_bodies, self.resets, self.dying_upstream)
        self._threads = [threading.Thread(target=self._repeat, args=(kind,)) for kind in kinds]
        self._dying = _DyingUpstream()

    @property
    def dying_url(self) -> str:
        """Where an upstream dies in the middle of each body."""
        return f"http://127.0.0.1:{self._dying.port}"

    def __enter__(self):
        for thread in [*self._threads, self._dying]:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._dying.close()
        for thread in self._threads:
            thread.join()

    def _repeat(self, attack: Callable[[], None]) -> None:
        while not self._stop.is_set():
            # Envoy may refuse any of it, at any time.
            with contextlib.suppress(OSError):
                attack()
            self.attacks[attack.__name__] = self.attacks.get(attack.__name__, 0) + 1

    def _hold(self, request: bytes, count: int, seconds: float) -> list[socket.socket]:
        with contextlib.ExitStack() as stack:
            connections = []
            for _ in range(count):
                tcp = stack.enter_context(socket.create_connection(("127.0.0.1", self._port), timeout=10))
                tcp.sendall(request)
                connections.append(tcp)
            self._stop.wait(seconds)
        return connections

    def stalled_uploads(self) -> None:
        """Each a byte before the end of its chunk."""
        self._hold(STALLED_UPLOAD, 100, 1)

    def header_flood(self) -> None:
        """54,600 bytes of headers from 26 octets each."""
        with raw.http2_heads(self._port, b"/orders/x", LARGE_HEADERS, 100):
            self._stop.wait(1)

    def slow_bodies(self) -> None:
        """A byte at a time."""
        with contextlib.ExitStack() as stack:
            connections = [
                stack.enter_context(socket.create_connection(("127.0.0.1", self._port), timeout=10)) for _ in range(50)
            ]
            for tcp in connections:
                tcp.sendall(head("POST /orders/x HTTP/1.1", "Content-Length: 1000000"))
            for _ in range(20):
                for tcp in connections:
                    tcp.sendall(b"x")
                self._stop.wait(0.05)

    def resets(self) -> None:
        """Connections that are reset in the middle of a body."""
        for _ in range(50):
            tcp = socket.create_connection(("127.0.0.1", self._port), timeout=10)
            tcp.sendall(head("POST /orders/x HTTP/1.1", "Content-Length: 100000") + bytes(50_000))
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            tcp.close()
        self._stop.wait(0.2)

    def dying_upstream(self) -> None:
        """Bodies that stream to an upstream that reads a part of them and dies."""
        self._hold(head("POST /dying/x HTTP/1.1", "Content-Length: 1000000") + bytes(500_000), 10, 0.3)


class _DyingUpstream(threading.Thread):
    """Reads some of each request and resets the connection."""

    def __init__(self):
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def run(self) -> None:
        for _ in itertools.count():
            try:
                tcp, _ = self._listener.accept()
            except OSError:
                return
            with tcp, contextlib.suppress(OSError):
                tcp.settimeout(1)
                tcp.recv(10_000)
                time.sleep(0.01)
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
