"""Clients of the proxy: curl for what a person would type, and HTTP/2 frames for what curl can't send."""

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
    """An answer as it came."""

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
) -> Response:
    """One request with curl, the path sent as it is written."""
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
    if unix_socket is not None:
        command += ["--unix-socket", unix_socket]
    done = subprocess.run([*command, *options, url], input=body or b"", capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"curl ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
    status, response_headers = _last_head(done.stderr)
    return Response(status, response_headers, b"" if method == "HEAD" else done.stdout)


def _last_head(heads: bytes) -> tuple[int, dict[str, str]]:
    # The last one: before it may stand "100 Continue".
    head = heads.decode("latin-1").strip().split("\r\n\r\n")[-1]
    status_line, *lines = head.split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(status_line.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


def http2_with_trailers(
    port: int,
    method: str,
    path: str,
    body: bytes,
    trailers: Sequence[tuple[str, str]],
    headers: Sequence[tuple[str, str]] = (),
    authority: str = "localhost",
    timeout: float = 30,
) -> Response:
    """One HTTP/2 request whose stream ends with trailers in place of a last DATA frame; a body of at most 64 KiB."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as tcp:
        connection.initiate_connection()
        head = [(":method", method), (":scheme", "http"), (":authority", authority), (":path", path), *headers]
        connection.send_headers(1, head)
        for start in range(0, len(body), connection.max_outbound_frame_size):
            connection.send_data(1, body[start : start + connection.max_outbound_frame_size])
        connection.send_headers(1, list(trailers), end_stream=True)
        tcp.sendall(connection.data_to_send())
        return _http2_response(connection, tcp)


def _http2_response(connection: h2.connection.H2Connection, tcp: socket.socket) -> Response:
    response_headers: dict[str, str] = {}
    body = bytearray()
    while data := tcp.recv(65536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                response_headers = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                body += event.data
                connection.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, h2.events.StreamEnded):
                return Response(int(response_headers.pop(":status")), response_headers, bytes(body))
            elif isinstance(event, h2.events.StreamReset):
                raise ConnectionResetError(f"the stream was reset: {event.error_code}")
        tcp.sendall(connection.data_to_send())
    raise ConnectionError("the connection ended before the answer")
