"""The chunked bodies that other tests send and verify are signed as AWS's published examples; tampering shows."""

import re
from dataclasses import replace

import pytest

from integration.harness import aws_chunked
from integration.harness.aws_chunked import ChunkedBody, ChunkSigner
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.verifier import Refused, WireRequest
from integration.stack.aws_servers import REGION

SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
CHUNKS = [b"a" * 65536, b"a" * 1024, b""]


def published(seed: str) -> ChunkSigner:
    return ChunkSigner(SECRET_KEY, "20130524T000000Z", "us-east-1", seed)


def test_the_published_example_of_signed_chunks():
    signer = published("4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9")

    assert [signer.sign_chunk(chunk) for chunk in CHUNKS] == [
        "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ]


def test_the_published_example_of_signed_trailers():
    signer = published("106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e")

    assert [signer.sign_chunk(chunk) for chunk in CHUNKS] == [
        "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
    ]
    trailers = [("x-amz-checksum-crc32c", "sOO8/Q==")]
    assert signer.sign_trailers(trailers) == "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"


def sent_by_an_sdk(form: str) -> WireRequest:
    url = "http://s3.example/bucket/key"
    upload = aws_chunked.upload(url, form, b"x" * 100, TEMPORARY_KEY, REGION, 60, host="s3.example")
    return WireRequest("PUT", "/bucket/key", list(upload.headers.items()), upload.body)


@pytest.mark.parametrize("form", aws_chunked.FORMS)
def test_what_is_made_is_read_and_accepted(s3_verifier, form):
    request = sent_by_an_sdk(form)

    assert ChunkedBody.read(request.body).data == b"x" * 100
    assert s3_verifier.verify(request).payload == "chunked"


FRAMING = [(rb"^3c", rb"3b"), (rb"\r\n$", rb""), (rb"$", rb"more"), (rb"^3c", rb"xx")]
CHUNKS_SIGNED = [
    (rb"xx\r\n", rb"xy\r\n"),
    (rb"(chunk-signature=.{9}).", rb"\1-"),
    (rb"(\n0;chunk-signature=.{9}).", rb"\1-"),
]
TRAILERS = [(rb"crc32:", rb"sha256:")]
TRAILERS_SIGNED = [
    (rb"(crc32:.).", rb"\1!"),
    (rb"(trailer-signature:.{9}).", rb"\1-"),
    (rb"x-amz-trailer-.*?\r\n", rb""),
]


@pytest.mark.parametrize(
    ("form", "pattern", "replacement"),
    [
        *((aws_chunked.SIGNED, *tampering) for tampering in FRAMING + CHUNKS_SIGNED),
        *(
            (aws_chunked.SIGNED_TRAILER, *tampering)
            for tampering in FRAMING + CHUNKS_SIGNED + TRAILERS + TRAILERS_SIGNED
        ),
        *((aws_chunked.UNSIGNED_TRAILER, *tampering) for tampering in FRAMING + TRAILERS),
    ],
)
def test_a_tampered_body_is_refused(s3_verifier, form, pattern, replacement):
    request = sent_by_an_sdk(form)
    tampered, changes = re.subn(pattern, replacement, request.body, count=1)
    assert changes == 1

    with pytest.raises(Refused, match=r"chunk|trailers|Decoded"):
        s3_verifier.verify(replace(request, body=tampered))
