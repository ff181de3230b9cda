"""A capture on the wire between two processes, which can also change the traffic, as an attacker would."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable


class Capture:
    """Forwards TCP to `port` of 127.0.0.1 and keeps what the client sends; with `tls`, it terminates the client's
    TLS."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None):
        self._port, self._tls = port, tls
        self._old = self._new = b""
        self.changed = 0
        """How many times it changed something since `change`."""
        self.sent = bytearray()
        """What came from the client's side, before any change."""

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"https://localhost:{self.port}" if self._tls else f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        # shutdown unblocks the thread that waits in accept; close alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def change(self, old: bytes, new: bytes) -> None:
        """Replaces, from now on, the first `old` in each piece read from the client's side by `new`."""
        assert len(old) == len(new), "content-length would no longer fit"
        self._old, self._new, self.changed = old, new, 0

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._tls:
                try:
                    client = self._tls.wrap_socket(client, server_side=True)
                except OSError:
                    # For example, the client does not trust the certificate.
                    continue
            server = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=_pass_on, args=(client, server, self._listen), daemon=True).start()
            threading.Thread(target=_pass_on, args=(server, client, bytes), daemon=True).start()

    def _listen(self, data: bytes) -> bytes:
        self.sent += data
        if self._old and self._old in data:
            self.changed += 1
            return data.replace(self._old, self._new, 1)
        return data


def _pass_on(source: socket.socket, sink: socket.socket, through: Callable[[bytes], bytes]) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(through(data))
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
