//! Requests whose caller decides about their route.

use super::proxy::{Fate, Proxy, refused};
use crate::header_map::HeaderMap;

const POLICY: &str = r#"{"routes": [
    {"prefix": "/a", "target": "https://sqs.eu-west-1.amazonaws.com/orders",
     "callers": ["spiffe://td/ns/orders/sa/*", {"issuer": "https://a"}]},
    {"prefix": "/a", "target": "https://sqs.eu-west-1.amazonaws.com/shop", "callers": ["shop.internal"]},
    {"prefix": "/b", "target": "https://sqs.eu-west-1.amazonaws.com", "callers": ["spiffe://td/ns/orders/sa/*"]}]}"#;

const URI: &str = "connection\0uri_san_peer_certificate";
const DNS: &str = "connection\0dns_san_peer_certificate";
const MTLS: &str = "connection\0mtls";
const TOKENS: &str = "metadata\0filter_metadata\0envoy.filters.http.jwt_authn";

fn tokens(issuer: &str) -> Vec<u8> {
    HeaderMap::serialize(&[("jwt", HeaderMap::serialize(&[("iss", issuer)]).0)]).0
}

#[test]
fn the_caller_chooses_the_target() {
    let mut proxy = Proxy::with_credentials(POLICY);
    for (property, value, path) in [
        (URI, b"spiffe://td/ns/orders/sa/x".to_vec(), "/orders/1"),
        (TOKENS, tokens("https://a"), "/orders/1"),
        (DNS, b"shop.internal".to_vec(), "/shop/1"),
    ] {
        let mut sent = proxy.send_with(&[(property, value)], "GET", "/a/1", &[], true);
        assert_eq!(sent.fate(&proxy), Fate::Forwarded { body: Vec::new() });
        assert_eq!(sent.stream(&proxy).header(":path"), Some(path));
    }
    assert_eq!(proxy.host.metric("sigv4.requests;route=/a for shop.internal;outcome=Signed"), 1);
}

#[test]
fn an_authenticated_caller_whom_no_route_admits_is_refused() {
    let mut proxy = Proxy::with_credentials(POLICY);
    for properties in [
        vec![(MTLS, vec![1]), (URI, b"spiffe://td/ns/other/sa/x".to_vec())],
        vec![(MTLS, vec![1]), (DNS, b"other.internal".to_vec())],
        vec![(MTLS, vec![1])],
        vec![(TOKENS, tokens("https://b"))],
    ] {
        for path in ["/a/1", "/b/1"] {
            let mut sent = proxy.send_with(&properties, "GET", path, &[], true);
            let message = refused(sent.fate(&proxy), 403, "CallerNotAllowed");
            assert!(message.contains("the route's callers do not include this one"), "{message}");
        }
    }
}

#[test]
fn without_authentication_it_stays_401() {
    let mut proxy = Proxy::with_credentials(POLICY);
    for properties in [vec![], vec![(MTLS, vec![0])], vec![(URI, Vec::new()), (DNS, Vec::new())]] {
        for path in ["/a/1", "/b/1"] {
            let mut sent = proxy.send_with(&properties, "GET", path, &[], true);
            refused(sent.fate(&proxy), 401, "Unauthenticated");
        }
    }
}

#[test]
fn a_spiffe_caller_costs_one_property() {
    let mut proxy = Proxy::with_credentials(POLICY);
    proxy.host.fail_call(None);
    let uri = b"spiffe://td/ns/orders/sa/x".to_vec();
    let mut sent = proxy.send_with(&[(URI, uri)], "GET", "/b/1", &[], true);
    assert_eq!(sent.fate(&proxy), Fate::Forwarded { body: Vec::new() });
    let calls = proxy.host.calls();
    // The other one is the metadata of Envoy's route.
    assert_eq!(calls.iter().filter(|call| **call == "get_property").count(), 2, "{calls:?}");
}

#[test]
fn a_caller_who_can_not_be_read_is_not_admitted() {
    let mut proxy = Proxy::with_credentials(POLICY);
    proxy.host.fail_every("get_property");
    let mut sent = proxy.send_with(&[(URI, b"spiffe://td/ns/orders/sa/x".to_vec())], "GET", "/b", &[], true);
    assert!(matches!(sent.fate(&proxy), Fate::Replied(reply) if reply.status >= 400));
}
