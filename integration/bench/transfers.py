"""Large objects: an upstream that takes and gives them, and an SDK that moves them."""

import multiprocessing
import socket
import threading
import time
from pathlib import Path

from integration.harness.sdk import sdk_client

MIB = 1 << 20
_PIECE = bytes(MIB)


class Storage:
    """An HTTP/1.1 server in a process of its own, which reads and counts what is put, and answers a GET with `size`
    bytes."""

    def __init__(self, size: int = 0):
        self._size = size
        self._received = multiprocessing.Value("Q")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._process = multiprocessing.get_context("fork").Process(target=self._accept, daemon=True)

    @property
    def received(self) -> int:
        return self._received.value

    def __enter__(self):
        self._process.start()
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        buffer = memoryview(bytearray(MIB))
        with connection, connection.makefile("rb", buffering=0) as requests:
            while head := _head(requests):
                length = next((int(line.split(b":")[1]) for line in head if line.startswith(b"content-length")), 0)
                if b"expect: 100-continue" in head:
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                left = length
                while left:
                    if not (read := requests.readinto(buffer[:left])):
                        return
                    left -= read
                with self._received.get_lock():
                    self._received.value += length
                size = self._size if head[0].startswith(b"get") else 0
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
                for _ in range(size // MIB):
                    connection.sendall(_PIECE)


def _head(requests) -> list[bytes]:
    """Returns the lines of the next request's head in lower case; none at the end of the connection."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        # Byte by byte, as the body must stay where it is.
        if not (byte := requests.read(1)):
            return []
        head += byte
    return head.lower().split(b"\r\n")


def upload(url: str, file: Path, part: int) -> float:
    """Puts a file with boto3 as objects of `part` bytes; returns the seconds that it took."""
    s3 = sdk_client("s3", url)
    data, size = file.read_bytes(), file.stat().st_size
    start = time.monotonic()
    for at in range(0, size, part):
        s3.put_object(Bucket="orders", Key=f"part-{at}", Body=data[at : at + part])
    return time.monotonic() - start


def download(url: str, size: int) -> float:
    """Gets an object with boto3; returns the seconds that it took."""
    s3 = sdk_client("s3", url)
    start = time.monotonic()
    body = s3.get_object(Bucket="orders", Key="object")["Body"]
    received = sum(len(piece) for piece in body.iter_chunks(MIB))
    if received != size:
        raise RuntimeError(f"{received} of {size} bytes arrived")
    return time.monotonic() - start
