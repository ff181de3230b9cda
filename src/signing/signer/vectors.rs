//! AWS's published vectors for SigV4 (`tests/vectors/sigv4`), each value by value.
//!
//! Some describe what never gets through the proxy; they are run all the same, past the check that would stop them:
//!
//! | vectors | why they never get here |
//! | --- | --- |
//! | `get-relative-*`, `get-slash-dot-*`, `get-slash-pointless-dot-*` | dot segments are refused |
//! | `get-space-*`, `get-utf8` | a raw blank or non-ASCII byte is not sent on: its wire form is percent-encoded, and signed as such |
//! | `*-unnormalized` | only the S3 style is not normalized, and it signs the path as it is sent |
//! | `get-header-value-multiline` | a server joins a folded line before anyone sees it, as is done here |
//! | `post-sts-header-after` | a session token is always signed in the header; here it is left out |

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::*;
use crate::path::{PathError, SafePath};
use crate::signing::{PayloadHasher, UriStyle};

#[derive(Deserialize)]
struct Context {
    credentials: ContextCredentials,
    normalize: bool,
    region: String,
    service: String,
    sign_body: bool,
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

/// A vector: a request and the circumstances under which it is signed.
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

    fn credentials(&self) -> Credentials {
        let ContextCredentials { access_key_id, secret_access_key, token } = &self.context.credentials;
        let token = token.clone().filter(|_| !self.context.omit_session_token).map(Into::into);
        Credentials::new(access_key_id, secret_access_key.clone(), token, None).unwrap()
    }

    fn uri(&self) -> WireUri {
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path.as_bytes(), Some(query.as_bytes())),
            None => (self.target.as_bytes(), None),
        };
        if self.context.normalize {
            // A verifier encodes the path that it got once more, so these have to arrive as they are written.
            WireUri::with_path_as_written(UriStyle::Standard, path, query)
        } else {
            let mut uri = WireUri::default();
            uri.set(UriStyle::S3, path, query);
            uri
        }
    }

    fn payload(&self) -> PayloadHash {
        let mut hasher = PayloadHasher::default();
        if self.context.sign_body {
            hasher.update(self.body.as_bytes());
        }
        hasher.finish()
    }
}

#[test]
fn every_sigv4_vector_is_signed_in_its_headers() {
    let vectors = Vector::all("sigv4");
    assert_eq!(vectors.len(), 38);
    let mut signer = Signer::default();
    for vector in vectors {
        let name = vector.name();
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
            algorithm: Algorithm::SigV4,
            at: vector.at(),
        };
        let headers = vector.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let signed = signer.sign_in_headers(&request, headers, &context, vector.context.sign_body).unwrap();
        let sent: Vec<(&str, Vec<u8>)> = signed.iter().map(|(name, value)| (name, value.to_vec())).collect();

        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(text(signer.canonical_request.text()), vector.file("header-canonical-request.txt"), "{name}");
        assert_eq!(text(&signer.string_to_sign), vector.file("header-string-to-sign.txt"), "{name}");
        let signed_request = vector.file("header-signed-request.txt");
        for (header, value) in sent {
            let line = signed_request.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case(header).then_some(value)
            });
            assert_eq!(Some(text(&value).as_str()), line, "{header} of {name}");
            if header == "authorization" {
                assert!(
                    text(&value).ends_with(&format!(", Signature={}", vector.file("header-signature.txt"))),
                    "{name}"
                );
            }
        }
    }
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
