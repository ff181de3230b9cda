use std::time::SystemTime;

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use proptest::prelude::*;

use super::*;
use crate::signing::{
    Algorithm, Scope, Signer, SigningContext, SigningCredentials, SigningError, UnsignedRequest,
    UnsupportedStreamingForm, UriStyle, WireUri,
};
use crate::test_support;

/// Returns 2013-05-24T00:00:00Z, the time of the examples in the S3 API Reference.
fn at() -> SystemTime {
    test_support::at(1_369_353_600)
}

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const SCOPE: Scope<&str> = Scope { region: "us-east-1", service: "s3" };

fn credentials() -> SigningCredentials {
    test_support::credentials("AKIAIOSFODNN7EXAMPLE", SECRET).into()
}

/// Signs the request of the examples; returns its signature and its body.
fn sign(form: AwsChunkedForm, headers: &[(&str, &str)], decoded_length: u64) -> (String, ChunkResigner) {
    let credentials = credentials();
    let mut uri = WireUri::default();
    uri.set(UriStyle::S3, b"/examplebucket/chunkObject.txt", None);
    let added = ["content-encoding", "content-length"].map(str::to_owned);
    let request = UnsignedRequest {
        method: b"PUT",
        authority: b"s3.amazonaws.com",
        uri: &uri,
        payload: crate::signing::PayloadHash::Empty,
        signed_headers: &added,
    };
    let context = SigningContext { credentials: &credentials, scope: SCOPE, algorithm: Algorithm::SigV4, at: at() };
    let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let mut signer = Signer::default();
    let (signed, body) = signer.sign_aws_chunked(form, decoded_length, &request, headers, &context).unwrap();
    assert_eq!(signed.content_sha256, Some(form.as_bytes()));
    let authorization = std::str::from_utf8(signed.authorization).unwrap();
    (authorization.rsplit_once("Signature=").unwrap().1.to_owned(), body)
}

const CLIENT_SIGNATURE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF";

/// Returns a body as a client sends it, in chunks of the given data, with `trailers` verbatim.
fn client_body(form: AwsChunkedForm, chunks: &[&[u8]], trailers: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for chunk in chunks.iter().copied().chain([&b""[..]]) {
        body.extend_from_slice(format!("{:x}", chunk.len()).as_bytes());
        if form.is_signed() {
            body.extend_from_slice(format!(";chunk-signature={CLIENT_SIGNATURE}").as_bytes());
        }
        body.extend_from_slice(b"\r\n");
        body.extend_from_slice(chunk);
        if !chunk.is_empty() {
            body.extend_from_slice(b"\r\n");
        }
    }
    body.extend_from_slice(trailers.as_bytes());
    body.extend_from_slice(b"\r\n");
    body
}

fn push_in_parts(body: &mut ChunkResigner, input: &[u8], part: usize) -> Result<Vec<u8>, AwsChunkedError> {
    let mut out = Vec::new();
    for part in input.chunks(part) {
        body.push(part, &mut out)?;
        assert!(body.chunk.len() <= MAX_SIGNED_CHUNK + MAX_LINE && body.line.len() <= MAX_LINE);
    }
    body.finish()?;
    Ok(out)
}

fn signatures(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body);
    text.lines().filter_map(|line| Some(line.split_once("signature")?.1[1..].to_owned())).collect()
}

/// S3 API Reference, "Transferring Payload in Multiple Chunks", example.
#[test]
fn the_published_example_of_signed_chunks_comes_out() {
    let headers = [
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("Content-Encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "66560"),
        ("Content-Length", "66824"),
    ];
    let input = client_body(AwsChunkedForm::Signed, &[&[b'a'; 65_536], &[b'a'; 1024]], "");
    for part in [1, 77, 65_536, input.len()] {
        let (seed, mut body) = sign(AwsChunkedForm::Signed, &headers, 66_560);
        assert_eq!(seed, "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9");
        let output = push_in_parts(&mut body, &input, part).unwrap();
        assert_eq!((input.len(), output.len()), (66_824, 66_824));
        assert_eq!(
            signatures(&output),
            [
                "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
                "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
                "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
            ]
        );
    }
}

/// S3 API Reference, "Including Trailing Headers", example.
#[test]
fn the_published_example_of_signed_trailers_comes_out() {
    let headers = [
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("Content-Encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "66560"),
        ("x-amz-trailer", "x-amz-checksum-crc32c"),
    ];
    for line_end in ["\r\n", "\n", "\n\r\n"] {
        let trailers =
            format!("x-amz-checksum-crc32c:sOO8/Q=={line_end}x-amz-trailer-signature:{CLIENT_SIGNATURE}\r\n");
        let input = client_body(AwsChunkedForm::SignedTrailer, &[&[b'a'; 65_536], &[b'a'; 1024]], &trailers);
        let (seed, mut body) = sign(AwsChunkedForm::SignedTrailer, &headers, 66_560);
        assert_eq!(seed, "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e");
        let output = push_in_parts(&mut body, &input, 1000).unwrap();
        assert_eq!(output.len(), input.len());
        assert_eq!(
            signatures(&output),
            [
                "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
                "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
                "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
                "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435",
            ]
        );
    }
}

#[test]
fn unsigned_chunks_pass_as_they_are() {
    let form = AwsChunkedForm::UnsignedTrailer;
    let two_mebibytes = vec![b'a'; 2 * MAX_SIGNED_CHUNK];
    for trailers in ["", "x-amz-checksum-crc32:AAAAAA==\r\n", "a:1\r\nb:2\r\n"] {
        let input = client_body(form, &[b"abc", &two_mebibytes], trailers);
        let (_, mut body) = sign(form, &[], 3 + 2 * MAX_SIGNED_CHUNK as u64);
        assert_eq!(push_in_parts(&mut body, &input, 4096).unwrap(), input);
        assert_eq!(body.chunk.capacity(), 0, "nothing of it is held");
    }
}

#[test]
fn an_empty_body_is_a_last_chunk_alone() {
    let (_, mut body) = sign(AwsChunkedForm::Signed, &[], 0);
    let input = client_body(AwsChunkedForm::Signed, &[], "");
    assert_eq!(push_in_parts(&mut body, &input, 5).unwrap().len(), input.len());
}

#[test]
fn malformed_bodies_are_refused_with_what_is_wrong_with_them() {
    use AwsChunkedError::*;
    use AwsChunkedForm::*;

    let s = format!(";chunk-signature={CLIENT_SIGNATURE}");
    let large = format!("{:x}{s}\r\n", MAX_SIGNED_CHUNK + 1);
    let cases: Vec<(AwsChunkedForm, u64, String, AwsChunkedError)> = vec![
        (Signed, 3, String::new(), Truncated),
        (Signed, 3, "3".to_owned(), Truncated),
        (Signed, 3, "3\r\nabc\r\n".to_owned(), ChunkHeader),
        (Signed, 3, format!("{s}\r\n"), ChunkHeader),
        (Signed, 3, format!("g{s}\r\n"), ChunkHeader),
        (Signed, 3, format!("-3{s}\r\n"), ChunkHeader),
        (Signed, 3, format!("0x3{s}\r\n"), ChunkHeader),
        (Signed, 3, format!("3{s}\n"), ChunkHeader),
        (Signed, 3, format!("3{}\r\n", &s[..s.len() - 1]), ChunkHeader),
        (Signed, 3, format!("3;chunk-signature={}\r\n", "g".repeat(64)), ChunkHeader),
        (Signed, u64::MAX, format!("00000000000000003{s}\r\n"), ChunkHeader),
        (Signed, 3, "3".repeat(5000), ChunkHeader),
        (Signed, u64::MAX, large, ChunkTooLarge),
        (Signed, 3, format!("ffffffffffffffff{s}\r\n"), DecodedLength),
        (Signed, 3, format!("4{s}\r\n"), DecodedLength),
        (Signed, 3, format!("0{s}\r\n\r\n"), DecodedLength),
        (Signed, 3, format!("3{s}\r\nabcd"), ChunkEnd),
        (Signed, 3, format!("3{s}\r\nabc\n"), ChunkEnd),
        (Signed, 3, format!("3{s}\r\nabc\r\n"), Truncated),
        (Signed, 3, format!("3{s}\r\nabc\r\n0{s}\r\n"), Truncated),
        (Signed, 3, format!("3{s}\r\nabc\r\n0{s}\r\na:1\r\n"), ChunkEnd),
        (Signed, 0, format!("0{s}\r\n\r\nx"), AfterEnd),
        (SignedTrailer, 0, format!("0{s}\r\n\r\n"), Truncated),
        (SignedTrailer, 0, format!("0{s}\r\na:1\r\n\r\n"), Truncated),
        (SignedTrailer, 0, format!("0{s}\r\nx-amz-trailer-signature:abc\r\n"), TrailerSignature),
        (SignedTrailer, 0, format!("0{s}\r\nx-amz-trailer-signature:{CLIENT_SIGNATURE}\r\na:1\r\n"), TrailerSignature),
        (SignedTrailer, 0, format!("0{s}\r\nx-amz-trailer-signature:{CLIENT_SIGNATURE}\r\n"), Truncated),
        (SignedTrailer, 0, format!("0{s}\r\n{}", "\r\n".repeat(17)), Trailer),
        (UnsignedTrailer, 3, "3;chunk-signature=0\r\n".to_owned(), ChunkHeader),
        (UnsignedTrailer, 3, "3\r\nabc\r\n0\r\nno trailer\r\n\r\n".to_owned(), Trailer),
        (UnsignedTrailer, 0, "0\r\n:1\r\n\r\n".to_owned(), Trailer),
        (UnsignedTrailer, 0, "0\r\na b:1\r\n\r\n".to_owned(), Trailer),
        (UnsignedTrailer, 0, "0\r\na:1\r2\r\n\r\n".to_owned(), Trailer),
        (UnsignedTrailer, 0, format!("0\r\na:{}\r\n\r\n", "1".repeat(5000)), Trailer),
        (UnsignedTrailer, 0, format!("0\r\n{}\r\n", "a:1\r\n".repeat(17)), Trailer),
        (UnsignedTrailer, 0, "0\r\n\r\n\r\n".to_owned(), AfterEnd),
        (UnsignedTrailer, 1, "0\r\n\r\n".to_owned(), DecodedLength),
    ];
    for (form, decoded_length, input, expected) in cases {
        for part in [1, 10_000] {
            let (_, mut body) = sign(form, &[], decoded_length);
            assert_eq!(push_in_parts(&mut body, input.as_bytes(), part), Err(expected), "{form:?}: {input:.99?}");
            if expected != Truncated {
                assert_eq!(body.push(b"\r\n", &mut Vec::new()), Err(expected), "it stays refused");
                assert_eq!(body.finish(), Err(expected));
            }
        }
    }
}

#[test]
fn the_form_is_read_from_the_clients_header() {
    for form in [AwsChunkedForm::Signed, AwsChunkedForm::SignedTrailer, AwsChunkedForm::UnsignedTrailer] {
        assert_eq!(AwsChunkedForm::from_client_header(form.as_bytes()), Ok(Some(form)));
    }
    assert_eq!(AwsChunkedForm::from_client_header(b"UNSIGNED-PAYLOAD"), Ok(None));
    for (value, form) in [
        ("streaming-aws4-hmac-sha256-payload", AwsChunkedForm::Signed),
        (" STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER\t", AwsChunkedForm::SignedTrailer),
        ("Streaming-Unsigned-Payload-Trailer", AwsChunkedForm::UnsignedTrailer),
    ] {
        assert_eq!(AwsChunkedForm::from_client_header(value.as_bytes()), Ok(Some(form)), "{value}");
    }
    for value in ["", "STREAMING", "not STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "UNSIGNED-PAYLOAD, UNSIGNED-PAYLOAD"] {
        assert_eq!(AwsChunkedForm::from_client_header(value.as_bytes()), Ok(None), "{value}");
    }
}

#[test]
fn streaming_forms_whose_signatures_can_not_be_replaced_are_refused() {
    for (value, error) in [
        ("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", UnsupportedStreamingForm::Unknown),
        ("STREAMING-", UnsupportedStreamingForm::Unknown),
        ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD", UnsupportedStreamingForm::Unknown),
        ("UNSIGNED-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD", UnsupportedStreamingForm::Unknown),
        ("STREAMING-AWS4-HMAC-SHA256-EVENTS", UnsupportedStreamingForm::Events),
        ("STREAMING-AWS4-ECDSA-P256-SHA256-EVENTS", UnsupportedStreamingForm::Events),
        (" streaming-aws4-hmac-sha256-events ", UnsupportedStreamingForm::Events),
        ("UNSIGNED-PAYLOAD,STREAMING-AWS4-HMAC-SHA256-EVENTS", UnsupportedStreamingForm::Events),
    ] {
        assert_eq!(AwsChunkedForm::from_client_header(value.as_bytes()), Err(error), "{value}");
    }
}

#[test]
fn chunks_are_not_signed_with_sigv4a() {
    let credentials = credentials();
    let request = UnsignedRequest {
        method: b"PUT",
        authority: b"h",
        uri: &WireUri::default(),
        payload: crate::signing::PayloadHash::Empty,
        signed_headers: &[],
    };
    let algorithm = Algorithm::SigV4a { region_set: "*" };
    let context = SigningContext { credentials: &credentials, scope: SCOPE, algorithm, at: at() };
    let mut signer = Signer::default();
    let mut sign = |form| signer.sign_aws_chunked(form, 0, &request, [], &context).map(|_| ());
    assert_eq!(sign(AwsChunkedForm::Signed), Err(SigningError::AsymmetricChunks));
    assert_eq!(sign(AwsChunkedForm::UnsignedTrailer), Ok(()));
}

#[test]
fn no_more_is_held_than_has_come_of_a_chunk() {
    const SIZE: usize = 1 << 20;
    let (_, mut body) = sign(AwsChunkedForm::Signed, &[], 2 * SIZE as u64);
    let mut out = Vec::new();
    for _ in 0..2 {
        body.push(format!("{SIZE:x};chunk-signature={CLIENT_SIGNATURE}\r\n").as_bytes(), &mut out).unwrap();
        for come in (4096..=SIZE).step_by(4096) {
            body.push(&[0; 4096], &mut out).unwrap();
            let bound = if come == SIZE { 0 } else { (2 * come).min(SIZE) + 128 };
            assert!(body.held_bytes() <= bound, "{} after {come}", body.held_bytes());
        }
        body.push(b"\r\n", &mut out).unwrap();
    }
}

#[test]
fn of_a_body_without_signatures_nothing_is_held() {
    let (_, mut body) = sign(AwsChunkedForm::UnsignedTrailer, &[], 7);
    let mut out = Vec::new();
    for part in [&b"7\r\n"[..], b"abc", b"defg\r\n0\r\n", b"x-amz-checksum-crc32:AAAAAA==\r\n"] {
        body.push(part, &mut out).unwrap();
        assert_eq!(body.held_bytes(), 0, "{}", String::from_utf8_lossy(part));
    }
}

proptest! {
    /// Checks that each signature is derived from the previous one and its chunk, however the body is cut.
    #[test]
    fn signatures_form_a_chain(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..6),
        part in 1_usize..300,
    ) {
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        let trailers = format!("X-Amz-Checksum-Sha1: b \r\nx-amz-checksum-crc32:a\r\nx-amz-trailer-signature:{CLIENT_SIGNATURE}\r\n");
        let input = client_body(AwsChunkedForm::SignedTrailer, &chunks, &trailers);
        let decoded_length = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let (seed, mut body) = sign(AwsChunkedForm::SignedTrailer, &[], decoded_length);
        let output = push_in_parts(&mut body, &input, part).unwrap();

        let sha256 = |bytes: &[u8]| String::from_utf8(hex::encode(&Sha256::digest(bytes).into()).to_vec()).unwrap();
        let sign = |kind: &str, previous: &str, hashes: &str| {
            let key = generate_signing_key(SECRET, at(), SCOPE.region, SCOPE.service);
            let scope = "20130524/us-east-1/s3/aws4_request";
            calculate_signature(key, format!("AWS4-HMAC-SHA256-{kind}\n20130524T000000Z\n{scope}\n{previous}\n{hashes}").as_bytes())
        };
        let mut expected = Vec::new();
        let mut previous = seed;
        for chunk in chunks.iter().copied().chain([&b""[..]]) {
            previous = sign("PAYLOAD", &previous, &format!("{}\n{}", sha256(b""), sha256(chunk)));
            expected.push(previous.clone());
        }
        expected.push(sign("TRAILER", &previous, &sha256(b"x-amz-checksum-crc32:a\nx-amz-checksum-sha1:b\n")));

        // Our output is the client's body with its signatures replaced.
        let mut rest = String::from_utf8_lossy(&input).into_owned();
        for signature in &expected {
            rest = rest.replacen(CLIENT_SIGNATURE, signature, 1);
        }
        prop_assert_eq!(String::from_utf8_lossy(&output), rest);
    }

    /// Checks that a flipped byte, a cut or an insertion is accepted or rejected, without a panic.
    #[test]
    fn hostile_bodies_never_panic(
        form in prop::sample::select(vec![AwsChunkedForm::Signed, AwsChunkedForm::SignedTrailer, AwsChunkedForm::UnsignedTrailer]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..4),
        cut in any::<prop::sample::Index>(),
        part in 1_usize..50,
    ) {
        let trailers = match form {
            AwsChunkedForm::Signed => String::new(),
            _ => format!("a:1\r\nx-amz-trailer-signature:{CLIENT_SIGNATURE}\r\n"),
        };
        let mut input = client_body(form, &[b"abc", b"defg"], &trailers);
        for (place, byte, inserted) in edits {
            let place = place.index(input.len());
            if inserted { input.insert(place, byte) } else { input[place] = byte }
        }
        input.truncate(cut.index(input.len()) + 1);
        let (_, mut body) = sign(form, &[], 7);
        let mut out = Vec::new();
        for part in input.chunks(part) {
            let _ = body.push(part, &mut out);
            prop_assert!(out.len() <= input.len());
        }
        let _ = body.finish();
    }
}
