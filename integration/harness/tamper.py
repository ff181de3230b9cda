"""A hop that changes bytes between Envoy and the upstream, as an attacker on the wire would."""

import contextlib
import socket
import threading
from dataclasses import dataclass


@dataclass
class Tamper:
    """Passes TCP on to `port` of 127.0.0.1; in what the client sends, `old` becomes `new` once per read."""

    port: int
    old: bytes = b""
    new: bytes = b""
    changed: int = 0
    """How many times it changed something."""

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        # shutdown wakes the thread that waits in accept; close alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def change(self, old: bytes, new: bytes) -> None:
        assert len(old) == len(new), "content-length would no longer fit"
        self.old, self.new, self.changed = old, new, 0

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.port))
            threading.Thread(target=self._pass_on, args=(client, server, self._alter), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(server, client, bytes), daemon=True).start()

    def _alter(self, data: bytes) -> bytes:
        if self.old and self.old in data:
            self.changed += 1
            return data.replace(self.old, self.new, 1)
        return data

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket, alter):
        try:
            while data := source.recv(65536):
                sink.sendall(alter(data))
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
