//! Requests that are signed at their headers.

use super::proxy::{Fate, Proxy, refused};
use crate::host::mock::MockStream;

const TO_API: &str = r#"{"routes": {"/orders": "https://abc123.execute-api.eu-west-1.amazonaws.com/prod"}}"#;

/// Asserts that what went upstream is signed, and returns the credential scope.
fn scope(stream: &MockStream) -> String {
    let authorization = stream.header("authorization").unwrap_or_else(|| panic!("unsigned: {stream:?}"));
    assert!(stream.header("x-amz-date").is_some() && stream.header("x-amz-security-token") == Some("token"));
    let (_, scope) = authorization.split_once("Credential=").unwrap();
    scope.split_once(',').unwrap().0.to_owned()
}

#[test]
fn a_signed_request_goes_to_its_target() {
    let mut proxy = Proxy::with_credentials(TO_API);
    let mut sent = proxy.get("/orders/42?limit=10");

    assert_eq!(sent.fate(&proxy), Fate::Forwarded { body: Vec::new() });
    let stream = sent.stream(&proxy);
    assert_eq!(stream.header(":authority"), Some("abc123.execute-api.eu-west-1.amazonaws.com"));
    assert_eq!(stream.header(":path"), Some("/prod/42?limit=10"));
    assert_eq!(scope(&stream), "ASIDEXAMPLE/20260102/eu-west-1/execute-api/aws4_request");
    assert_eq!(stream.filter_state["sigv4.host"], "policy");
    assert_eq!(proxy.host.metric("sigv4.requests;route=/orders;outcome=Signed"), 1);
}

#[test]
fn what_stays_as_it_is_costs_no_host_call() {
    let policy = r#"{"routes": {"/": {"hosts": ["app.example"], "service": "execute-api", "region": "eu-west-1"}}}"#;
    let mut proxy = Proxy::with_credentials(policy);
    proxy.host.fail_call(None);
    let sent = proxy.get("/orders?a=b");

    assert_eq!(sent.stream(&proxy).header(":path"), Some("/orders?a=b"));
    assert!(!proxy.host.calls().contains(&"replace_header_map_value"), "{:?}", proxy.host.calls());
    // In wire form, a path is another one.
    let sent = proxy.get("/orders/{id}");
    assert_eq!(sent.stream(&proxy).header(":path"), Some("/orders/%7Bid%7D"));
}

#[test]
fn a_cluster_without_tls_is_noticed_by_either_name_of_the_attribute() {
    let mut proxy = Proxy::with_credentials(r#"{"routes": {"/": {"hosts": ["*.amazonaws.com"]}}}"#);
    let host = [(":authority", "sqs.eu-west-1.amazonaws.com")];
    let cluster = |attribute, name: &str| (attribute, name.as_bytes().to_vec());
    for properties in [
        vec![cluster("cluster_name", "PassthroughCluster")],
        vec![cluster("xds\0cluster_name", "PassthroughCluster")],
        vec![cluster("cluster_name", ""), cluster("xds\0cluster_name", "InboundPassthroughCluster")],
    ] {
        let mut sent = proxy.send_with(&properties, "GET", "/", &host, true);
        let message = refused(sent.fate(&proxy), 500, "SigningFailed");
        assert!(message.contains("PassthroughCluster"), "{message}");
    }
    for properties in [vec![], vec![cluster("cluster_name", "outbound|443||sqs.eu-west-1.amazonaws.com")]] {
        let mut sent = proxy.send_with(&properties, "GET", "/", &host, true);
        assert_eq!(sent.fate(&proxy), Fate::Forwarded { body: Vec::new() });
    }
}

#[test]
fn a_signature_of_the_client_gives_way() {
    let mut proxy = Proxy::with_credentials(TO_API);
    let leftovers = [("authorization", "AWS4-HMAC-SHA256 of-the-client"), ("x-amz-region-set", "*")];
    let sent = proxy.send("GET", "/orders", &leftovers, true);

    let stream = sent.stream(&proxy);
    assert!(scope(&stream).starts_with("ASIDEXAMPLE/"));
    assert_eq!(stream.request.iter().filter(|(name, _)| name == "authorization").count(), 1);
    assert_eq!(stream.header("x-amz-region-set"), None);
}

#[test]
fn a_request_that_no_route_takes_is_refused_or_passes_as_the_policy_says() {
    let mut proxy = Proxy::with_credentials(TO_API);
    let message = refused(proxy.get("/other").fate(&proxy), 404, "NoRoute");
    assert!(message.contains("no route of the signing policy"), "{message}");

    let mut proxy = Proxy::with_credentials(&TO_API.replace("{\"routes\"", "{\"unmatched\": \"pass\", \"routes\""));
    let mut sent = proxy.get("/other");
    let before = sent.stream(&proxy).request;
    assert_eq!(sent.fate(&proxy), Fate::Forwarded { body: Vec::new() });
    assert_eq!(before.len(), 4, "{before:?}");
}

#[test]
fn requests_that_can_not_be_signed_are_refused() {
    let mut proxy = Proxy::with_credentials(TO_API);
    for (method, path, headers, code) in [
        ("GET", "/orders/../admin", &[][..], "InvalidPath"),
        ("CONNECT", "/orders", &[], "UnsupportedRequest"),
        ("GET", "/orders", &[("x-sigv4-upstream", "http")], "UnsupportedRequest"),
        ("GET", "/orders/..", &[("x-sigv4-upstream", "http")], "UnsupportedRequest"),
        ("PUT", "/orders", &[("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-EVENTS")], "UnsupportedRequest"),
    ] {
        let mut sent = proxy.send(method, path, headers, true);
        refused(sent.fate(&proxy), 400, code);
    }
}

#[test]
fn a_route_may_ask_for_authentication() {
    let policy = r#"{"allowUnauthenticatedRequests": false, "routes": {"/": "https://s3.eu-west-1.amazonaws.com"}}"#;
    let mut proxy = Proxy::with_credentials(policy);
    refused(proxy.get("/key").fate(&proxy), 401, "Unauthenticated");
}

#[test]
fn the_bucket_of_the_host_goes_into_the_target() {
    for (target, authority, path) in [
        ("https://{bucket}.s3.eu-west-1.amazonaws.com", "app.s3.eu-west-1.amazonaws.com", "/key"),
        ("https://s3.eu-west-1.amazonaws.com/{bucket}", "s3.eu-west-1.amazonaws.com", "/app/key"),
    ] {
        let policy = format!(r#"{{"routes": {{"/": {{"hosts": ["*.example"], "target": "{target}"}}}}}}"#);
        let mut proxy = Proxy::with_credentials(&policy);
        let sent = proxy.get("/key");
        let stream = sent.stream(&proxy);
        assert_eq!((stream.header(":authority"), stream.header(":path")), (Some(authority), Some(path)));
        assert_eq!(scope(&stream), "ASIDEXAMPLE/20260102/eu-west-1/s3/aws4_request");
        // The names that clients choose are resolved apart.
        assert_eq!(stream.filter_state.contains_key("sigv4.host"), target.ends_with("{bucket}"));
    }
    let policy = r#"{"routes": {"/": {"hosts": ["*.app.example"], "target": "http://minio.example/{bucket}",
        "service": "s3", "region": "eu-west-1"}}, "unmatched": "deny"}"#;
    let mut proxy = Proxy::with_credentials(policy);
    refused(proxy.get("/key").fate(&proxy), 404, "NoRoute");
}

#[test]
fn the_clock_of_a_buckets_host_is_learned() {
    let policy =
        r#"{"routes": {"/": {"hosts": ["*.example"], "target": "https://{bucket}.s3.eu-west-1.amazonaws.com"}}}"#;
    let mut proxy = Proxy::with_credentials(policy);
    let mut sent = proxy.get("/key");
    let ahead = [(":status", "403"), ("date", "Fri, 02 Jan 2026 04:04:05 GMT"), ("x-amz-request-id", "1")];
    sent.response(&proxy, &ahead);
    assert_eq!(proxy.get("/key").stream(&proxy).header("x-amz-date"), Some("20260102T040405Z"));
}

#[test]
fn a_redirect_is_an_answer_of_the_filter() {
    let policy = r#"{"routes": {"/": {"target": "https://s3.eu-west-1.amazonaws.com/bucket",
        "signing": {"location": "query", "redirect": true}}}}"#;
    let mut proxy = Proxy::with_credentials(policy);
    let mut sent = proxy.get("/key");

    let Fate::Replied(reply) = sent.fate(&proxy) else { panic!() };
    assert_eq!(reply.status, 307);
    let (name, location) = &reply.headers[0];
    assert_eq!(name, "location");
    assert!(location.starts_with("https://s3.eu-west-1.amazonaws.com/bucket/key?X-Amz-Algorithm="), "{location}");
    assert_eq!(sent.stream(&proxy).header("authorization"), None);
    let described = "outcome=Redirected route=/ identity=default signing_name=s3";
    assert_eq!(sent.stream(&proxy).filter_state["sigv4.request"], described);
}

#[test]
fn the_rules_for_headers_hold_in_both_directions() {
    let policy = r#"{"routes": {"/": {"target": "https://s3.eu-west-1.amazonaws.com",
        "requestHeaders": {"remove": ["cookie"], "set": {"x-team": "orders"}},
        "responseHeaders": {"remove": ["server"]}}}}"#;
    let mut proxy = Proxy::with_credentials(policy);
    let mut sent = proxy.send("GET", "/key", &[("cookie", "c"), ("accept", "*/*")], true);

    let stream = sent.stream(&proxy);
    assert_eq!(
        (stream.header("cookie"), stream.header("x-team"), stream.header("accept")),
        (None, Some("orders"), Some("*/*"))
    );
    let response = sent.response(&proxy, &[(":status", "200"), ("server", "AmazonS3")]);
    assert_eq!(response, [(":status".to_owned(), b"200".to_vec())]);
}

#[test]
fn the_clock_of_an_upstream_that_refuses_is_learned() {
    let mut proxy = Proxy::with_credentials(TO_API);
    let mut sent = proxy.get("/orders");
    let ahead = [
        (":status", "403"),
        ("date", "Fri, 02 Jan 2026 04:04:05 GMT"),
        ("x-amzn-errortype", "InvalidSignatureException"),
        ("x-amzn-requestid", "1"),
    ];
    sent.response(&proxy, &ahead);

    let sent = proxy.get("/orders");
    assert_eq!(sent.stream(&proxy).header("x-amz-date"), Some("20260102T040405Z"));
}
