//! The scope of a request, if its client may choose it.

use super::proxy::{Fate, Proxy};
use crate::signing::PayloadHash;

const AWS: &str = r#"{"hosts": ["*.amazonaws.com"]"#;

fn signed_for(scope: &str) -> String {
    format!("AWS4-HMAC-SHA256 Credential=throw-away/20260101/{scope}/aws4_request, SignedHeaders=host, Signature=0")
}

/// Sends a request to a host from a client that signed for `scope` (`region/service`), by a route with these members.
fn send(route: &str, members: &str, host: &str, path: &str, scope: &str, ends: bool) -> (Proxy, super::proxy::Sent) {
    let mut proxy = Proxy::with_credentials(&format!(r#"{{"routes": {{"/": {route}, {members}}}}}}}"#));
    let authorization = signed_for(scope);
    let headers = [(":authority", host), ("authorization", authorization.as_str()), ("content-length", "3")];
    let sent = proxy.send("PUT", path, &headers, ends);
    (proxy, sent)
}

/// Returns the region and service that a request was signed for.
fn scope_of(authorization: &str) -> String {
    authorization.split('/').skip(2).take(2).collect::<Vec<_>>().join("/")
}

#[test]
fn the_precedence_of_policy_host_and_client() {
    const API: &str = "abc.execute-api.eu-west-1.amazonaws.com";
    const TARGET: &str = r#"{"target": "https://abc.execute-api.eu-west-1.amazonaws.com""#;
    const UNKNOWN: &str = r#"{"target": "https://api.example.com""#;
    let (client, first) = (r#""signing": {"scope": "client"}"#, r#""signing": {"scope": "client-first"}"#);
    let fixed = |members: &str| format!("{first}, {members}");
    for (route, members, expected) in [
        (AWS, client.to_owned(), "eu-west-1/execute-api"),
        (AWS, first.to_owned(), "us-east-1/iam"),
        (TARGET, client.to_owned(), "eu-west-1/execute-api"),
        (TARGET, first.to_owned(), "us-east-1/iam"),
        (UNKNOWN, client.to_owned(), "us-east-1/iam"),
        (UNKNOWN, first.to_owned(), "us-east-1/iam"),
        (AWS, fixed(r#""service": "lambda""#), "us-east-1/lambda"),
        (TARGET, fixed(r#""region": "eu-central-1""#), "eu-central-1/iam"),
        (TARGET, fixed(r#""service": "lambda", "region": "eu-central-1""#), "eu-central-1/lambda"),
    ] {
        let (proxy, sent) = send(route, &members, API, "/a", "us-east-1/iam", true);
        let stream = sent.stream(&proxy);
        assert_eq!(scope_of(stream.header("authorization").unwrap()), expected, "{route} {members}");
    }
}

#[test]
fn no_spelling_of_a_host_lets_its_client_choose_the_scope() {
    let client = r#""signing": {"scope": "client"}"#;
    for port in ["", ".", ":443", ":0443"] {
        let (proxy, sent) =
            send(AWS, client, &format!("SQS.eu-west-1.amazonaws.com{port}"), "/", "us-east-1/iam", true);
        let stream = sent.stream(&proxy);
        assert_eq!(scope_of(stream.header("authorization").unwrap()), "eu-west-1/sqs", "{port}");
    }
    let padded = format!("sqs.eu-west-1.amazonaws.com:{}443", "0".repeat(300));
    let (proxy, mut sent) = send(AWS, client, &padded, "/", "us-east-1/iam", true);
    super::proxy::refused(sent.fate(&proxy), 404, "NoRoute");
}

#[test]
fn without_a_scope_of_its_client_a_request_has_the_hosts() {
    let mut proxy =
        Proxy::with_credentials(&format!(r#"{{"routes": {{"/": {AWS}, "signing": {{"scope": "client-first"}}}}}}}}"#));
    let host = (":authority", "abc.execute-api.eu-west-1.amazonaws.com");
    for authorization in ["", "Bearer abc", "AWS4-ECDSA-P256-SHA256 Credential=AKID/20150830/s3/aws4_request"] {
        let sent = proxy.send("GET", "/", &[host, ("authorization", authorization)], true);
        assert_eq!(scope_of(sent.stream(&proxy).header("authorization").unwrap()), "eu-west-1/execute-api");
    }
}

#[test]
fn the_host_of_a_target_is_what_counts() {
    let members = r#""signing": {"scope": "client"}"#;
    let route = r#"{"target": "https://api.example.com""#;
    let (proxy, sent) = send(route, members, "sqs.eu-west-1.amazonaws.com", "/", "us-east-1/es", true);
    assert_eq!(scope_of(sent.stream(&proxy).header("authorization").unwrap()), "us-east-1/es");
}

#[test]
fn the_clients_scope_does_not_choose_the_payload_mode() {
    let first = r#""signing": {"scope": "client-first"}"#;
    let unknown = r#"{"target": "https://files.example.com""#;
    let hosts = ["abc.execute-api.eu-west-1.amazonaws.com", "b.s3.eu-west-1.amazonaws.com"];
    for (route, host, scope, is_held) in [
        (AWS, hosts[0], "eu-west-1/s3", true),
        (AWS, hosts[1], "eu-west-1/execute-api", false),
        (unknown, "app.example", "eu-west-1/s3", true),
    ] {
        let (proxy, mut sent) = send(route, first, host, "/a", scope, false);
        assert_eq!(sent.fate(&proxy) == Fate::Held, is_held, "{host} {scope}");
        sent.body(&proxy, b"abc", true);
        assert_eq!(scope_of(sent.stream(&proxy).header("authorization").unwrap()), scope);
        let sent_hash = sent.stream(&proxy).header("x-amz-content-sha256").map(str::to_owned);
        let unsigned = std::str::from_utf8(PayloadHash::Unsigned.as_bytes()).unwrap();
        assert_eq!(sent_hash.as_deref() == Some(unsigned), !is_held, "{host} {scope}: {sent_hash:?}");
    }
}

#[test]
fn the_clients_scope_does_not_choose_the_form_of_the_path() {
    let first = r#""signing": {"scope": "client-first"}"#;
    for (host, scope, path) in [
        // S3 reads %2F as a slash; others get the path as it was written.
        ("abc.execute-api.eu-west-1.amazonaws.com", "eu-west-1/s3", "/a%2Fb"),
        ("b.s3.eu-west-1.amazonaws.com", "eu-west-1/execute-api", "/a/b"),
    ] {
        let (proxy, sent) = send(AWS, first, host, "/a%2Fb", scope, true);
        assert_eq!(sent.stream(&proxy).header(":path"), Some(path), "{host} {scope}");
    }
}

#[test]
fn a_copy_source_is_checked_whatever_the_client_signed_for() {
    let first = r#""signing": {"scope": "client-first"}"#;
    let mut proxy = Proxy::with_credentials(&format!(r#"{{"routes": {{"/": {AWS}, {first}}}}}}}"#));
    let authorization = signed_for("eu-west-1/execute-api");
    let headers = [
        (":authority", "b.s3.eu-west-1.amazonaws.com"),
        ("authorization", authorization.as_str()),
        ("x-amz-copy-source", "/b/../c"),
    ];
    let mut sent = proxy.send("PUT", "/key", &headers, true);
    super::proxy::refused(sent.fate(&proxy), 400, "InvalidPath");
}

#[test]
fn a_mismatch_of_scopes_is_counted() {
    let mismatches = |route: &str, members: &str, scope: &str| {
        let (proxy, mut sent) = send(route, members, "abc.execute-api.eu-west-1.amazonaws.com", "/a", scope, true);
        assert!(matches!(sent.fate(&proxy), Fate::Forwarded { .. }));
        proxy.host.metric("sigv4.scope_mismatches;route=/;outcome=Signed")
    };
    let (client, first) = (r#""signing": {"scope": "client"}"#, r#""signing": {"scope": "client-first"}"#);
    let target = r#"{"target": "https://abc.execute-api.eu-west-1.amazonaws.com""#;
    for route in [AWS, target] {
        assert_eq!(mismatches(route, client, "eu-west-1/execute-api"), 0);
        assert_eq!(mismatches(route, client, "us-east-1/execute-api"), 1);
        assert_eq!(mismatches(route, client, "eu-west-1/iam"), 1);
        assert_eq!(mismatches(route, first, "us-east-1/iam"), 0);
        // What the policy sets is meant to differ.
        assert_eq!(mismatches(route, &format!(r#"{client}, "region": "us-east-1""#), "eu-west-1/execute-api"), 0);
        assert_eq!(mismatches(route, r#""signing": {"scope": "infer"}"#, "us-east-1/iam"), 0);
    }
}
