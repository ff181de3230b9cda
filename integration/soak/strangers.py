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
# Fewer rounds of an attack than these show nothing.
LEAST_ROUNDS = 3

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
SLOW_BODY = head("POST /orders/x HTTP/1.1", "Content-Length: 1000000")
RESET_BODY = head("POST /orders/x HTTP/1.1", "Content-Length: 100000") + bytes(50_000)
DYING_BODY = head("POST /dying/x HTTP/1.1", "Content-Length: 1000000") + bytes(500_000)
LARGE_HEADERS = [(b"x-a", b"v" * 3900)] * 14


class Attack(threading.Thread):
    """One kind of attack, again and again until it is told to stop. It counts what it gets through."""

    def __init__(self, port: int, kind: Callable[["Attack"], None], least_bytes: int):
        super().__init__(name=kind.__name__)
        self._port, self._kind = port, kind
        self._least_bytes = least_bytes
        """Sent in a round of which half got through."""
        self._stop_asked = threading.Event()
        self.rounds = self.connections = self.bytes = self.broken = 0

    def run(self) -> None:
        while not self._stop_asked.is_set():
            sent = self.bytes
            # Envoy may refuse any of it, at any time.
            with contextlib.suppress(OSError):
                self._kind(self)
            if self.bytes - sent >= self._least_bytes:
                self.rounds += 1
            else:
                self.broken += 1
                self.wait(0.1)

    def stop(self) -> None:
        """Ends it, in the middle of a round."""
        self._stop_asked.set()
        self.join()

    def wait(self, seconds: float) -> None:
        """Waits so long, or until it is to end."""
        self._stop_asked.wait(seconds)

    def send(self, tcp: socket.socket, data: bytes) -> None:
        """Sends all of it, or as much of it as is taken."""
        unsent = memoryview(data)
        with contextlib.suppress(OSError):
            while unsent:
                count = tcp.send(unsent)
                self.bytes += count
                unsent = unsent[count:]

    @contextlib.contextmanager
    def connected(self, request: bytes, count: int):
        """Opens connections, with the request on each, for as long as the context lasts."""
        with contextlib.ExitStack() as stack:
            connections = []
            for _ in range(count):
                tcp = stack.enter_context(socket.create_connection(("127.0.0.1", self._port), timeout=10))
                self.connections += 1
                self.send(tcp, request)
                connections.append(tcp)
            yield connections

    def figures(self) -> str:
        """Returns what it did, in one line."""
        return (
            f"{self.rounds:,} rounds, {self.connections:,} connections, {self.bytes:,} bytes; "
            f"{self.broken:,} rounds that were broken off"
        )

    def stalled_uploads(self) -> None:
        """Stalls uploads, each a byte before the end of its chunk."""
        with self.connected(STALLED_UPLOAD, 100):
            self.wait(1)

    def header_flood(self) -> None:
        """Sends 54,600 bytes of headers from some 26 octets each."""
        with raw.http2_heads(self._port, b"/orders/x", LARGE_HEADERS, 100) as sent:
            self.connections += 1
            self.bytes += sent
            self.wait(1)

    def slow_bodies(self) -> None:
        """Sends bodies a byte at a time."""
        with self.connected(SLOW_BODY, 50) as connections:
            for _ in range(20):
                for tcp in connections:
                    self.send(tcp, b"x")
                self.wait(0.05)

    def resets(self) -> None:
        """Connections that are reset in the middle of a body."""
        for _ in range(50):
            with self.connected(RESET_BODY, 1) as [tcp]:
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.wait(0.2)

    def dying_upstream(self) -> None:
        """Bodies that stream to an upstream that reads a part of them and dies."""
        with self.connected(DYING_BODY, 10):
            self.wait(0.3)


# Of each kind, the bytes without which a round was none: half of what it sends, and of bodies to an upstream that dies
# the part that it reads.
KINDS = {
    Attack.stalled_uploads: 50 * len(STALLED_UPLOAD),
    # HPACK knows them after the first one.
    Attack.header_flood: 3900 + 50 * 26,
    Attack.slow_bodies: 25 * (len(SLOW_BODY) + 20),
    Attack.resets: 25 * len(RESET_BODY),
    Attack.dying_upstream: 10 * 10_000,
}


class Strangers:
    """Runs every kind of attack while the context is open."""

    def __init__(self, port: int):
        self.attacks = [Attack(port, kind, least) for kind, least in KINDS.items()]
        self._dying = _DyingUpstream()

    @property
    def dying_url(self) -> str:
        """Where an upstream dies in the middle of each body."""
        return f"http://127.0.0.1:{self._dying.port}"

    def __enter__(self):
        for thread in [*self.attacks, self._dying]:
            thread.start()
        return self

    def __exit__(self, *_):
        for attack in self.attacks:
            attack.stop()
        self._dying.close()

    def figures(self) -> dict[str, str | int]:
        """Returns what the attacks did."""
        return {attack.name: attack.figures() for attack in self.attacks} | {"upstream_deaths": self._dying.deaths}

    def failed(self) -> list[str]:
        """Returns the attacks that did not take place: too few of their rounds got through."""
        failed = [attack.name for attack in self.attacks if attack.rounds < LEAST_ROUNDS]
        return failed + (["upstream_deaths"] if self._dying.deaths < LEAST_ROUNDS else [])


class _DyingUpstream(threading.Thread):
    """Reads some of each request and resets the connection."""

    def __init__(self):
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.deaths = 0

    def run(self) -> None:
        for _ in itertools.count():
            try:
                tcp, _ = self._listener.accept()
            except OSError:
                return
            with tcp, contextlib.suppress(OSError):
                tcp.settimeout(1)
                if tcp.recv(10_000):
                    self.deaths += 1
                time.sleep(0.01)
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
