"""The verifier, on which the other tests rely, accepts what botocore signs, and refuses any tampering."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest

from integration.harness.keys import STATIC_KEY, TEMPORARY_KEY
from integration.harness.verifier import Refused, Verifier, WireRequest

BODY = b'{"order": 1}'


def signed(
    target: str = "/prod/orders?b=2&a=1",
    body: bytes = BODY,
    credentials=STATIC_KEY,
    region: str = "eu-west-1",
    service: str = "execute-api",
) -> WireRequest:
    """Returns a request as botocore signs and an HTTP client sends it."""
    request = AWSRequest(
        "POST",
        f"http://api.example.com{target}",
        headers={"Host": "api.example.com", "Content-Type": "application/json"},
        data=body,
    )
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    signer(credentials, service, region).add_auth(request)
    return WireRequest("POST", target, list(request.headers.items()), body)


def with_header(request: WireRequest, name: str, value: str | None) -> WireRequest:
    """Returns `request` with one header replaced, added, or (`None`) removed."""
    others = [(other, old) for other, old in request.headers if other.lower() != name.lower()]
    return replace(request, headers=others if value is None else [*others, (name, value)])


def refusal(verifier: Verifier, request: WireRequest, **arguments) -> str:
    with pytest.raises(Refused) as refused:
        verifier.verify(request, **arguments)
    return str(refused.value)


@pytest.mark.parametrize("credentials", [STATIC_KEY, TEMPORARY_KEY], ids=["static", "temporary"])
def test_accepts_what_botocore_signs(api_verifier, credentials):
    verdict = api_verifier.verify(signed(credentials=credentials))

    assert verdict.access_key_id == credentials.access_key
    assert verdict.payload == "signed"
    assert {"host", "x-amz-date"} <= set(verdict.signed_headers)


def test_accepts_what_botocore_signs_for_s3(s3_verifier):
    assert s3_verifier.verify(signed("/bucket/a%20b%2Bc/%C3%BC%281%29.txt", service="s3")).payload == "signed"


def test_reads_a_path_for_s3_as_the_key_it_names(s3_verifier):
    request = signed("/bucket/a%20b", service="s3")
    assert s3_verifier.verify(replace(request, target="/bucket/%61%20b"))


@pytest.mark.parametrize(
    ("tampering", "reason"),
    [
        (lambda r: replace(r, method="PUT"), "signature does not match"),
        (lambda r: replace(r, target="/prod/order5?b=2&a=1"), "signature does not match"),
        (lambda r: replace(r, target="/prod/orders?b=2&a=9"), "signature does not match"),
        (lambda r: replace(r, body=b'{"order": 2}'), "signature does not match"),
        (lambda r: with_header(r, "Host", "api.example.org"), "signature does not match"),
        (lambda r: with_header(r, "Content-Type", "text/plain"), "signature does not match"),
        (lambda r: with_header(r, "Authorization", None), "no Authorization header"),
        (lambda r: with_header(r, "Authorization", "Bearer t"), "algorithm is Bearer"),
        (lambda r: with_header(r, "X-Amz-Date", None), "no X-Amz-Date"),
        (lambda r: with_header(r, "X-Amz-Meta-Loose", "1"), "present but not signed: x-amz-meta-loose"),
        (lambda r: with_header(r, "Content-Type", None), "signed but missing: content-type"),
        (lambda r: with_header(r, "X-Amz-Security-Token", "t"), "not the one of this access key"),
        (
            lambda r: replace(r, headers=r.headers + [h for h in r.headers if h[0] == "Authorization"]),
            "is there 2 times",
        ),
    ],
)
def test_refuses_a_tampered_request(api_verifier, tampering, reason):
    assert reason in refusal(api_verifier, tampering(signed()))


def test_refuses_a_changed_byte_anywhere_in_the_signature(api_verifier):
    request = signed()
    authorization = request.header("authorization")
    last = "0" if authorization[-1] != "0" else "1"

    assert "does not match" in refusal(api_verifier, with_header(request, "Authorization", authorization[:-1] + last))


def test_refuses_a_missing_or_false_session_token(api_verifier):
    request = signed(credentials=TEMPORARY_KEY)

    assert "not the one" in refusal(api_verifier, with_header(request, "X-Amz-Security-Token", None))
    assert "not the one" in refusal(api_verifier, with_header(request, "X-Amz-Security-Token", "FwoGother"))


def test_refuses_another_scope(api_verifier):
    assert "scope is" in refusal(api_verifier, signed(region="us-east-1"))
    assert "scope is" in refusal(api_verifier, signed(service="lambda"))


def test_refuses_an_unknown_key(s3_verifier):
    assert "not known" in refusal(replace(s3_verifier, keys={}), signed(service="s3"))


@pytest.mark.parametrize("off", [timedelta(minutes=-16), timedelta(minutes=16)], ids=["old", "ahead"])
def test_refuses_a_date_more_than_15_minutes_off(api_verifier, off):
    now = datetime.now(UTC) + off
    # Near midnight, the scope's date already fails.
    assert any(part in refusal(api_verifier, signed(), now=now) for part in ("more than 15 minutes off", "scope is"))


def test_refuses_a_body_that_is_not_the_one_of_its_hash_header(s3_verifier):
    request = signed("/bucket/key", service="s3")
    assert request.header("x-amz-content-sha256") == hashlib.sha256(BODY).hexdigest()

    assert "not the hash of the body" in refusal(s3_verifier, replace(request, body=b'{"order": 2}'))
    assert "which S3 needs" in refusal(s3_verifier, with_header(request, "X-Amz-Content-SHA256", None))
