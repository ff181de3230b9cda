//! A request as text (a line with method, service and added header, one with path and query, and header lines), signed by the
//! filter and by a slow signer that follows AWS's description from what is sent on the wire.
#![no_main]

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;
use sigv4_core::credentials::Credentials;
use sigv4_core::path::SafePath;
use sigv4_core::signing::{
    Algorithm, PayloadHash, Scope, Signer, SigningContext, SigningCredentials, UnsignedRequest, UriStyle, WireUri,
    may_be_signed,
};

#[path = "../oracle/signature.rs"]
mod oracle;
// Only decoding is needed of it.
#[allow(dead_code)]
#[path = "../../src/core/tests/oracle/upstream.rs"]
mod upstream;

const AUTHORITY: &str = "api.example.com:8443";

fuzz_target!(|input: &[u8]| {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut first = lines.next().unwrap_or_default().split(|byte| *byte == b' ');
    let (method, service) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let service = match service {
        b"s3" => "s3",
        b"glacier" => "glacier",
        _ => "execute-api",
    };
    let added: Vec<String> = first
        .filter_map(|name| String::from_utf8(name.to_ascii_lowercase()).ok())
        .filter(|name| may_be_signed(name))
        .collect();
    let Ok(path) = SafePath::check(lines.next().unwrap_or_default()) else { return };
    let headers: Vec<(&[u8], &[u8])> = lines
        .filter_map(|line| Some(line.split_at(line.iter().position(|byte| *byte == b':').filter(|colon| *colon > 0)?)))
        .map(|(name, value)| (name, &value[1..]))
        .collect();

    let mut uri = WireUri::default();
    uri.set(UriStyle::of(service, AUTHORITY.as_bytes()), path.path(), path.query());
    let payload = if method == b"PUT" { PayloadHash::Unsigned } else { PayloadHash::Empty };
    let request =
        UnsignedRequest { method, authority: AUTHORITY.as_bytes(), uri: &uri, payload, signed_headers: &added };
    let credentials =
        Credentials::new(oracle::ACCESS_KEY, oracle::SECRET.to_owned(), None, None).expect("they are valid");
    let credentials = SigningCredentials::from(credentials);
    let context = SigningContext {
        credentials: &credentials,
        scope: Scope { region: oracle::REGION, service },
        algorithm: Algorithm::SigV4,
        at: UNIX_EPOCH + Duration::from_secs(oracle::SECONDS),
    };
    let mut signer = Signer::default();
    let signed = signer.sign(&request, headers.iter().copied(), &context).expect("the clock is right");

    let mut covered: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    covered.insert(b"host".to_vec(), vec![AUTHORITY.as_bytes().to_vec()]);
    let ours = [("x-amz-date", Some(oracle::TIME.as_bytes())), ("x-amz-content-sha256", signed.content_sha256)];
    for (name, value) in &headers {
        let name = name.to_ascii_lowercase();
        let owned: [&[u8]; 4] = [b"x-amz-date", b"x-amz-security-token", b"x-amz-content-sha256", b"x-amz-region-set"];
        let usual = name == b"content-type" || name == b"content-md5" || name.starts_with(b"x-amz-");
        if (usual && !owned.contains(&name.as_slice())) || added.iter().any(|added| added.as_bytes() == name) {
            covered.entry(name).or_default().push(trimmed(value));
        }
    }
    for (name, value) in ours {
        covered.extend(value.map(|value| (name.as_bytes().to_vec(), vec![value.to_vec()])));
    }
    let names = covered.keys().cloned().collect::<Vec<_>>().join(&b';');
    let mut canonical = [method, b"\n", canonical_path(service, uri.path()).as_bytes(), b"\n"].concat();
    canonical.extend(canonical_query(uri.query()).as_bytes());
    canonical.push(b'\n');
    for (name, values) in &covered {
        canonical.extend([name, &b":"[..], &values.join(&b','), b"\n"].concat());
    }
    canonical.extend([b"\n", names.as_slice(), b"\n", payload.as_bytes()].concat());

    let scope = oracle::credential_scope(service);
    let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", oracle::TIME, oracle::sha256(&canonical));
    let signature = oracle::hex(&oracle::hmac(&oracle::signing_key(service), to_sign.as_bytes()));
    let credential = format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders=", oracle::ACCESS_KEY);
    let expected = [credential.as_bytes(), &names, b", Signature=", signature.as_bytes()].concat();
    assert_eq!(
        signed.authorization.escape_ascii().to_string(),
        expected.escape_ascii().to_string(),
        "{}",
        canonical.escape_ascii()
    );
});

/// Without outer blanks, inner ones made one.
fn trimmed(value: &[u8]) -> Vec<u8> {
    let words: Vec<&[u8]> = value.split(|byte| b" \t".contains(byte)).filter(|word| !word.is_empty()).collect();
    words.join(&b' ')
}

/// From the path on the wire, as a verifier makes it. Dot segments can't be in it.
fn canonical_path(service: &str, path: &[u8]) -> String {
    if service == "s3" {
        // Decoded and encoded once, slash by slash: S3 sees no difference between `/` and `%2F`.
        let segments = path.split(|byte| *byte == b'/').map(|segment| oracle::encode(&upstream::decode_once(segment)));
        return segments.collect::<Vec<_>>().join("/");
    }
    let segments: Vec<_> =
        path.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty()).map(oracle::encode).collect();
    let end = if path.ends_with(b"/") && !segments.is_empty() { "/" } else { "" };
    format!("/{}{end}", segments.join("/"))
}

/// From the query on the wire, as a verifier makes it: decoded, encoded, sorted.
fn canonical_query(query: &[u8]) -> String {
    let encoded = |text: &[u8]| oracle::encode(&upstream::decode_once(text));
    let mut parameters: Vec<(String, String)> = query
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            (encoded(parts.next().unwrap_or_default()), encoded(parts.next().unwrap_or_default()))
        })
        .collect();
    parameters.sort();
    parameters.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}
