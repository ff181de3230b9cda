//! Requests whose caller decides about their route.

use std::time::Duration;

use super::proxy::{Fate, Proxy, Sent, refused};
use crate::credentials::{CredentialStore, Credentials, Identity, Role};
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
fn no_spelling_of_the_path_and_no_metadata_chooses_among_callers() {
    let mut proxy = Proxy::with_credentials(&POLICY.replacen('{', r#"{"routeMetadata": true, "#, 1));
    let orders = (URI, b"spiffe://td/ns/orders/sa/x".to_vec());
    let named = |name: &str| {
        let all = b"\x0a\x05sigv4".to_vec();
        let key = "xds\0route_metadata\0filter_metadata\0sigv4\0route";
        vec![orders.clone(), ("xds\0route_metadata", all), (key, name.as_bytes().to_vec())]
    };
    for (properties, path) in [
        (vec![orders.clone()], "/%61/1"),
        (named("/a for spiffe://td/ns/orders/sa/*"), "/a/1"),
        (named("/a for shop.internal"), "/a/1"),
    ] {
        let mut sent = proxy.send_with(&properties, "GET", path, &[], true);
        assert_eq!(sent.fate(&proxy), Fate::Forwarded { body: Vec::new() });
        assert_eq!(sent.stream(&proxy).header(":path"), Some("/orders/1"), "{path}");
    }
    let mut sent = proxy.send_with(&[(MTLS, vec![1]), orders], "GET", "/c", &[], true);
    refused(sent.fate(&proxy), 404, "NoRoute");
}

#[test]
fn the_access_log_names_the_caller() {
    let orders = (URI, b"spiffe://td/ns/orders/sa/x".to_vec());
    let other = (URI, b"spiffe://td/ns/other/sa/x".to_vec());
    let logged = POLICY.replacen('{', r#"{"accessLog": true, "#, 1);
    for (policy, property, path, named) in [
        (&*logged, &orders, "/a/1", Some("spiffe://td/ns/orders/sa/x")),
        (&*logged, &(TOKENS, tokens("https://a")), "/a/1", Some("https://a")),
        (&*logged, &other, "/a/1", Some("spiffe://td/ns/other/sa/x")),
        // Without accessLog, only what was refused is described.
        (POLICY, &orders, "/a/1", None),
        (POLICY, &other, "/b/1", Some("spiffe://td/ns/other/sa/x")),
        (POLICY, &(DNS, Vec::new()), "/b/1", None),
    ] {
        let mut proxy = Proxy::with_credentials(policy);
        let sent = proxy.send_with(&[(MTLS, vec![1]), property.clone()], "GET", path, &[], true);
        let state = &sent.stream(&proxy).filter_state;
        assert_eq!(state.get("sigv4.caller").map(String::as_str), named, "{property:?} {path}");
    }
}

#[test]
fn a_caller_who_can_not_be_read_is_not_admitted() {
    let mut proxy = Proxy::with_credentials(POLICY);
    proxy.host.fail_every("get_property");
    let mut sent = proxy.send_with(&[(URI, b"spiffe://td/ns/orders/sa/x".to_vec())], "GET", "/b", &[], true);
    assert!(matches!(sent.fate(&proxy), Fate::Replied(reply) if reply.status >= 400));
}

const MESH: &str = r#"{"maxCallerIdentities": 150, "routes": {"/a": {
    "target": "https://sqs.eu-west-1.amazonaws.com", "callers": ["spiffe://td/ns/*/sa/*"],
    "roleArn": "arn:aws:iam::123456789012:role/mesh-{namespace}", "roleSessionName": "{namespace}"}}}"#;

fn of_namespace(namespace: &str) -> Identity {
    Identity::assumed_for_caller(Role::new(format!("arn:aws:iam::123456789012:role/mesh-{namespace}"), namespace))
}

fn send(proxy: &mut Proxy, namespace: &str) -> Sent {
    let uri = format!("spiffe://td/ns/{namespace}/sa/default").into_bytes();
    proxy.send_with(&[(MTLS, vec![1]), (URI, uri)], "GET", "/a/1", &[], true)
}

/// Puts the credentials of a namespace into the shared data, as an intake does if they are required.
fn supply(proxy: &Proxy, namespace: &str) {
    let (store, id) = (CredentialStore(proxy.host.shared_data()), of_namespace(namespace));
    assert!(store.required().unwrap().contains(&id), "{namespace} is not required");
    let key = format!("ASIA{}", namespace.to_uppercase());
    store.put(id.id(), &Credentials::new(key, "secret".to_owned(), Some("token".into()), None).unwrap()).unwrap();
}

fn required(proxy: &Proxy) -> usize {
    CredentialStore(proxy.host.shared_data()).required().unwrap().len()
}

#[test]
fn the_first_request_of_a_caller_waits_for_its_role_and_later_ones_do_not() {
    let mut proxy = Proxy::start(MESH);
    let mut first = send(&mut proxy, "orders");
    assert_eq!(first.fate(&proxy), Fate::Held);
    supply(&proxy, "orders");
    proxy.tick();
    assert_eq!(first.fate(&proxy), Fate::Forwarded { body: Vec::new() });
    assert!(first.stream(&proxy).header("authorization").unwrap().contains("ASIAORDERS"));

    let mut second = send(&mut proxy, "orders");
    assert_eq!(second.fate(&proxy), Fate::Forwarded { body: Vec::new() });
    let mut other = send(&mut proxy, "shop");
    assert_eq!(other.fate(&proxy), Fate::Held);
    let _third = send(&mut proxy, "third");
    assert_eq!(required(&proxy), 2, "further ones are leased together, with the next tick");
    proxy.tick();
    assert_eq!(required(&proxy), 3);
    supply(&proxy, "shop");
    proxy.tick();
    assert!(other.stream(&proxy).header("authorization").unwrap().contains("ASIASHOP"));
}

#[test]
fn callers_that_come_together_ask_for_one_identity() {
    let mut proxy = Proxy::start(MESH);
    let mut sent: Vec<_> = (0..10).map(|_| send(&mut proxy, "orders")).collect();
    proxy.tick();
    assert_eq!(required(&proxy), 1);
    supply(&proxy, "orders");
    proxy.tick();
    assert!(sent.iter_mut().all(|sent| sent.fate(&proxy) == Fate::Forwarded { body: Vec::new() }));
}

#[test]
fn a_caller_whose_role_does_not_come_is_told_after_five_seconds() {
    let mut proxy = Proxy::start(MESH);
    let mut sent = send(&mut proxy, "orders");
    for _ in 0..4 {
        proxy.pass(Duration::from_secs(1));
        assert_eq!(sent.fate(&proxy), Fate::Held);
    }
    proxy.pass(Duration::from_secs(1));
    let message = refused(sent.fate(&proxy), 503, "NoCredentials");
    assert!(message.contains(of_namespace("orders").id()), "{message}");
}

#[test]
fn an_identity_is_given_up_when_no_caller_has_come_for_half_an_hour() {
    let mut proxy = Proxy::start(MESH);
    for namespace in ["orders", "shop"] {
        let _sent = send(&mut proxy, namespace);
        proxy.tick();
        supply(&proxy, namespace);
    }
    for _ in 0..29 * 60 {
        proxy.pass(Duration::from_secs(1));
    }
    assert_eq!(send(&mut proxy, "orders").fate(&proxy), Fate::Forwarded { body: Vec::new() });
    for _ in 0..2 * 60 {
        proxy.pass(Duration::from_secs(1));
    }
    assert_eq!(CredentialStore(proxy.host.shared_data()).required().unwrap(), [of_namespace("orders")]);
    assert_eq!(send(&mut proxy, "orders").fate(&proxy), Fate::Forwarded { body: Vec::new() });
    assert_eq!(send(&mut proxy, "shop").fate(&proxy), Fate::Held);
}

#[test]
fn a_flood_of_callers_takes_no_place_of_those_in_use_and_makes_room_for_others() {
    let mut proxy = Proxy::start(MESH);
    let _sent = send(&mut proxy, "orders");
    supply(&proxy, "orders");
    proxy.tick();
    for second in 0..60 {
        for number in 0..50 {
            let mut sent = send(&mut proxy, &format!("flood-{second}-{number}"));
            assert_ne!(sent.fate(&proxy), Fate::Forwarded { body: Vec::new() });
        }
        proxy.pass(Duration::from_secs(1));
        assert_eq!(send(&mut proxy, "orders").fate(&proxy), Fate::Forwarded { body: Vec::new() }, "{second}");
        assert!(required(&proxy) <= 150, "{}", required(&proxy));
    }
    let refused = proxy.host.metric("sigv4.requests;route=/a;outcome=Overloaded");
    assert!(refused > 2000, "{refused}");
    // Half a minute after the flood, another caller finds room.
    for _ in 0..31 {
        proxy.pass(Duration::from_secs(1));
    }
    let mut other = send(&mut proxy, "shop");
    supply(&proxy, "shop");
    proxy.tick();
    assert_eq!(other.fate(&proxy), Fate::Forwarded { body: Vec::new() });
}

#[test]
fn a_callers_value_that_makes_no_role_is_refused() {
    let mut proxy = Proxy::start(MESH);
    let mut sent = send(&mut proxy, &"x".repeat(64));
    let message = refused(sent.fate(&proxy), 403, "CallerNotAllowed");
    assert!(message.contains("too long"), "{message}");
    assert_eq!(required(&proxy), 0);
}

#[test]
fn a_known_caller_costs_one_property_and_no_shared_data() {
    let mut proxy = Proxy::start(MESH);
    let _sent = send(&mut proxy, "orders");
    supply(&proxy, "orders");
    proxy.tick();
    proxy.host.fail_call(None);
    assert_eq!(send(&mut proxy, "orders").fate(&proxy), Fate::Forwarded { body: Vec::new() });
    let calls = proxy.host.calls();
    assert!(!calls.contains(&"get_shared_data"), "{calls:?}");
}
