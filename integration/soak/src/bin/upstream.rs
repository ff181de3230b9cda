//! What `make soak` signs for: an STS whose sessions are short, and an API that verifies every request with the
//! `aws-sigv4` crate and counts.
//!
//! `upstream PORT`, with the user's key in `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`. Beside the API:
//!
//! | call | answer |
//! | --- | --- |
//! | `POST /` | `AssumeRole`, signed as the user |
//! | `POST /soak/session-seconds/{n}` | how long sessions last from now on |
//! | `GET /soak/report` | what has been seen |

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, SignableBody, SignableRequest, SigningParams, SigningSettings, sign,
};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

/// By how much the time of a signature may differ, as at AWS.
const MAX_SKEW: Duration = Duration::from_secs(300);

struct Upstream {
    keys: HashMap<String, Key>,
    session_seconds: f64,
    sessions: u64,
    /// One bit for each request's number, which the load gives it.
    accepted: Vec<u64>,
    repeated: u64,
    refused: BTreeMap<String, u64>,
    /// By how much a signature that was made now differed in time.
    largest_skew: Duration,
}

struct Key {
    credentials: Credentials,
    requests: u64,
    first: SystemTime,
    last: SystemTime,
}

impl Key {
    fn new(credentials: Credentials) -> Self {
        Self { credentials, requests: 0, first: UNIX_EPOCH, last: UNIX_EPOCH }
    }
}

impl Upstream {
    fn answer(&mut self, head: &Parts, body: &[u8]) -> (StatusCode, String) {
        let path = head.uri.path();
        if let Some(seconds) = path.strip_prefix("/soak/session-seconds/") {
            self.session_seconds = seconds.parse().unwrap_or(self.session_seconds);
            return (StatusCode::OK, String::new());
        }
        if path == "/soak/report" {
            return (StatusCode::OK, self.report());
        }
        let outcome = self.verify(head, body).and_then(|key| {
            if head.method == Method::POST && path == "/" { self.assume_role(body) } else { self.accept(&key, head) }
        });
        outcome.map_or_else(
            |problem| {
                *self.refused.entry(problem.to_owned()).or_default() += 1;
                (StatusCode::FORBIDDEN, problem.to_owned())
            },
            |answer| (StatusCode::OK, answer),
        )
    }

    /// Signs the request once more, as its signature claims it was signed, and compares.
    fn verify(&mut self, head: &Parts, body: &[u8]) -> Result<String, &'static str> {
        let header = |name: &str| single(&head.headers, name);
        let authorization = header("authorization").ok_or("not signed")?;
        let claim = authorization.strip_prefix("AWS4-HMAC-SHA256 Credential=").ok_or("not SigV4")?;
        let (scope, claim) = claim.split_once(", SignedHeaders=").ok_or("no signed headers")?;
        let (signed_headers, _) = claim.split_once(", Signature=").ok_or("no signature")?;
        let [access_key_id, _, region, service, "aws4_request"] = scope.split('/').collect::<Vec<_>>()[..] else {
            return Err("no credential scope");
        };
        let key = self.keys.get(access_key_id).ok_or("an unknown access key")?;
        let now = SystemTime::now();
        if key.credentials.expiry().is_some_and(|expiry| expiry <= now) {
            return Err("expired credentials");
        }
        if header("x-amz-security-token") != key.credentials.session_token() {
            return Err("not the session's token");
        }
        let at = header("x-amz-date").and_then(instant).ok_or("no date")?;
        let skew = at.duration_since(now).or_else(|_| now.duration_since(at)).unwrap_or_default();
        if skew > MAX_SKEW {
            return Err("not signed now");
        }
        self.largest_skew = self.largest_skew.max(skew);

        let mut settings = SigningSettings::default();
        if header("x-amz-content-sha256").is_some() {
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        // These the crate adds by itself.
        let added = ["x-amz-date", "x-amz-security-token", "x-amz-content-sha256"];
        let names = signed_headers.split(';').filter(|name| !added.contains(name));
        let headers: Vec<_> =
            names.map(|name| Some((name, header(name)?))).collect::<Option<_>>().ok_or("a header is gone")?;
        let host = header("host").filter(|_| signed_headers.split(';').any(|name| name == "host")).ok_or("no host")?;
        let uri = format!("http://{host}{}", head.uri);
        let request = SignableRequest::new(head.method.as_str(), uri, headers.into_iter(), SignableBody::Bytes(body));
        let identity = key.credentials.clone().into();
        let params: SigningParams<'_> = aws_sigv4::sign::v4::SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name(service)
            .time(at)
            .settings(settings)
            .build()
            .map_err(|_| "can't be signed")?
            .into();
        let (instructions, _) =
            sign(request.map_err(|_| "no request")?, &params).map_err(|_| "can't be signed")?.into_parts();
        let expected = instructions.headers().find(|(name, _)| *name == "authorization").map(|(_, value)| value);
        if expected == Some(authorization) { Ok(access_key_id.to_owned()) } else { Err("another signature") }
    }

    fn accept(&mut self, key: &str, head: &Parts) -> Result<String, &'static str> {
        let query = head.uri.query().unwrap_or_default();
        let number = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "n");
        let number: usize = number.and_then(|(_, number)| number.parse().ok()).ok_or("no number")?;
        let (word, bit) = (number / 64, 1 << (number % 64));
        if self.accepted.len() <= word {
            self.accepted.resize(word + 1, 0);
        }
        if self.accepted[word] & bit != 0 {
            self.repeated += 1;
        }
        self.accepted[word] |= bit;
        let key = self.keys.get_mut(key).ok_or("an unknown access key")?;
        key.last = SystemTime::now();
        if key.requests == 0 {
            key.first = key.last;
        }
        key.requests += 1;
        Ok(String::new())
    }

    fn assume_role(&mut self, body: &[u8]) -> Result<String, &'static str> {
        let call: HashMap<_, _> = url::form_urlencoded::parse(body).into_owned().collect();
        if call.get("Action").is_none_or(|action| action != "AssumeRole") {
            return Err("no AssumeRole");
        }
        self.sessions += 1;
        let access_key_id = format!("ASIASOAK{:08}", self.sessions);
        let (secret, token) = (format!("{:032x}", fastrand::u128(..)), format!("token{:032x}", fastrand::u128(..)));
        // Documents tell expiries in whole seconds.
        let expiry = unix_seconds(SystemTime::now() + Duration::from_secs_f64(self.session_seconds)).round();
        let expiry = UNIX_EPOCH + Duration::from_secs_f64(expiry);
        let credentials = Credentials::new(&access_key_id, &secret, Some(token.clone()), Some(expiry), "soak");
        self.keys.insert(access_key_id.clone(), Key::new(credentials));
        Ok(format!(
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
             <AccessKeyId>{access_key_id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
             <SessionToken>{token}</SessionToken><Expiration>{}</Expiration>\
             </Credentials></AssumeRoleResult></AssumeRoleResponse>",
            humantime::format_rfc3339_seconds(expiry)
        ))
    }

    fn report(&self) -> String {
        let used = self.keys.iter().filter(|(_, key)| key.requests > 0);
        let keys: BTreeMap<_, _> = used
            .map(|(id, key)| {
                let seen =
                    json!({"requests": key.requests, "first": unix_seconds(key.first), "last": unix_seconds(key.last)});
                (id, seen)
            })
            .collect();
        let distinct: u32 = self.accepted.iter().map(|word| word.count_ones()).sum();
        json!({
            "verified": distinct, "repeated": self.repeated, "refused": self.refused, "sessions": self.sessions,
            "keys": keys, "largest_skew_seconds": self.largest_skew.as_secs_f64(),
        })
        .to_string()
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Reads `20260102T030405Z`.
fn instant(text: &str) -> Option<SystemTime> {
    let part = |range| text.get(range);
    let (year, month, day) = (part(0..4)?, part(4..6)?, part(6..8)?);
    let (hour, minute, second) = (part(9..11)?, part(11..13)?, part(13..15)?);
    humantime::parse_rfc3339(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z")).ok()
}

fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

async fn serve(request: Request<hyper::body::Incoming>, upstream: &RefCell<Upstream>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let (status, answer) = match body.collect().await {
        Ok(body) => upstream.borrow_mut().answer(&head, &body.to_bytes()),
        Err(_) => (StatusCode::BAD_REQUEST, "the body broke off".to_owned()),
    };
    let mut response = Response::new(Full::from(answer));
    *response.status_mut() = status;
    response
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: upstream PORT")?.parse()?;
    let (id, secret) = (std::env::var("AWS_ACCESS_KEY_ID")?, std::env::var("AWS_SECRET_ACCESS_KEY")?);
    let user = Key::new(Credentials::new(&id, secret, None, None, "soak"));
    let upstream = Rc::new(RefCell::new(Upstream {
        keys: HashMap::from([(id, user)]),
        session_seconds: 3600.0,
        sessions: 0,
        accepted: Vec::new(),
        repeated: 0,
        refused: BTreeMap::new(),
        largest_skew: Duration::ZERO,
    }));
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async move {
            loop {
                let (stream, _) = listener.accept().await?;
                let upstream = upstream.clone();
                tokio::task::spawn_local(async move {
                    let service = service_fn(|request| {
                        let upstream = upstream.clone();
                        async move { Ok::<_, Infallible>(serve(request, &upstream).await) }
                    });
                    // A proxy that ends breaks its connections off.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        })
        .await
}
