//! What a signature costs, beside the `aws-sigv4` crate doing the same.
//!
//! `cargo bench --package sigv4-core`
//!
//! Benches always unwind. A library that is a cdylib too has one file name, so the refresher, which cargo builds beside a
//! bench, must not ask for one that aborts.

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials as SdkCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sigv4_core::credentials::Credentials;
use sigv4_core::path::{self, SafePath};
use sigv4_core::signing::{
    Algorithm, AwsChunkedForm, PayloadHash, PayloadHasher, Scope, Signer, SigningContext, SigningCredentials,
    UnsignedRequest, UriStyle, WireUri,
};

/// A browser's headers.
const HEADERS: [(&str, &str); 12] = [
    ("accept", "application/json, text/plain, */*"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
    ("cache-control", "no-cache"),
    ("content-type", "application/json"),
    ("cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"),
    ("origin", "https://backstage.example.com"),
    ("referer", "https://backstage.example.com/catalog/default/component/orders"),
    ("sec-fetch-mode", "cors"),
    ("sec-fetch-site", "same-origin"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("x-request-id", "7b0b5b5e-5b0f-4b5a-9b0e-0b5b5e5b0f4b"),
];
const AUTHORITY: &str = "abc123.execute-api.eu-west-1.amazonaws.com";
const SCOPE: Scope<&str> = Scope { region: "eu-west-1", service: "execute-api" };
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn token() -> String {
    "IQoJb3JpZ2luX2VjEJr//////////wEaCWV1LXdlc3QtMSJ".repeat(16)
}

fn credentials() -> SigningCredentials {
    Credentials::new("ASIAIOSFODNN7EXAMPLE", SECRET.to_owned(), Some(token().into()), None).unwrap().into()
}

fn headers() -> impl Iterator<Item = (&'static [u8], &'static [u8])> {
    HEADERS.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))
}

fn request(uri: &WireUri) -> UnsignedRequest<'_> {
    UnsignedRequest {
        method: b"GET",
        authority: AUTHORITY.as_bytes(),
        uri,
        payload: PayloadHash::Empty,
        signed_headers: &[],
    }
}

fn context<'a>(credentials: &'a SigningCredentials, algorithm: Algorithm<&'a str>) -> SigningContext<'a> {
    SigningContext { credentials, scope: SCOPE, algorithm, at: SystemTime::now() }
}

fn signatures(c: &mut Criterion) {
    let credentials = credentials();
    let mut group = c.benchmark_group("signature");

    for (name, algorithm) in [("sigv4", Algorithm::SigV4), ("sigv4a", Algorithm::SigV4a { region_set: "*" })] {
        let mut signer = Signer::default();
        let (mut joined, mut uri) = (Vec::new(), WireUri::default());
        let context = context(&credentials, algorithm);
        group.bench_function(format!("{name}, headers"), |b| {
            b.iter(|| {
                let safe = SafePath::check(black_box(b"/orders/items/42?limit=10&after=2026-01-01")).unwrap();
                path::join(b"/prod", b"/orders", &safe, &mut joined);
                uri.set(UriStyle::of(SCOPE.service, AUTHORITY.as_bytes()), &joined, safe.query());
                black_box(signer.sign(&request(&uri), headers(), &context).unwrap().authorization.len())
            });
        });
        // The one above begins like the one before, and is hashed from where it differs.
        let mut number = 1_000_000;
        group.bench_function(format!("{name}, headers, another path each time"), |b| {
            b.iter(|| {
                number += 1;
                uri.set(UriStyle::Standard, format!("/prod/items/{number}").as_bytes(), Some(b"limit=10"));
                black_box(signer.sign(&request(&uri), headers(), &context).unwrap().authorization.len())
            });
        });
        group.bench_function(format!("{name}, query"), |b| {
            let expires = Duration::from_secs(300);
            b.iter(|| black_box(signer.presign(&request(&uri), headers(), &context, expires).unwrap().len()));
        });
    }

    let sdk_identity = SdkCredentials::new("ASIAIOSFODNN7EXAMPLE", SECRET, Some(token()), None, "bench").into();
    group.bench_function("aws-sigv4 crate, headers", |b| {
        let uri = format!("https://{AUTHORITY}/prod/items/42?limit=10&after=2026-01-01");
        b.iter(|| {
            let params = aws_sigv4::sign::v4::SigningParams::builder()
                .identity(&sdk_identity)
                .region(SCOPE.region)
                .name(SCOPE.service)
                .time(SystemTime::now())
                .settings(SigningSettings::default())
                .build()
                .unwrap()
                .into();
            let signed = HEADERS.iter().copied().filter(|(name, _)| *name == "content-type");
            let request = SignableRequest::new("GET", uri.as_str(), signed, SignableBody::empty()).unwrap();
            black_box(aws_sigv4::http_request::sign(request, &params).unwrap().signature().len())
        });
    });
    group.finish();
}

fn bodies(c: &mut Criterion) {
    let credentials = credentials();
    let mut group = c.benchmark_group("body");
    let chunk = vec![b'a'; 64 * 1024];
    group.throughput(Throughput::Bytes(chunk.len() as u64));
    group.bench_function("hash", |b| {
        b.iter(|| {
            let mut hasher = PayloadHasher::default();
            hasher.update(black_box(&chunk));
            black_box(hasher.finish())
        });
    });
    for (name, form, signature) in [
        ("signed chunks", AwsChunkedForm::Signed, format!(";chunk-signature={}", "0".repeat(64))),
        ("unsigned chunks", AwsChunkedForm::UnsignedTrailer, String::new()),
    ] {
        let framed = [format!("{:x}{signature}\r\n", chunk.len()).as_bytes(), &chunk, b"\r\n"].concat();
        let mut signer = Signer::default();
        let context = context(&credentials, Algorithm::SigV4);
        let uri = WireUri::default();
        let (_, mut body) = signer.sign_aws_chunked(form, u64::MAX, &request(&uri), headers(), &context).unwrap();
        let mut out = Vec::new();
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                body.push(black_box(&framed), &mut out).unwrap();
                black_box(out.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, signatures, bodies);
criterion_main!(benches);
