"""A fast STS for many roles; it assumes any, and verifies nothing."""

import asyncio
import ssl
import threading
from datetime import UTC, datetime, timedelta

_ANSWER = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>\
<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>{token}</SessionToken>\
<Expiration>{expiration}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""

# As long as those of the real one.
_TOKEN = "T" * 800


class QuickSts:
    """Answers each call after `latency` seconds, and counts the calls and the most in flight together."""

    def __init__(self, latency: float = 0.05, tls: ssl.SSLContext | None = None):
        self._tls = tls
        self.latency = latency
        self.calls = 0
        self.most_in_flight = 0
        self._in_flight = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls), self._loop
        )
        self._server = server.result(10)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"https://localhost:{port}" if self._tls else f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                await reader.readexactly(int(length.split(b":")[1]))
                writer.write(await self._answer())
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self) -> bytes:
        self.calls += 1
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        await asyncio.sleep(self.latency)
        self._in_flight -= 1
        expiration = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = _ANSWER.format(key=f"ASIA{self.calls:016}", token=_TOKEN, expiration=expiration)
        return f"HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
