"""Verifies a request's signature as AWS would, with botocore's signer as the reference.

Header and query signatures, SigV4 and SigV4A, and chunked S3 uploads. What botocore lacks, the asymmetric key and the
chunk signatures, follows AWS's published descriptions.

Nothing here comes from the filter: the two have nothing in common but the signature.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from urllib.parse import quote, unquote, unquote_to_bytes

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from . import aws_chunked

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
CLOCK_SKEW = timedelta(minutes=15)

SIGV4 = "AWS4-HMAC-SHA256"
SIGV4A = "AWS4-ECDSA-P256-SHA256"
MAX_EXPIRY = timedelta(days=7)

# Bytes that are not UTF-8 are surrogates in a WireRequest, which botocore's mapping of headers changes; it leaves
# private-use characters unchanged.
_SHOWN = {0xDC00 + byte: 0xF700 + byte for byte in range(0x80, 0x100)}
_HIDDEN = {shown: hidden for hidden, shown in _SHOWN.items()}

_UNRESERVED = "-_.~"
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


# What takes no body without its length, by signing name.
_LENGTH_REQUIRED = {"s3", "s3express", "s3-outposts", "s3-object-lambda", "es", "aoss"}


class Refused(Exception):
    """AWS would refuse the request; the message is the reason."""

    status = 403


class LengthMissing(Refused):
    """The service wants to know how long the body is."""

    status = 411


@dataclass(frozen=True)
class WireRequest:
    """A request as it came off the wire: nothing decoded, joined or sorted. Bytes that are not UTF-8 are surrogates."""

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
        """Returns the value of a header that may occur once; raises `Refused` if it occurs more often."""
        values = [value for other, value in self.headers if other.lower() == name.lower()]
        if len(values) > 1:
            raise Refused(f"{name} is there {len(values)} times")
        return values[0] if values else None


@dataclass(frozen=True)
class Verdict:
    """A valid signature, and what it covers."""

    access_key_id: str
    region: str
    service: str
    signed_headers: list[str]
    payload: str  # "signed", "unsigned" or "chunked"
    location: str  # "header" or "query"


@dataclass(frozen=True)
class Signature:
    """The signature's parameters in a request."""

    location: str
    algorithm: str
    access_key_id: str
    scope: list[str]
    signed_headers: list[str]
    signature: str
    amz_date: str
    token: str | None
    region_set: str | None
    expires: timedelta | None = None

    @classmethod
    def of(cls, request: WireRequest) -> "Signature":
        parameters = _query_parameters(request.query)
        if "X-Amz-Signature" in parameters:
            if request.header("authorization") is not None:
                raise Refused("signed in the query and in the Authorization header")
            return cls._of_query(parameters)
        return cls._of_headers(request)

    @classmethod
    def _of_headers(cls, request: WireRequest) -> "Signature":
        authorization = request.header("authorization")
        if authorization is None:
            raise Refused("no Authorization header")
        algorithm, _, rest = authorization.partition(" ")
        _check_algorithm(algorithm)
        fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        amz_date = request.header("x-amz-date")
        if amz_date is None:
            raise Refused("no X-Amz-Date header")
        try:
            access_key_id, *scope = fields["Credential"].split("/")
            signed_headers, signature = fields["SignedHeaders"].split(";"), fields["Signature"]
        except KeyError as missing:
            raise Refused(f"Authorization has no {missing.args[0]}") from None
        token, region_set = request.header("x-amz-security-token"), request.header("x-amz-region-set")
        return cls("header", algorithm, access_key_id, scope, signed_headers, signature, amz_date, token, region_set)

    @classmethod
    def _of_query(cls, parameters: dict[str, list[str]]) -> "Signature":
        def one(name: str) -> str | None:
            values = parameters.get(name, [])
            if len(values) > 1:
                raise Refused(f"{name} is there {len(values)} times")
            return values[0] if values else None

        def needed(name: str) -> str:
            if (value := one(name)) is None:
                raise Refused(f"no {name} in the query")
            return value

        _check_algorithm(needed("X-Amz-Algorithm"))
        access_key_id, *scope = needed("X-Amz-Credential").split("/")
        expires = needed("X-Amz-Expires")
        if not expires.isdecimal() or timedelta(seconds=int(expires)) > MAX_EXPIRY:
            raise Refused(f"X-Amz-Expires is {expires}")
        return cls(
            "query",
            needed("X-Amz-Algorithm"),
            access_key_id,
            scope,
            needed("X-Amz-SignedHeaders").split(";"),
            needed("X-Amz-Signature"),
            needed("X-Amz-Date"),
            one("X-Amz-Security-Token"),
            one("X-Amz-Region-Set"),
            timedelta(seconds=int(expires)),
        )


@dataclass(frozen=True)
class Verifier:
    """Accepts requests signed under one of `keys` for one region and service."""

    keys: Mapping[str, Credentials]
    region: str
    service: str
    clock_offset: timedelta = timedelta()
    """How far its clock is ahead."""

    def now(self) -> datetime:
        return datetime.now(UTC) + self.clock_offset

    def verify(self, request: WireRequest, now: datetime | None = None) -> Verdict:
        """Verifies a request; raises `Refused` with the reason if AWS would answer 403 or 411."""
        if not request.target.startswith("/") or "#" in request.target:
            raise Refused(f"{request.target!r} is not an origin-form target")
        claimed = Signature.of(request)
        if (
            self.service == "s3"
            and {"AWSAccessKeyId", "Signature", "Expires"} <= _query_parameters(request.query).keys()
        ):
            raise Refused("signed with Signature Version 2 in the query, too")
        if self.service in _LENGTH_REQUIRED:
            _check_length(request)
        self._check_scope(claimed)
        _check_time(claimed, now or self.now())
        credentials = self.keys.get(claimed.access_key_id)
        if credentials is None:
            raise Refused(f"access key {claimed.access_key_id} is not known")
        if claimed.token != credentials.token:
            raise Refused("X-Amz-Security-Token is not the one of this access key")
        payload = self._check_payload(request, claimed)
        _check_signed_headers(request, claimed.signed_headers)

        signer = _Signer(request, credentials, claimed, self.service, self.region)
        if claimed.algorithm == SIGV4A:
            holds = _ecdsa_holds(credentials, signer.string_to_sign(), claimed.signature)
        else:
            holds = hmac.compare_digest(signer.signature(), claimed.signature)
        if not holds:
            raise Refused("the signature does not match the request")
        if payload == "chunked":
            self._check_chunks(request, credentials, claimed)
        return Verdict(
            claimed.access_key_id, self.region, self.service, claimed.signed_headers, payload, claimed.location
        )

    def _check_scope(self, claimed: Signature) -> None:
        expected = [claimed.amz_date[:8], self.region, self.service, "aws4_request"]
        if claimed.algorithm == SIGV4A:
            del expected[1]
            regions = (claimed.region_set or "").split(",")
            if not any(fnmatchcase(self.region, region.strip()) for region in regions):
                raise Refused(f"the region set {claimed.region_set} does not cover {self.region}")
        if claimed.scope != expected:
            raise Refused(f"scope is {'/'.join(claimed.scope)}, not {'/'.join(['DATE', *expected[1:]])}")

    def _check_payload(self, request: WireRequest, claimed: Signature) -> str:
        if self.service == "s3" and claimed.location == "query":
            return "unsigned"
        sha256 = request.header("x-amz-content-sha256")
        if sha256 is None:
            if self.service == "s3":
                raise Refused("no X-Amz-Content-SHA256 header, which S3 needs")
            return "signed"
        if sha256 == UNSIGNED_PAYLOAD:
            return "unsigned"
        if self.service == "s3" and sha256 in aws_chunked.FORMS:
            return "chunked"
        if sha256 != hashlib.sha256(request.body).hexdigest():
            raise Refused("X-Amz-Content-SHA256 is not the hash of the body")
        return "signed"

    def _check_chunks(self, request: WireRequest, credentials: Credentials, claimed: Signature) -> None:
        form = request.header("x-amz-content-sha256")
        try:
            body = aws_chunked.ChunkedBody.read(request.body)
        except ValueError as error:
            raise Refused(f"the chunked body is malformed: {error}") from None
        if request.header("x-amz-decoded-content-length") != str(len(body.data)):
            raise Refused("X-Amz-Decoded-Content-Length is not the length of the data")
        announced = [name for name in (request.header("x-amz-trailer") or "").split(",") if name]
        if announced != [name for name, _ in body.trailers]:
            raise Refused("the trailers are not those of X-Amz-Trailer")
        signer = aws_chunked.ChunkSigner(credentials.secret_key, claimed.amz_date, self.region, claimed.signature)
        for signature, data in body.chunks:
            if form != aws_chunked.UNSIGNED_TRAILER and signature != signer.sign_chunk(data):
                raise Refused("a chunk's signature does not match the chunk")
        if form == aws_chunked.SIGNED_TRAILER and body.trailer_signature != signer.sign_trailers(body.trailers):
            raise Refused("the trailers' signature does not match the trailers")


@dataclass(frozen=True)
class AnyScope(Verifier):
    """Accepts a signature for any service and region; the test checks which they were."""

    region: str = ""
    service: str = ""

    def verify(self, request, now=None):
        claimed = Signature.of(request)
        *region, service, end = claimed.scope[1:]
        if end != "aws4_request":
            raise Refused(f"scope is {claimed.scope}")
        # A set of regions is not part of the scope.
        named = region[0] if region else claimed.region_set.split(",")[0].replace("*", "us-east-1")
        verdict = Verifier(self.keys, named, service).verify(request, now)
        return verdict if region else replace(verdict, region=claimed.region_set)


class _Signer:
    """Recomputes a signature with botocore."""

    def __init__(self, request: WireRequest, credentials: Credentials, claimed: Signature, service: str, region: str):
        path = _as_s3_reads_it(request.path) if service == "s3" else request.path
        read = AWSRequest(method=request.method, url=f"http://upstream{path}?{_canonical(request.query)}")
        signed_headers = set(claimed.signed_headers)
        for name, value in request.headers:
            if name.lower() in signed_headers:
                read.headers[name] = value.translate(_SHOWN)
        read.context["timestamp"] = claimed.amz_date
        if service == "s3":
            # S3 does not check the body of a presigned request.
            unsigned = claimed.location == "query"
            signer_class = S3SigV4QueryAuth if unsigned else S3SigV4Auth
        else:
            unsigned, signer_class = False, SigV4Auth
        self._claimed, self._request = claimed, read

        class Signer(signer_class):
            def payload(self, _):
                return UNSIGNED_PAYLOAD if unsigned else hashlib.sha256(request.body).hexdigest()

            def headers_to_sign(self, request):
                return _HeadersByName(super().headers_to_sign(request))

        self._signer = Signer(credentials, service, region)

    def string_to_sign(self) -> str:
        # Not botocore's own, which supports neither bytes outside UTF-8 nor SigV4A.
        canonical_request = self._signer.canonical_request(self._request)
        canonical_request = canonical_request.translate(_HIDDEN).encode(errors="surrogateescape")
        claimed, digest = self._claimed, hashlib.sha256(canonical_request).hexdigest()
        return "\n".join([claimed.algorithm, claimed.amz_date, "/".join(claimed.scope), digest])

    def signature(self) -> str:
        return self._signer.signature(self.string_to_sign(), self._request)


class _HeadersByName(dict[str, list[str]]):
    """The headers that botocore signs. Its own mapping walks all of them for each name: seconds for some thousands."""

    def __init__(self, headers):
        super().__init__()
        for name, value in headers.items():
            self.setdefault(name, []).append(value)

    def get_all(self, name: str) -> list[str]:
        """Returns the values of a name, as botocore asks for them."""
        return self[name]


def _check_algorithm(algorithm: str) -> None:
    if algorithm not in (SIGV4, SIGV4A):
        raise Refused(f"the algorithm is {algorithm or 'missing'}")


def sigv4a_key(credentials: Credentials) -> ec.EllipticCurvePrivateKey:
    """Derives the key pair of credentials: IAM User Guide, "Deriving a signing key for SigV4a"."""
    secret = b"AWS4A" + credentials.secret_key.encode()
    for counter in range(1, 255):
        context = credentials.access_key.encode() + bytes([counter])
        fixed_input = SIGV4A.encode() + b"\0" + context + (256).to_bytes(4, "big")
        candidate = int.from_bytes(hmac.digest(secret, (1).to_bytes(4, "big") + fixed_input, "sha256"), "big")
        if candidate <= _P256_ORDER - 2:
            return ec.derive_private_key(candidate + 1, ec.SECP256R1())
    raise ValueError("no candidate is in range")


def _ecdsa_holds(credentials: Credentials, string_to_sign: str, signature: str) -> bool:
    try:
        public_key = sigv4a_key(credentials).public_key()
        public_key.verify(bytes.fromhex(signature), string_to_sign.encode(), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def _check_time(claimed: Signature, now: datetime) -> None:
    try:
        signed_at = datetime.strptime(claimed.amz_date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise Refused(f"X-Amz-Date {claimed.amz_date} is not an ISO 8601 basic date") from None
    latest = signed_at + (claimed.expires or CLOCK_SKEW)
    if now > latest and claimed.expires is not None:
        raise Refused(f"expired at {latest:%H:%M:%S}")
    if now > latest or signed_at - now > CLOCK_SKEW:
        raise Refused(f"signed at {signed_at:%H:%M:%S}, which is more than 15 minutes off")


def _check_length(request: WireRequest) -> None:
    # S3 takes a chunked body only as aws-chunked: S3 User Guide, "Signature Calculations for the Authorization Header:
    # Transferring Payload in Multiple Chunks".
    in_chunks = request.header("x-amz-content-sha256") in aws_chunked.FORMS
    if in_chunks and request.header("x-amz-decoded-content-length") is None:
        raise LengthMissing("no X-Amz-Decoded-Content-Length")
    if not in_chunks and request.header("transfer-encoding") is not None:
        raise LengthMissing("no Content-Length")


def _check_signed_headers(request: WireRequest, signed_headers: list[str]) -> None:
    if signed_headers != sorted(signed_headers):
        raise Refused("SignedHeaders are not in order")
    present = {name.lower() for name, _ in request.headers}
    if absent := set(signed_headers) - present:
        raise Refused(f"signed but missing: {', '.join(sorted(absent))}")
    must = {"host"} | {name for name in present if name.startswith("x-amz-")}
    if loose := must - set(signed_headers):
        raise Refused(f"present but not signed: {', '.join(sorted(loose))}")


def _as_s3_reads_it(path: str) -> str:
    # S3 decodes each segment and encodes it the AWS way; an encoded slash stays encoded, as in the ARNs of S3 Control.
    return "/".join(quote(unquote_to_bytes(segment), safe=_UNRESERVED) for segment in path.split("/"))


def _query_parameters(query: str) -> dict[str, list[str]]:
    parameters: dict[str, list[str]] = {}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        parameters.setdefault(unquote(name), []).append(unquote(value))
    return parameters


def _canonical(query: str) -> str:
    # AWS decodes names and values ("+" is a space in a query) and encodes them again; botocore then sorts them.
    def encode(part: str) -> str:
        return quote(unquote_to_bytes(part.replace("+", " ")), safe=_UNRESERVED)

    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return "&".join(f"{encode(name)}={encode(value)}" for name, _, value in pairs if name != "X-Amz-Signature")
