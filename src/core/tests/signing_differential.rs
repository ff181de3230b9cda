//! Random requests, signed by this crate and by the `aws-sigv4` crate, which must agree to the byte.
//!
//! What the other crate can't take is left out here and has tests of its own beside the code: query text that is not
//! UTF-8 once decoded, and header values beyond ASCII.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials as OracleCredentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningInstructions,
    SigningParams, SigningSettings, UriPathNormalizationMode,
};
use proptest::prelude::*;
use sigv4_core::credentials::Credentials;
use sigv4_core::signing::{
    Algorithm, PayloadHash, PayloadHasher, Scope, Signer, SigningContext, SigningCredentials, UnsignedRequest,
    UriStyle, WireUri,
};

/// Header names, and whether a signature covers them where the policy adds `x-team` and `accept`.
const NAMES: [(&str, bool); 12] = [
    ("content-type", true),
    ("Content-MD5", true),
    ("x-amz-target", true),
    ("X-Amz-Meta-B", true),
    ("x-amz-meta-a", true),
    ("x-team", true),
    ("Accept", true),
    ("user-agent", false),
    ("x-forwarded-for", false),
    ("x-amzn-trace-id", false),
    ("traceparent", false),
    ("cookie", false),
];
const ADDED: [&str; 2] = ["x-team", "accept"];
const SERVICES: [&str; 7] =
    ["s3", "s3-object-lambda", "execute-api", "dynamodb", "aoss", "glacier", "iotdevicegateway"];
/// Of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;
/// Those that are sent the body's hash, whatever it is.
const SENT_THE_HASH: [&str; 4] = ["s3", "s3-object-lambda", "aoss", "glacier"];

#[derive(Debug, Clone)]
enum Body {
    None,
    Unsigned,
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone)]
struct Request {
    method: &'static str,
    path: Vec<u8>,
    query: Option<String>,
    headers: Vec<(usize, String)>,
    body: Body,
    service: &'static str,
    region: &'static str,
    secret: String,
    token: Option<String>,
    seconds: u64,
}

fn requests() -> impl Strategy<Value = Request> {
    let byte = prop_oneof![
        4 => prop::sample::select(b"abcXYZ019".as_slice()).prop_map(|b| vec![b]),
        2 => Just(b"/".to_vec()),
        2 => prop::sample::select(b"-._~+:@=&,;$!*'() |\"<>^{}[]%#".as_slice()).prop_map(|b| vec![b]),
        2 => any::<u8>().prop_map(|b| format!("%{b:02X}").into_bytes()),
        1 => any::<u8>().prop_map(|b| format!("%{b:02x}").into_bytes()),
        1 => any::<u8>().prop_map(|b| vec![b]),
    ];
    let path = prop::collection::vec(byte, 0..16).prop_map(|parts| [b"/".to_vec(), parts.concat()].concat());
    let text = prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "A", "1", "-", ".", "_", "~"]),
        4 => prop::sample::select(vec!["+", "%20", "%2F", "%2f", "/", ":", "%", "%%", "%4", "ü", "%C3%BC", "%41", "%00", "\u{1234}", "#", " "]),
        2 => prop::sample::select(vec!["=", "&", "?"]),
    ];
    let query = prop::option::of(prop::collection::vec(text, 0..16).prop_map(|parts| parts.concat()).prop_filter(
        "decodes to UTF-8",
        |query| {
            url::form_urlencoded::parse(query.as_bytes())
                .all(|(name, value)| !format!("{name}{value}").contains('\u{fffd}'))
        },
    ));
    // No tabs: the crate joins runs of blanks alone, where AWS's other SDKs join all white space.
    let headers = prop::collection::vec((0..NAMES.len(), "[ a-c,\"]{0,8}"), 0..8);
    let body = prop_oneof![
        2 => Just(Body::None),
        1 => Just(Body::Unsigned),
        2 => prop::collection::vec(any::<u8>(), 0..32).prop_map(Body::Bytes),
    ];
    (
        (prop::sample::select(vec!["GET", "PUT", "POST", "DELETE", "HEAD", "M-SEARCH"]), path, query, headers, body),
        (
            prop::sample::select(SERVICES.as_slice()),
            prop::sample::select(vec!["us-east-1", "cn-north-1"]),
            "[a-zA-Z0-9/+]{1,40}",
            prop::option::of("[a-zA-Z0-9/+=]{1,64}"),
            0..=LAST_SECOND,
        ),
    )
        .prop_map(|((method, path, query, headers, body), (service, region, secret, token, seconds))| Request {
            method,
            path,
            query,
            headers,
            body,
            service,
            region,
            secret,
            token,
            seconds,
        })
}

/// The additions of each side to the request: headers, or the parameters of the query.
type Signature = Vec<(String, String)>;

impl Request {
    fn at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.seconds)
    }

    fn uri(&self) -> WireUri {
        let mut uri = WireUri::default();
        uri.set(UriStyle::of(self.service, b"localhost"), &self.path, self.query.as_deref().map(str::as_bytes));
        uri
    }

    fn sends_the_hash(&self) -> bool {
        SENT_THE_HASH.contains(&self.service) || matches!(self.body, Body::Unsigned)
    }

    fn credentials(&self) -> SigningCredentials {
        let token = self.token.clone().map(Into::into);
        Credentials::new("AKIDEXAMPLE", self.secret.clone(), token, None).unwrap().into()
    }

    /// Signs with this crate; in the query where an expiry is given.
    fn ours(
        &self,
        signer: &mut Signer,
        credentials: &SigningCredentials,
        region_set: Option<&str>,
        expires: Option<Duration>,
    ) -> Signature {
        let uri = self.uri();
        let added = ADDED.map(str::to_owned);
        let payload = match &self.body {
            Body::None => PayloadHash::Empty,
            Body::Unsigned => PayloadHash::Unsigned,
            Body::Bytes(bytes) => {
                let mut hasher = PayloadHasher::default();
                bytes.chunks(7).for_each(|part| hasher.update(part));
                hasher.finish()
            }
        };
        let request = UnsignedRequest {
            method: self.method.as_bytes(),
            authority: b"h.example",
            uri: &uri,
            payload,
            signed_headers: &added,
        };
        let context = SigningContext {
            credentials,
            scope: Scope { region: self.region, service: self.service },
            algorithm: region_set.map_or(Algorithm::SigV4, |region_set| Algorithm::SigV4a { region_set }),
            at: self.at(),
        };
        let headers = self.headers.iter().map(|(name, value)| (NAMES[*name].0.as_bytes(), value.as_bytes()));
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut signature: Signature = match expires {
            None => {
                let signed = signer.sign(&request, headers, &context).unwrap();
                signed.iter().map(|(name, value)| (name.to_owned(), text(value))).collect()
            }
            Some(expires) => {
                let presigned = text(signer.presign(&request, headers, &context, expires).unwrap());
                let added = presigned.strip_prefix(&text(uri.as_bytes())).unwrap().trim_start_matches(['?', '&']);
                url::form_urlencoded::parse(added.as_bytes()).into_owned().collect()
            }
        };
        signature.sort();
        signature
    }

    /// Signs what goes over the wire with the `aws-sigv4` crate.
    fn oracle(&self, region_set: Option<&str>, expires: Option<Duration>) -> Signature {
        let is_s3 = self.service.starts_with("s3");
        let mut settings = SigningSettings::default();
        settings.expires_in = expires;
        if expires.is_some() {
            settings.signature_location = SignatureLocation::QueryParams;
        }
        if is_s3 {
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        }
        if self.service == "iotdevicegateway" && expires.is_some() {
            settings.session_token_mode = aws_sigv4::http_request::SessionTokenMode::Exclude;
        }
        if self.sends_the_hash() {
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        let body = match &self.body {
            _ if is_s3 && expires.is_some() => SignableBody::UnsignedPayload,
            Body::None => SignableBody::empty(),
            Body::Unsigned => SignableBody::UnsignedPayload,
            Body::Bytes(bytes) => SignableBody::Bytes(bytes),
        };
        let uri = format!("https://h.example{}", std::str::from_utf8(self.uri().as_bytes()).unwrap());
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| (NAMES[*name], value.as_str()))
            .filter_map(|((name, is_signed), value)| is_signed.then_some((name, value)));
        let request = SignableRequest::new(self.method, uri, headers, body).unwrap();
        let identity =
            OracleCredentials::new("AKIDEXAMPLE", self.secret.clone(), self.token.clone(), None, "test").into();
        let params: SigningParams<'_> = match region_set {
            None => aws_sigv4::sign::v4::SigningParams::builder()
                .identity(&identity)
                .region(self.region)
                .name(self.service)
                .time(self.at())
                .settings(settings)
                .build()
                .unwrap()
                .into(),
            Some(region_set) => aws_sigv4::sign::v4a::SigningParams::builder()
                .identity(&identity)
                .region_set(region_set)
                .name(self.service)
                .time(self.at())
                .settings(settings)
                .build()
                .unwrap()
                .into(),
        };
        let (instructions, _) = aws_sigv4::http_request::sign(request, &params).unwrap().into_parts();
        let mut signature = added_by(&instructions);
        signature.sort();
        signature
    }
}

fn added_by(instructions: &SigningInstructions) -> Signature {
    let headers = instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let parameters = instructions.params().iter().map(|(name, value)| ((*name).to_owned(), value.to_string()));
    headers.chain(parameters).collect()
}

/// Runs `cases` random requests through one signer, as they pass through a proxy.
fn compare(cases: u32, region_set: Option<&'static str>, location: impl Fn(&Request) -> Option<Duration>) {
    let signer = std::cell::RefCell::new(Signer::default());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let result = runner.run(&requests(), |request| {
        let expires = location(&request);
        prop_assert_eq!(
            request.ours(&mut signer.borrow_mut(), &request.credentials(), region_set, expires),
            request.oracle(region_set, expires)
        );
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

#[test]
fn headers_agree() {
    compare(60_000, None, |_| None);
}

#[test]
fn queries_agree() {
    compare(40_000, None, |request| Some(Duration::from_secs(1 + request.seconds % 604_800)));
}

/// Both sides make the nonce as RFC 6979 says, so even the ECDSA signatures are equal.
#[test]
fn sigv4a_agrees() {
    compare(200, Some("us-east-1,eu-*"), |request| {
        request.seconds.is_multiple_of(2).then_some(Duration::from_secs(60))
    });
}

/// Makes a request, and what it takes from another one when it follows that one under the same credentials.
fn series() -> impl Strategy<Value = Vec<Request>> {
    let token = "[a-zA-Z0-9/+=]{1,900}";
    (token, prop::collection::vec((requests(), any::<[bool; 5]>()), 2..12)).prop_map(|(token, requests)| {
        let mut series: Vec<Request> = Vec::new();
        for (mut next, [keeps_target, keeps_headers, keeps_second, keeps_service, keeps_body]) in requests {
            next.token = Some(token.clone());
            if let Some(before) = series.last() {
                next.secret.clone_from(&before.secret);
                if keeps_target {
                    (next.method, next.path, next.query) = (before.method, before.path.clone(), before.query.clone());
                }
                if keeps_headers {
                    next.headers.clone_from(&before.headers);
                }
                next.seconds = (before.seconds + u64::from(!keeps_second)).min(LAST_SECOND);
                if keeps_service {
                    (next.service, next.region) = (before.service, before.region);
                }
                if keeps_body {
                    next.body = before.body.clone();
                }
            }
            series.push(next);
        }
        series
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// What is kept from one request to the next is never taken for another one's.
    #[test]
    fn requests_that_resemble_one_another_agree(series in series()) {
        let mut signer = Signer::default();
        let credentials = series[0].credentials();
        for request in &series {
            prop_assert_eq!(request.ours(&mut signer, &credentials, None, None), request.oracle(None, None));
        }
    }
}
