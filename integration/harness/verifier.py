"""Reads a request as AWS would and says whether its signature holds, with botocore's signer as the authority.

Nothing here comes from the filter: what the filter signs and what this computes meet only in the signature.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote_to_bytes

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
CLOCK_SKEW = timedelta(minutes=15)

_ALGORITHM = "AWS4-HMAC-SHA256"
_UNRESERVED = "-_.~"


class Refused(Exception):
    """The request would not be let in; the message is the reason."""


@dataclass(frozen=True)
class WireRequest:
    """A request as it came off the wire: nothing decoded, joined or put in order."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def header(self, name: str) -> str | None:
        """The value of a header that may be there once; `Refused` where it is there more often."""
        values = [value for other, value in self.headers if other.lower() == name.lower()]
        if len(values) > 1:
            raise Refused(f"{name} is there {len(values)} times")
        return values[0] if values else None


@dataclass(frozen=True)
class Verdict:
    """A signature that holds, and what it covers."""

    access_key_id: str
    region: str
    service: str
    signed_headers: list[str]
    payload: str  # "signed" or "unsigned"


@dataclass(frozen=True)
class Verifier:
    """Accepts requests signed under one of `keys` for one region and service."""

    keys: Mapping[str, Credentials]
    region: str
    service: str

    def verify(self, request: WireRequest, now: datetime | None = None) -> Verdict:
        """`Refused` with the reason, where AWS would answer 403."""
        if not request.target.startswith("/") or "#" in request.target:
            raise Refused(f"{request.target!r} is no origin-form target")
        authorization = request.header("authorization")
        if authorization is None:
            raise Refused("no Authorization header")
        access_key_id, scope, signed_headers, signature = _parse_authorization(authorization)
        amz_date = request.header("x-amz-date")
        if amz_date is None:
            raise Refused("no X-Amz-Date header")

        self._check_scope(scope, amz_date, now or datetime.now(UTC))
        credentials = self.keys.get(access_key_id)
        if credentials is None:
            raise Refused(f"access key {access_key_id} is not known")
        if request.header("x-amz-security-token") != credentials.token:
            raise Refused("X-Amz-Security-Token is not the one of this access key")
        payload = self._check_payload(request)
        _check_signed_headers(request, signed_headers)

        expected = self._signature(request, credentials, signed_headers, amz_date)
        if not hmac.compare_digest(expected, signature):
            raise Refused("the signature does not match the request")
        return Verdict(access_key_id, self.region, self.service, signed_headers, payload)

    def _check_scope(self, scope: list[str], amz_date: str, now: datetime) -> None:
        if scope != [amz_date[:8], self.region, self.service, "aws4_request"]:
            raise Refused(f"scope is {'/'.join(scope)}, not DATE/{self.region}/{self.service}/aws4_request")
        try:
            signed_at = datetime.strptime(amz_date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise Refused(f"X-Amz-Date {amz_date} is no ISO 8601 basic date") from None
        if abs(now - signed_at) > CLOCK_SKEW:
            raise Refused(f"signed at {signed_at:%H:%M:%S}, which is more than 15 minutes off")

    def _check_payload(self, request: WireRequest) -> str:
        claimed = request.header("x-amz-content-sha256")
        if claimed is None:
            if self.service == "s3":
                raise Refused("no X-Amz-Content-SHA256 header, which S3 needs")
            return "signed"
        if claimed == UNSIGNED_PAYLOAD:
            return "unsigned"
        if claimed != hashlib.sha256(request.body).hexdigest():
            raise Refused("X-Amz-Content-SHA256 is not the hash of the body")
        return "signed"

    def _signature(
        self, request: WireRequest, credentials: Credentials, signed_headers: list[str], amz_date: str
    ) -> str:
        path = _as_s3_reads_it(request.path) if self.service == "s3" else request.path
        read = AWSRequest(method=request.method, url=f"http://upstream{path}?{_canonical(request.query)}")
        for name, value in request.headers:
            if name.lower() in signed_headers:
                read.headers[name] = value
        read.context["timestamp"] = amz_date

        class Signer(S3SigV4Auth if self.service == "s3" else SigV4Auth):
            def payload(self, _):
                return hashlib.sha256(request.body).hexdigest()

        signer = Signer(credentials, self.service, self.region)
        return signer.signature(signer.string_to_sign(read, signer.canonical_request(read)), read)


def _parse_authorization(value: str) -> tuple[str, list[str], list[str], str]:
    algorithm, _, rest = value.partition(" ")
    if algorithm != _ALGORITHM:
        raise Refused(f"Authorization's algorithm is {algorithm or 'missing'}")
    fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    try:
        access_key_id, *scope = fields["Credential"].split("/")
        return access_key_id, scope, fields["SignedHeaders"].split(";"), fields["Signature"]
    except KeyError as missing:
        raise Refused(f"Authorization has no {missing.args[0]}") from None


def _check_signed_headers(request: WireRequest, signed_headers: list[str]) -> None:
    if signed_headers != sorted(signed_headers):
        raise Refused("SignedHeaders are not in order")
    present = {name.lower() for name, _ in request.headers}
    if absent := set(signed_headers) - present:
        raise Refused(f"signed but not there: {', '.join(sorted(absent))}")
    must = {"host"} | {name for name in present if name.startswith("x-amz-")}
    if loose := must - set(signed_headers):
        raise Refused(f"there but not signed: {', '.join(sorted(loose))}")


def _as_s3_reads_it(path: str) -> str:
    # S3 decodes each segment and encodes it the AWS way; an encoded slash stays one, as in the ARNs of S3 Control.
    return "/".join(quote(unquote_to_bytes(segment), safe=_UNRESERVED) for segment in path.split("/"))


def _canonical(query: str) -> str:
    # AWS decodes names and values ("+" is a space in a query) and encodes them anew; botocore then sorts them.
    def encode(part: str) -> str:
        return quote(unquote_to_bytes(part.replace("+", " ")), safe=_UNRESERVED)

    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return "&".join(f"{encode(name)}={encode(value)}" for name, _, value in pairs)
