//! Refusals in the form that the client reads.

use super::proxy::{Proxy, Sent, refused};

const SDK: (&str, &str) = ("amz-sdk-invocation-id", "1");
const SIGNED_FOR_S3: (&str, &str) =
    ("authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/eu-west-1/s3/aws4_request, SignedHeaders=host");

const TO_S3: &str = r#"{"routes": {"/files": "https://s3.eu-west-1.amazonaws.com"}}"#;

fn content_type(proxy: &Proxy, sent: &Sent) -> String {
    let reply = sent.stream(proxy).reply.expect("a reply");
    let (_, value) = reply.headers.into_iter().find(|(name, _)| name == "content-type").expect("a content type");
    value
}

#[test]
fn a_client_of_s3_reads_xml_and_another_one_json() {
    let mut proxy = Proxy::start(TO_S3);
    for header in [SDK, SIGNED_FOR_S3] {
        let mut sent = proxy.send("GET", "/files/key", &[header], true);
        assert_eq!(content_type(&proxy, &sent), "application/xml");
        let body = refused(sent.fate(&proxy), 503, "NoCredentials");
        assert!(body.contains("<Error><Code>NoCredentials</Code><Message>the proxy holds no"), "{body}");
        assert!(body.ends_with("<Route>/files</Route></Error>"), "{body}");
    }
    let sent = proxy.get("/files/key");
    assert_eq!(content_type(&proxy, &sent), "application/json");
}

#[test]
fn the_form_tells_nothing_of_the_route_before_authentication() {
    let policy = TO_S3.replace("{\"routes\"", "{\"allowUnauthenticatedRequests\": false, \"routes\"");
    let mut proxy = Proxy::with_credentials(&policy);
    let sent = proxy.send("GET", "/files/key", &[SDK], true);
    assert_eq!(content_type(&proxy, &sent), "application/json");
    // What the client says of itself is not the route's.
    let mut sent = proxy.send("GET", "/files/key", &[SIGNED_FOR_S3], true);
    assert_eq!(content_type(&proxy, &sent), "application/xml");
    refused(sent.fate(&proxy), 401, "Unauthenticated");
}

#[test]
fn a_request_of_no_route_is_answered_as_it_names_its_protocol() {
    let mut proxy = Proxy::with_credentials(TO_S3);
    for (headers, expected) in [
        (&[][..], "application/json"),
        (&[SDK], "application/json"),
        (&[SIGNED_FOR_S3], "application/xml"),
        (&[("smithy-protocol", "rpc-v2-cbor")], "application/cbor"),
    ] {
        let mut sent = proxy.send("POST", "/other", headers, true);
        assert_eq!(content_type(&proxy, &sent), expected, "{headers:?}");
        refused(sent.fate(&proxy), 404, "NoRoute");
    }
}

#[test]
fn a_request_that_waited_is_answered_in_its_form() {
    let policy = TO_S3.replace("{\"routes\"", "{\"credentialsWaitMs\": 20, \"routes\"");
    let mut proxy = Proxy::start(&policy);
    let mut sent = proxy.send("GET", "/files/key", &[SIGNED_FOR_S3], true);
    proxy.pass(std::time::Duration::from_millis(20));
    assert_eq!(content_type(&proxy, &sent), "application/xml");
    refused(sent.fate(&proxy), 503, "NoCredentials");
}
