"""A fast STS for many roles; it assumes any but those that it denies, and verifies nothing."""

import asyncio
import ssl
import threading
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

from botocore.credentials import Credentials

_ANSWER = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>\
<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>{token}</SessionToken>\
<Expiration>{expiration}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""

_DENIED = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>\
<Code>AccessDenied</Code><Message>not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>"""

# As long as those of the real one.
_TOKEN = "T" * 800


class QuickSts:
    """Answers each call after `latency` seconds, and counts the calls and the most in flight together.

    `assumed` has the parameters of each call, `keys` the key that answered it; a role whose ARN contains one of
    `denied` is denied.
    """

    def __init__(self, latency: float = 0.05, tls: ssl.SSLContext | None = None):
        self._tls = tls
        self.latency = latency
        self.calls = 0
        self.assumed: list[dict[str, str]] = []
        self.keys: dict[str, Credentials] = {}
        self.lifetime = timedelta(hours=1)
        self.denied: set[str] = set()
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
                body = await reader.readexactly(int(length.split(b":")[1]))
                writer.write(await self._answer(dict(parse_qsl(body.decode()))))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, parameters: dict[str, str]) -> bytes:
        self.calls += 1
        self.assumed.append(parameters)
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        await asyncio.sleep(self.latency)
        self._in_flight -= 1
        if any(name in parameters.get("RoleArn", "") for name in self.denied):
            return _message("403 Forbidden", _DENIED)
        expiration = (datetime.now(UTC) + self.lifetime).strftime("%Y-%m-%dT%H:%M:%SZ")
        key = f"ASIA{len(self.keys):016}"
        self.keys[key] = Credentials(key, "secret", _TOKEN)
        return _message("200 OK", _ANSWER.format(key=key, token=_TOKEN, expiration=expiration))


def _message(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: text/xml\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
