//! AWS's published vectors for SigV4 and SigV4A (`tests/vectors`), in the header and in the query: compared by value, ECDSA
//! signatures verified.
//!
//! Some describe requests that never pass the proxy; they run nevertheless, bypassing the check that would reject them:
//!
//! | vectors | why they never pass |
//! | --- | --- |
//! | `get-relative-*`, `get-slash-dot-*`, `get-slash-pointless-dot-*` | dot segments are rejected |
//! | `get-space-*`, `get-utf8` | a raw blank or non-ASCII byte is not forwarded: its wire form is percent-encoded, and signed as such |
//! | `*-unnormalized` | only the S3 style is not normalized, and it signs the path as it is sent |
//! | `get-header-value-multiline` | a server joins a folded line when it parses it, as is done here |
//! | `post-sts-header-after` | a session token is always signed in the header; here it is omitted |

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{DerSignature, VerifyingKey};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::hex;
use super::*;
use crate::credentials::Credentials;
use crate::path::{PathError, SafePath};
use crate::signing::sigv4a::AsymmetricKey;
use crate::signing::{PayloadHasher, UriStyle, WireUri};

#[derive(Deserialize)]
struct Context {
    credentials: ContextCredentials,
    normalize: bool,
    region: String,
    service: String,
    sign_body: bool,
    expiration_in_seconds: u64,
    timestamp: String,
    #[serde(default)]
    omit_session_token: bool,
}

#[derive(Deserialize)]
struct ContextCredentials {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
}

/// A vector: a request and the context in which it is signed.
struct Vector {
    directory: PathBuf,
    context: Context,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Vector {
    fn read(directory: PathBuf) -> Self {
        let context = serde_json::from_str(&fs::read_to_string(directory.join("context.json")).unwrap()).unwrap();
        let request = fs::read_to_string(directory.join("request.txt")).unwrap();
        let (head, body) = request.split_once("\n\n").unwrap_or((request.trim_end(), ""));
        let mut lines = head.lines();
        let (method, target) = lines.next().unwrap().strip_suffix(" HTTP/1.1").unwrap().split_once(' ').unwrap();
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            if line.starts_with(' ') {
                headers.last_mut().unwrap().1.push_str(line);
            } else {
                let (name, value) = line.split_once(':').unwrap();
                headers.push((name.to_owned(), value.to_owned()));
            }
        }
        Self {
            context,
            method: method.to_owned(),
            target: target.to_owned(),
            headers,
            body: body.to_owned(),
            directory,
        }
    }

    fn all(set: &str) -> Vec<Self> {
        let set = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(set);
        let mut directories: Vec<_> = fs::read_dir(set).unwrap().map(|entry| entry.unwrap().path()).collect();
        directories.sort();
        directories.into_iter().map(Self::read).collect()
    }

    fn name(&self) -> &str {
        self.directory.file_name().unwrap().to_str().unwrap()
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join(name)).unwrap()
    }

    fn at(&self) -> SystemTime {
        OffsetDateTime::parse(&self.context.timestamp, &Rfc3339).unwrap().into()
    }

    /// Returns the credentials, without a token that the signature must not cover: a token sent in a header is always
    /// signed.
    fn credentials(&self) -> SigningCredentials {
        self.credentials_with(self.context.credentials.token.clone().filter(|_| !self.context.omit_session_token))
    }

    fn credentials_with_token(&self) -> SigningCredentials {
        self.credentials_with(self.context.credentials.token.clone())
    }

    fn credentials_with(&self, token: Option<String>) -> SigningCredentials {
        let ContextCredentials { access_key_id, secret_access_key, .. } = &self.context.credentials;
        Credentials::new(access_key_id, secret_access_key.clone(), token.map(Into::into), None).unwrap().into()
    }

    fn uri(&self) -> WireUri {
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path.as_bytes(), Some(query.as_bytes())),
            None => (self.target.as_bytes(), None),
        };
        if self.context.normalize {
            // A verifier encodes the received path once more, so these must arrive as written.
            WireUri::with_path_as_written(UriStyle::Standard, path, query)
        } else {
            let mut uri = WireUri::default();
            uri.set(UriStyle::S3, path, query);
            uri
        }
    }

    fn uri_text(&self) -> String {
        String::from_utf8(self.uri().as_bytes().to_vec()).unwrap()
    }

    fn payload(&self) -> PayloadHash {
        let mut hasher = PayloadHasher::default();
        if self.context.sign_body {
            hasher.update(self.body.as_bytes());
        }
        hasher.finish()
    }
}

/// Signs every vector of a set in its headers and in its query, and passes each step to `compare`.
fn sign_all(set: &str, region_set: Option<&str>, compare: impl Fn(&Vector, &Steps)) {
    let vectors = Vector::all(set);
    assert_eq!(vectors.len(), 38);
    // One signer for all, as in the proxy: no state of a request may leak into the next.
    let mut signer = Signer::default();
    for vector in vectors {
        let credentials = vector.credentials();
        let uri = vector.uri();
        let added: Vec<String> = vector.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        let host = vector.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).unwrap();
        let request = UnsignedRequest {
            method: vector.method.as_bytes(),
            authority: host.1.as_bytes(),
            uri: &uri,
            payload: vector.payload(),
            signed_headers: &added,
        };
        let context = SigningContext {
            credentials: &credentials,
            scope: Scope { region: &vector.context.region, service: &vector.context.service },
            algorithm: region_set.map_or(Algorithm::SigV4, |region_set| Algorithm::SigV4a { region_set }),
            at: vector.at(),
        };
        let headers = vector.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();

        let signed = signer.sign_in_headers(&request, headers.clone(), &context, vector.context.sign_body).unwrap();
        let sent = signed.iter().map(|(name, value)| (name.to_owned(), text(value))).collect();
        compare(&vector, &Steps::of("header", &mut signer, &context, sent));

        let expires = Duration::from_secs(vector.context.expiration_in_seconds);
        let signs_token = !vector.context.omit_session_token;
        let credentials = vector.credentials_with_token();
        let context = SigningContext { credentials: &credentials, ..context };
        let presigned = text(signer.sign_in_query(&request, headers, &context, expires, signs_token).unwrap());
        compare(&vector, &Steps::of("query", &mut signer, &context, vec![(":path".to_owned(), presigned)]));
    }
}

/// The result of each step of a signature.
struct Steps {
    location: &'static str,
    canonical_request: String,
    string_to_sign: String,
    signature: String,
    sent: Vec<(String, String)>,
}

impl Steps {
    fn of(
        location: &'static str,
        signer: &mut Signer,
        context: &SigningContext<'_>,
        sent: Vec<(String, String)>,
    ) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (_, key) = signer.key(context).unwrap();
        let hash = hex::encode(&Sha256::digest(signer.canonical_request.text()).into());
        Self {
            location,
            canonical_request: text(signer.canonical_request.text()),
            string_to_sign: text(&[&key.second_parts().string_to_sign_head, &hash[..]].concat()),
            signature: text(&signer.signature),
            sent,
        }
    }

    fn compare_deterministic_parts(&self, vector: &Vector) {
        let (name, location) = (vector.name(), self.location);
        let expected = |step: &str| vector.file(&format!("{location}-{step}.txt"));
        assert_eq!(self.canonical_request, expected("canonical-request"), "{name}, {location}");
        assert_eq!(self.string_to_sign, expected("string-to-sign"), "{name}, {location}");
    }

    /// Compares the sent headers with the signed request of the vector, both without the signature.
    fn compare_sent(&self, vector: &Vector) {
        let signed_request = vector.file(&format!("{}-signed-request.txt", self.location));
        // A query's parameters may be in any order on the wire.
        let without_signature = |text: &str| {
            let mut parts: Vec<String> =
                text.split("Signature=").next().unwrap().split('&').map(str::to_owned).collect();
            parts.sort();
            parts
        };
        for (header, value) in &self.sent {
            let expected = signed_request.lines().find_map(|line| match header.as_str() {
                ":path" => {
                    line.strip_suffix(" HTTP/1.1").and_then(|line| line.split_once(' ')).map(|(_, target)| target)
                }
                _ => line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case(header)).map(|(_, value)| value),
            });
            let value = match header.as_str() {
                // The wire form of the query is percent-encoded, the vector's is not.
                ":path" => value.replacen(&vector.uri_text(), &vector.target, 1),
                _ => value.clone(),
            };
            assert_eq!(
                Some(without_signature(&value)),
                expected.map(without_signature),
                "{header} of {}, {}",
                vector.name(),
                self.location
            );
        }
    }
}

#[test]
fn every_sigv4_vector_comes_out_value_by_value() {
    sign_all("sigv4", None, |vector, steps| {
        steps.compare_deterministic_parts(vector);
        steps.compare_sent(vector);
        let expected = vector.file(&format!("{}-signature.txt", steps.location));
        assert_eq!(steps.signature, expected, "{}, {}", vector.name(), steps.location);
        let (_, last) = steps.sent.iter().find(|(name, _)| name == "authorization" || name == ":path").unwrap();
        assert!(last.ends_with(&format!("Signature={expected}")), "{}, {}", vector.name(), steps.location);
    });
}

#[test]
fn every_sigv4a_vector_comes_out_value_by_value_and_verifies() {
    #[derive(Deserialize)]
    #[serde(rename_all = "UPPERCASE")]
    struct PublicKey {
        x: String,
        y: String,
    }

    sign_all("sigv4a", Some("us-east-1"), |vector, steps| {
        steps.compare_deterministic_parts(vector);
        steps.compare_sent(vector);

        let point: PublicKey = serde_json::from_str(&vector.file("public-key.json")).unwrap();
        let point = from_hex(&format!("04{}{}", point.x, point.y));
        let published = VerifyingKey::from_sec1_bytes(&point).unwrap();
        let derived = AsymmetricKey::derive(vector.credentials().credentials()).unwrap();
        assert_eq!(derived.verifying_key(), &published, "{}", vector.name());

        let verifies = |signature: &str| {
            let signature = DerSignature::from_bytes(&from_hex(signature)).unwrap();
            published.verify(steps.string_to_sign.as_bytes(), &signature).is_ok()
        };
        assert!(verifies(&steps.signature), "{}, {}", vector.name(), steps.location);
        let of_vector = vector.file(&format!("{}-signature.txt", steps.location));
        assert!(verifies(&of_vector), "the published signature of {}, {}", vector.name(), steps.location);
    });
}

fn from_hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| (hex::digit(pair[0]).unwrap() << 4 | hex::digit(pair[1]).unwrap()) as u8)
        .collect()
}

#[test]
fn vectors_with_dot_segments_are_stopped_by_the_path_check() {
    for vector in Vector::all("sigv4") {
        let has_dots = ["get-relative-", "get-slash-dot-", "get-slash-pointless-dot-"]
            .iter()
            .any(|beginning| vector.name().starts_with(beginning));
        let checked = SafePath::check(vector.target.as_bytes());
        assert_eq!(checked.err(), has_dots.then_some(PathError::DotSegment), "{}", vector.name());
    }
}
