//! A proxy that refuses a call. Whichever it is, no request goes on that is not signed as its route says.

use std::time::Duration;

use super::proxy::{Fate, Proxy, Sent};
use crate::host::mock::MockStream;

/// A request, from a proxy that was just started to its fate.
type Scenario = fn(&mut Proxy) -> Sent;

const API: &str = r#"{"credentialsWaitMs": 2000, "accessLog": true, "routes": {"/orders":
    {"target": "http://abc123.execute-api.eu-west-1.amazonaws.com/prod",
     "requestHeaders": {"remove": ["cookie"], "set": {"x-team": "orders"}}}}}"#;

const S3: &str = r#"{"credentialsWaitMs": 2000, "routes": {"/orders": "https://s3.eu-west-1.amazonaws.com/bucket"}}"#;

const BY_ENVOY: &str = r#"{"routes": {"/orders":
    {"target": "https://abc123.execute-api.eu-west-1.amazonaws.com/prod", "payload": "envoy"}}}"#;

const HELLO_SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

const PRESIGNED: &str = r#"{"routes": {"/orders": {"target": "https://s3.eu-west-1.amazonaws.com/bucket",
    "signing": {"location": "query"}}}}"#;

const REDIRECTED: &str = r#"{"routes": {"/orders": {"target": "https://s3.eu-west-1.amazonaws.com/bucket",
    "signing": {"location": "query", "redirect": true}}}}"#;

const AUTHENTICATED: &str = r#"{"allowUnauthenticatedRequests": false, "unmatched": "pass",
    "routes": {"/orders": {"hosts": ["app.example"], "service": "execute-api", "region": "eu-west-1"}}}"#;

/// Envoy's own route names the policy's, which matches no path by itself.
const NAMED: &str = r#"{"unmatched": "pass", "routeMetadata": true,
    "routes": {"/other": "https://abc123.execute-api.eu-west-1.amazonaws.com"}}"#;

/// Of a chunk, by the client.
const CLIENT_SIGNATURE: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Headers of a client that has signed already.
const LEFTOVERS: [(&str, &str); 3] =
    [("cookie", "c"), ("authorization", "AWS4-HMAC-SHA256 of-the-client"), ("x-amz-date", "of-the-client")];

fn plain(proxy: &mut Proxy) -> Sent {
    proxy.push_credentials();
    proxy.tick();
    proxy.get("/orders/42")
}

fn leftovers(proxy: &mut Proxy) -> Sent {
    proxy.push_credentials();
    proxy.tick();
    proxy.send("GET", "/orders/42", &LEFTOVERS, true)
}

fn named(proxy: &mut Proxy) -> Sent {
    proxy.push_credentials();
    proxy.tick();
    let route = "xds\0route_metadata\0filter_metadata\0sigv4\0route";
    let properties = [("xds\0route_metadata", b"sigv4".to_vec()), (route, b"/other".to_vec())];
    proxy.send_with(&properties, "GET", "/orders/42", &LEFTOVERS, true)
}

fn hashed(proxy: &mut Proxy) -> Sent {
    proxy.push_credentials();
    proxy.tick();
    let mut sent = proxy.send("POST", "/orders/42", &LEFTOVERS, false);
    sent.body(proxy, b"hel", false);
    sent.body(proxy, b"lo", true);
    sent
}

/// Whose body Envoy has hashed.
fn hashed_by_envoy(proxy: &mut Proxy) -> Sent {
    proxy.push_credentials();
    proxy.tick();
    let properties = [("metadata\0filter_metadata\0sigv4\0payload_sha256", HELLO_SHA256.as_bytes().to_vec())];
    // If the hash can't be read, the filter hashes the body, and would add this.
    let headers = [("content-length", "5"), LEFTOVERS[1]];
    let mut sent = proxy.send_with(&properties, "POST", "/orders/42", &headers, false);
    sent.body(proxy, b"hello", true);
    sent
}

fn measured(proxy: &mut Proxy) -> Sent {
    proxy.push_credentials();
    proxy.tick();
    let mut sent = proxy.send("PUT", "/orders/42", &LEFTOVERS, false);
    sent.body(proxy, b"hel", false);
    sent.body(proxy, b"lo", true);
    sent
}

fn late_credentials(proxy: &mut Proxy) -> Sent {
    let sent = proxy.send("GET", "/orders/42", &LEFTOVERS, true);
    proxy.push_credentials();
    proxy.pass(Duration::from_millis(20));
    sent
}

fn late_body(proxy: &mut Proxy) -> Sent {
    let mut sent = proxy.send("POST", "/orders/42", &LEFTOVERS, false);
    proxy.push_credentials();
    proxy.pass(Duration::from_millis(20));
    sent.body(proxy, b"hello", true);
    sent
}

fn chunked(proxy: &mut Proxy) -> Sent {
    proxy.push_credentials();
    proxy.tick();
    upload(proxy)
}

fn late_chunked(proxy: &mut Proxy) -> Sent {
    let sent = upload(proxy);
    proxy.push_credentials();
    proxy.pass(Duration::from_millis(20));
    sent
}

fn upload(proxy: &mut Proxy) -> Sent {
    let headers = [
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("x-amz-decoded-content-length", "5"),
        ("x-amz-date", "of-the-client"),
    ];
    let mut sent = proxy.send("PUT", "/orders/42", &headers, false);
    let signature = format!("chunk-signature={CLIENT_SIGNATURE}");
    sent.body(proxy, format!("5;{signature}\r\nhello\r\n").as_bytes(), false);
    sent.body(proxy, format!("0;{signature}\r\n\r\n").as_bytes(), true);
    sent
}

/// Asserts that a request that went on is signed: it has the signature, and nothing of the client that is not to pass.
fn assert_signed(stream: &MockStream, expected: &MockStream) {
    let query = stream.header(":path").unwrap();
    if query.contains("X-Amz-Signature=") {
        assert_eq!(stream.header("authorization"), None);
    } else {
        let authorization = stream.header("authorization").expect("an authorization header");
        assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=ASIDEXAMPLE/"), "{authorization}");
        assert_eq!(query, expected.header(":path").unwrap());
    }
    for (name, value) in &stream.request {
        assert!(!value.windows(13).any(|part| part == b"of-the-client"), "{name} is the client's");
    }
    let names = |stream: &MockStream| {
        let mut names: Vec<String> = stream.request.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    };
    assert_eq!(names(stream), names(expected));
    assert_eq!(stream.header(":authority"), expected.header(":authority"));
}

/// Runs a scenario as often as it makes host calls, each time with another one that fails. Returns how often the request went
/// on all the same.
fn fail_each_call(policy: &str, scenario: Scenario) -> (usize, usize) {
    let mut proxy = Proxy::start(policy);
    proxy.host.fail_call(None);
    let mut sent = scenario(&mut proxy);
    let calls = proxy.host.calls();
    let expected = sent.fate(&proxy);
    assert_ne!(expected, Fate::Held);
    let expected_stream = sent.stream(&proxy);

    let mut forwarded = 0;
    for (failing, call) in calls.iter().enumerate() {
        let mut proxy = Proxy::start(policy);
        proxy.host.fail_call(Some(failing));
        let mut sent = scenario(&mut proxy);
        if let Fate::Forwarded { body } = sent.fate(&proxy) {
            println!("{call} ({failing}) failed, and the request went on");
            assert_signed(&sent.stream(&proxy), &expected_stream);
            let Fate::Forwarded { body: expected } = &expected else { panic!("only a redirect was expected") };
            assert_eq!(body.len(), expected.len());
            assert!(
                !body.windows(64).any(|part| part == CLIENT_SIGNATURE.as_bytes()),
                "{call}: a chunk is the client's"
            );
            forwarded += 1;
        }
    }
    (forwarded, calls.len())
}

#[test]
fn no_failing_call_lets_a_request_pass_unsigned() {
    for (name, policy, scenario) in [
        ("plain", API, plain as Scenario),
        ("leftovers", API, leftovers),
        ("hashed", API, hashed),
        ("late credentials", API, late_credentials),
        ("late body", API, late_body),
        ("hashed by Envoy", BY_ENVOY, hashed_by_envoy),
        ("measured", S3, measured),
        ("chunked", S3, chunked),
        ("late chunked", S3, late_chunked),
        ("presigned", PRESIGNED, leftovers),
        ("route metadata", NAMED, named),
    ] {
        println!("{name}");
        let (forwarded, calls) = fail_each_call(policy, scenario);
        // Those that count, time and describe cost no request.
        assert!((1..calls).contains(&forwarded), "{name}: {forwarded} of {calls}");
    }
}

#[test]
fn no_failing_call_sends_a_redirected_request_on() {
    let (forwarded, calls) = fail_each_call(REDIRECTED, plain);
    assert_eq!(forwarded, 0, "of {calls}");
}

#[test]
fn no_failing_call_authenticates_a_client() {
    let scenario: Scenario = |proxy| {
        proxy.push_credentials();
        proxy.tick();
        proxy.get("/orders")
    };
    let (forwarded, calls) = fail_each_call(AUTHENTICATED, scenario);
    assert_eq!(forwarded, 0, "of {calls}");
}
