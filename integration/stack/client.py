"""Clients of the proxy: curl for what a user would type, and HTTP/2 frames for what curl can't send."""

import json
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import h2.config
import h2.connection
import h2.events


@dataclass(frozen=True)
class Response:
    """An answer as it was received."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


def curl(
    url: str,
    method: str = "GET",
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    body: bytes | None = None,
    http2: bool = False,
    unix_socket: str | None = None,
    timeout: float = 30,
    options: Sequence[str] = (),
    upload: bytes | None = None,
) -> Response:
    """Sends one request with curl, with the path as written. An `upload` comes from a pipe, so that curl does not know
    its length (`-T -`)."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    command = ["curl", "--silent", "--show-error", "--globoff", "--path-as-is", "--noproxy", "*",
               "--max-time", str(timeout), "--dump-header", "/dev/stderr"]  # fmt: skip
    command += ["--http2-prior-knowledge"] if http2 else ["--http1.1"]
    command += ["--head"] if method == "HEAD" else ["--request", method]
    for name, value in pairs:
        command += ["--header", f"{name}: {value}" if value else f"{name};"]
    if body is not None:
        command += ["--data-binary", "@-"]
        if "content-type" not in {name.lower() for name, _ in pairs}:
            command += ["--header", "Content-Type:"]
    if upload is not None:
        command += ["--upload-file", "-"]
        body = upload
    if unix_socket is not None:
        command += ["--unix-socket", unix_socket]
    done = subprocess.run([*command, *options, url], input=body or b"", capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"curl ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
    status, response_headers = _last_head(done.stderr)
    return Response(status, response_headers, b"" if method == "HEAD" else done.stdout)


def _last_head(heads: bytes) -> tuple[int, dict[str, str]]:
    # The last one: "100 Continue" may come before it.
    head = heads.decode("latin-1").strip().split("\r\n\r\n")[-1]
    status_line, *lines = head.split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(status_line.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


class Http2:
    """One HTTP/2 connection for consecutive requests, which sends what curl can't: bytes that are not text, and
    trailers."""

    def __init__(self, port: int, timeout: float = 30):
        self._address, self._timeout = ("127.0.0.1", port), timeout

    def __enter__(self):
        self._connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self._tcp = socket.create_connection(self._address, timeout=self._timeout)
        self._connection.initiate_connection()
        return self

    def __exit__(self, *_):
        self._tcp.close()

    def request(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str | bytes]] = (),
        body: bytes = b"",
        trailers: Sequence[tuple[str, str]] = (),
        authority: str = "localhost",
        ends: bool = True,
    ) -> Response:
        """Sends one request; trailers end its stream instead of a last DATA frame. One that does not end is left open,
        for an answer that comes before its end."""
        stream = self._connection.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":authority", authority), (":path", path), *headers]
        unsent, status, response_headers, response_body = memoryview(body), 0, {}, bytearray()
        ended = ends and not body and not trailers
        self._connection.send_headers(stream, head, end_stream=ended)
        while True:
            while not ended:
                size = min(
                    len(unsent),
                    self._connection.local_flow_control_window(stream),
                    self._connection.max_outbound_frame_size,
                )
                if size:
                    self._connection.send_data(stream, bytes(unsent[:size]))
                    unsent = unsent[size:]
                elif unsent or not ends:
                    break
                elif trailers:
                    self._connection.send_headers(stream, list(trailers), end_stream=True)
                    ended = True
                else:
                    self._connection.end_stream(stream)
                    ended = True
            self._tcp.sendall(self._connection.data_to_send())
            data = self._tcp.recv(65536)
            if not data:
                raise ConnectionError("the connection ended before the answer")
            for event in self._connection.receive_data(data):
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, h2.events.ResponseReceived):
                    response_headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                    status = int(response_headers.pop(":status"))
                elif isinstance(event, h2.events.DataReceived):
                    response_body += event.data
                    self._connection.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, h2.events.StreamEnded):
                    self._tcp.sendall(self._connection.data_to_send())
                    return Response(status, response_headers, bytes(response_body))
                elif isinstance(event, h2.events.StreamReset):
                    raise ConnectionResetError(f"the stream was reset: {event.error_code}")


def http2(port: int, method: str, path: str, **options) -> Response:
    """Sends one request over a connection of its own; the options are those of `Http2.request`."""
    with Http2(port) as connection:
        return connection.request(method, path, **options)
