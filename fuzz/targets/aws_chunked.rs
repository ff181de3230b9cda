//! A chunked body behind a line with its form, its decoded length and the sizes in which it arrives: signed anew it comes out
//! the same however it is split, with the client's framing, and with the chain of signatures that S3 computes.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;
use sigv4_core::credentials::Credentials;
use sigv4_core::signing::{
    Algorithm, AwsChunkedError, AwsChunkedForm, ChunkResigner, PayloadHash, Scope, Signer, SigningContext,
    SigningCredentials, UnsignedRequest, UriStyle, WireUri,
};

// Each target takes of it what it needs.
#[allow(dead_code)]
#[path = "../oracle/signature.rs"]
mod oracle;

const SIGNATURE: &[u8] = b";chunk-signature=";

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let (Some(line), Some(body)) = (lines.next(), lines.next()) else { return };
    let Ok(line) = std::str::from_utf8(line) else { return };
    let mut words = line.split(' ');
    let form = match words.next() {
        Some("signed") => AwsChunkedForm::Signed,
        Some("signed-trailer") => AwsChunkedForm::SignedTrailer,
        _ => AwsChunkedForm::UnsignedTrailer,
    };
    let decoded_length: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
    let parts: Vec<usize> = words.filter_map(|word| word.parse().ok()).filter(|part| *part > 0).collect();

    let (_, whole) = start(form, decoded_length);
    let (seed, split) = start(form, decoded_length);
    let whole = run(whole, std::iter::once(body));
    let split = run(split, in_parts(body, &parts));
    assert_eq!(whole, split, "the splits make no difference");

    let (sent, result) = whole;
    assert!(sent.len() <= body.len());
    if form == AwsChunkedForm::UnsignedTrailer {
        assert!(body.starts_with(&sent), "nothing is changed");
    }
    if result.is_ok() {
        assert_eq!(sent.len(), body.len(), "the length stays");
        verify(form, &sent, body, decoded_length, &seed);
    }
});

/// A body to be signed, and the signature of its request's headers.
fn start(form: AwsChunkedForm, decoded_length: u64) -> (String, ChunkResigner) {
    let credentials =
        Credentials::new(oracle::ACCESS_KEY, oracle::SECRET.to_owned(), None, None).expect("they are valid");
    let credentials = SigningCredentials::from(credentials);
    let mut uri = WireUri::default();
    uri.set(UriStyle::S3, b"/bucket/key", None);
    let payload = PayloadHash::Empty;
    let request = UnsignedRequest { method: b"PUT", authority: b"s3.test", uri: &uri, payload, signed_headers: &[] };
    let context = SigningContext {
        credentials: &credentials,
        scope: Scope { region: oracle::REGION, service: "s3" },
        algorithm: Algorithm::SigV4,
        at: UNIX_EPOCH + Duration::from_secs(oracle::SECONDS),
    };
    let mut signer = Signer::default();
    let (signed, body) =
        signer.sign_aws_chunked(form, decoded_length, &request, [], &context).expect("the clock is right");
    let authorization = std::str::from_utf8(signed.authorization).expect("it is ASCII");
    (authorization.rsplit("Signature=").next().unwrap_or_default().to_owned(), body)
}

fn run<'a>(mut body: ChunkResigner, parts: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Result<(), AwsChunkedError>) {
    let mut sent = Vec::new();
    for part in parts {
        if let Err(error) = body.push(part, &mut sent) {
            let length = sent.len();
            assert_eq!(body.push(b"more", &mut sent), Err(error), "it stays failed");
            assert_eq!(sent.len(), length);
            return (sent, Err(error));
        }
    }
    let end = body.finish();
    (sent, end)
}

/// The sizes one after another, the last of them again and again.
fn in_parts<'a>(mut body: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut sizes = sizes.iter().chain(std::iter::repeat(sizes.last().unwrap_or(&1)));
    std::iter::from_fn(move || {
        let size = (*sizes.next()?).min(body.len());
        let (part, rest) = body.split_at(size);
        body = rest;
        (size > 0).then_some(part)
    })
}

/// Reads a body that was accepted as S3 would: chunk by chunk, each against its signature.
fn verify(form: AwsChunkedForm, mut sent: &[u8], mut came: &[u8], decoded_length: u64, seed: &str) {
    let signed = form != AwsChunkedForm::UnsignedTrailer;
    let key = oracle::signing_key("s3");
    let context = format!("{}\n{}\n", oracle::TIME, oracle::credential_scope("s3"));
    let (mut previous, mut total) = (seed.to_owned(), 0);
    loop {
        let (line, client_line) = (line(&mut sent), line(&mut came));
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
        assert_eq!(line.len(), client_line.len());
        assert!(client_line.starts_with(size), "the size stays");
        let size = u64::from_str_radix(std::str::from_utf8(size).expect("digits"), 16).expect("hexadecimal");
        let length = usize::try_from(size).expect("it was there");
        let (data, rest) = sent.split_at(length);
        assert_eq!(data, &came[..length], "the data stay");
        if signed {
            let text = format!(
                "AWS4-HMAC-SHA256-PAYLOAD\n{context}{previous}\n{}\n{}",
                oracle::sha256(b""),
                oracle::sha256(data)
            );
            previous = oracle::hex(&oracle::hmac(&key, text.as_bytes()));
            assert!(line.ends_with(&[SIGNATURE, previous.as_bytes()].concat()), "{}", line.escape_ascii());
        }
        total += size;
        (sent, came) = (rest, &came[length..]);
        if size == 0 {
            break;
        }
        assert_eq!((self::line(&mut sent), self::line(&mut came)), (&b""[..], &b""[..]));
    }
    assert_eq!(total, decoded_length);
    if form == AwsChunkedForm::SignedTrailer {
        // Names in lower case and sorted, values trimmed, as in a canonical request.
        let mut trailers: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        loop {
            let line = line(&mut sent);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (line[..colon].to_ascii_lowercase(), line[colon + 1..].trim_ascii());
            if name == b"x-amz-trailer-signature" {
                let mut canonical = Vec::new();
                trailers.sort_by(|a, b| a.0.cmp(&b.0));
                let mut last: Option<&[u8]> = None;
                for (name, value) in &trailers {
                    if last == Some(name) {
                        canonical.pop();
                        canonical.push(b',');
                    } else {
                        canonical.extend([name.as_slice(), b":"].concat());
                    }
                    canonical.extend([value.as_slice(), b"\n"].concat());
                    last = Some(name);
                }
                let text = format!("AWS4-HMAC-SHA256-TRAILER\n{context}{previous}\n{}", oracle::sha256(&canonical));
                let signature = oracle::hex(&oracle::hmac(&key, text.as_bytes()));
                assert_eq!(value, signature.as_bytes(), "{}", canonical.escape_ascii());
                return;
            }
            let words: Vec<&[u8]> = value.split(|byte| b" \t".contains(byte)).filter(|word| !word.is_empty()).collect();
            trailers.push((name, words.join(&b' ')));
        }
    }
}

/// Takes a line off; without its CRLF.
fn line<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|byte| *byte == b'\n').expect("a line");
    let (line, rest) = text.split_at(end + 1);
    *text = rest;
    let line = &line[..end];
    line.strip_suffix(b"\r").unwrap_or(line)
}
