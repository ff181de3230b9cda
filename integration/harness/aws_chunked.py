"""`aws-chunked` bodies, written and read as Amazon's S3 API Reference describes them.

Sources: "Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks" and
"Signature Calculation: Including Trailing Headers".
"""

import base64
import hashlib
import hmac
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

FORMS = (SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER)

_EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass
class ChunkSigner:
    """Computes the chain of signatures that begins with the one in the headers."""

    secret_key: str
    amz_date: str
    region: str
    signature: str
    """The one made last."""

    def sign_chunk(self, data: bytes) -> str:
        return self._sign("AWS4-HMAC-SHA256-PAYLOAD", _EMPTY, hashlib.sha256(data).hexdigest())

    def sign_trailers(self, trailers: Sequence[tuple[str, str]]) -> str:
        canonical = "".join(f"{name.lower()}:{value.strip()}\n" for name, value in sorted(trailers))
        return self._sign("AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(canonical.encode()).hexdigest())

    def _sign(self, algorithm: str, *hashes: str) -> str:
        day = self.amz_date[:8]
        scope = f"{day}/{self.region}/s3/aws4_request"
        string_to_sign = "\n".join([algorithm, self.amz_date, scope, self.signature, *hashes])
        key = b"AWS4" + self.secret_key.encode()
        for part in (day, self.region, "s3", "aws4_request", string_to_sign):
            key = hmac.digest(key, part.encode(), "sha256")
        self.signature = key.hex()
        return self.signature


@dataclass(frozen=True)
class ChunkedBody:
    """The content of an `aws-chunked` body. A missing signature is ""."""

    chunks: list[tuple[str, bytes]] = field(default_factory=list)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    trailer_signature: str = ""

    @property
    def data(self) -> bytes:
        return b"".join(data for _, data in self.chunks)

    @classmethod
    def read(cls, body: bytes) -> "ChunkedBody":
        """Reads a body; raises `ValueError` if it is malformed."""
        body_parts = cls()
        at = 0
        while True:
            line, at = _line(body, at)
            size, _, signature = line.partition(";chunk-signature=")
            end = at + int(size, 16)
            body_parts.chunks.append((signature, body[at:end]))
            if end == at:
                break
            if body[end : end + 2] != b"\r\n":
                raise ValueError(f"no CRLF after the chunk that ends at {end}")
            at = end + 2
        signature = ""
        while True:
            line, at = _line(body, at)
            if not line:
                break
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError(f"{line!r} is not a trailer")
            if name.lower() == "x-amz-trailer-signature":
                signature = value
            else:
                body_parts.trailers.append((name, value))
        if at != len(body):
            raise ValueError(f"{len(body) - at} bytes after the end")
        return cls(body_parts.chunks, body_parts.trailers, signature)


def _line(body: bytes, at: int) -> tuple[str, int]:
    end = body.index(b"\r\n", at)
    return body[at:end].decode(), end + 2


@dataclass(frozen=True)
class Upload:
    """A PUT as an SDK sends it: its headers and its chunked body."""

    headers: dict[str, str]
    body: bytes


def upload(
    url: str, form: str, data: bytes, credentials: Credentials, region: str, chunk_size: int = 65536, **more: str
) -> Upload:
    """Signs the headers with botocore, then the chunks. `more` are headers with `_` for `-`."""
    headers = {
        "X-Amz-Decoded-Content-Length": str(len(data)),
        "Content-Encoding": "aws-chunked",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    trailers = []
    if form != SIGNED:
        headers["X-Amz-Trailer"] = "x-amz-checksum-crc32"
        trailers.append(("x-amz-checksum-crc32", base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()))
    request = AWSRequest("PUT", url, headers=headers)

    class StreamingAuth(S3SigV4Auth):
        def payload(self, _):
            return form

    StreamingAuth(credentials, "s3", region).add_auth(request)
    signed = dict(request.headers.items())
    seed = signed["Authorization"].rpartition("=")[2]
    signer = ChunkSigner(credentials.secret_key, signed["X-Amz-Date"], region, seed)

    def header(chunk: bytes) -> bytes:
        signature = "" if form == UNSIGNED_TRAILER else f";chunk-signature={signer.sign_chunk(chunk)}"
        return f"{len(chunk):x}{signature}\r\n".encode()

    body = bytearray()
    for start in range(0, len(data), chunk_size):
        chunk = data[start : start + chunk_size]
        body += header(chunk) + chunk + b"\r\n"
    body += header(b"")
    for name, value in trailers:
        body += f"{name}:{value}\r\n".encode()
    if form == SIGNED_TRAILER:
        body += f"x-amz-trailer-signature:{signer.sign_trailers(trailers)}\r\n".encode()
    return Upload(signed, bytes(body + b"\r\n"))
