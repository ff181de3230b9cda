"""A strict upstream: a small HTTP/1.1 server that verifies what it receives, and keeps a record."""

import asyncio
import hashlib
import json
import ssl
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import format_datetime

import h11

from .verifier import Refused, Verdict, Verifier, WireRequest

# As much as any test sends: the proxy is to reject what is too large.
_HEAD_MAX = 4 << 20


@dataclass(frozen=True)
class Received:
    """One request that reached the upstream, and the verifier's verdict."""

    request: WireRequest
    trailers: list[tuple[str, str]]
    verdict: Verdict | None
    refusal: str | None
    status: int = 200

    @property
    def accepted(self) -> bool:
        return self.verdict is not None

    def report(self) -> dict:
        """Returns the upstream's answer: enough to see what went over the wire."""
        return {
            "method": self.request.method,
            "target": self.request.target,
            "headers": self.request.headers,
            "bodySha256": hashlib.sha256(self.request.body).hexdigest(),
            "bodyLength": len(self.request.body),
            "refusal": self.refusal,
            "verdict": vars(self.verdict) if self.verdict else None,
        }


@dataclass
class Answer:
    """The upstream's answer to a request that it accepts.

    A part is bytes that are sent immediately, or an event to wait for before the next part.
    """

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    parts: Sequence[bytes | threading.Event] = ()


@dataclass
class Upstream:
    """Listens on a free port of 127.0.0.1, over TLS if `tls` is set. Answers 200 if `verifier` accepts, 411 if the
    service requires the length of a body that has none, else 403."""

    verifier: Verifier
    tls: ssl.SSLContext | None = None
    answer: Answer | None = None
    """Instead of the JSON report."""
    received: list[Received] = field(default_factory=list)
    arrived: int = 0
    """Bytes of request bodies that have come so far, those of unfinished requests too."""

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls))
        return self

    def __exit__(self, *_):
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def port(self) -> int:
        return self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}" if self.tls else f"http://127.0.0.1:{self.port}"

    @property
    def last(self) -> Received:
        """Returns the latest request; raises an error if there is none."""
        assert self.received, "no request reached the upstream"
        return self.received[-1]

    def reset(self) -> None:
        """Forgets all requests, and answers with the report again."""
        self.received.clear()
        self.answer, self.arrived = None, 0

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _close(self):
        self._server.close()
        connections = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_MAX)
        try:
            while (received := await self._receive(connection, reader, writer)) is not None:
                self.received.append(received)
                if received.accepted and received.request.header("upgrade") == "websocket":
                    await _echo(connection, reader, writer)
                    break
                await self._respond(connection, writer, received)
                if connection.our_state is h11.MUST_CLOSE:
                    break
                connection.start_next_cycle()
        except (ConnectionError, h11.RemoteProtocolError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _receive(self, connection, reader, writer) -> Received | None:
        head, body, trailers = None, bytearray(), []
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    await _send(connection, writer, h11.InformationalResponse(status_code=100, headers=[]))
                connection.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                self.arrived += len(event.data)
            elif isinstance(event, h11.EndOfMessage):
                trailers = _text(event.headers)
                break
            else:
                return None
        request = WireRequest(_decode(head.method), _decode(head.target), _text(head.headers), bytes(body))
        try:
            return Received(request, trailers, self.verifier.verify(request), None)
        except Refused as refusal:
            return Received(request, trailers, None, str(refusal), refusal.status)

    async def _respond(self, connection, writer, received: Received):
        if received.accepted and self.answer is not None:
            answer = self.answer
        else:
            report = json.dumps(received.report()).encode()
            headers = [
                ("content-type", "application/json"),
                ("date", format_datetime(self.verifier.now(), usegmt=True)),
                ("x-amzn-requestid", str(uuid.uuid4())),
            ]
            answer = Answer(received.status, headers, [report])
        length = [("content-length", str(sum(map(len, answer.parts))))] if _is_whole(answer) else []
        response = h11.Response(status_code=answer.status, headers=[*answer.headers, *length])
        await _send(connection, writer, response)
        for part in answer.parts:
            if isinstance(part, threading.Event):
                while not part.is_set():
                    await asyncio.sleep(0.01)
            elif received.request.method != "HEAD":
                await _send(connection, writer, h11.Data(data=part))
        await _send(connection, writer, h11.EndOfMessage())


async def _echo(connection, reader, writer):
    # The rest is not HTTP; it need not be WebSocket frames either.
    switch = h11.InformationalResponse(status_code=101, headers=[("upgrade", "websocket"), ("connection", "upgrade")])
    await _send(connection, writer, switch)
    data, _ = connection.trailing_data
    while data or (data := await reader.read(65536)):
        writer.write(data)
        await writer.drain()
        data = b""


def _is_whole(answer: Answer) -> bool:
    return all(isinstance(part, bytes) for part in answer.parts)


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, event):
    writer.write(connection.send(event))
    await writer.drain()


def _text(headers) -> list[tuple[str, str]]:
    return [(_decode(name), _decode(value)) for name, value in headers]


def _decode(value: bytes) -> str:
    # Bytes that are not UTF-8 stay distinguishable: a signature is over bytes.
    return bytes(value).decode(errors="surrogateescape")
