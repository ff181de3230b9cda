//! Requests that wait for their body or for credentials.

use std::time::Duration;

use super::proxy::{Fate, Proxy, now, refused};

const WAITING: &str = r#"{"credentialsWaitMs": 2000,
    "routes": {"/orders": {"target": "https://abc123.execute-api.eu-west-1.amazonaws.com/prod", "payload": "PAYLOAD"}}}"#;

fn waiting(payload: &str) -> String {
    WAITING.replace("PAYLOAD", payload)
}

#[test]
fn a_body_is_hashed_before_its_request_goes_on() {
    let mut proxy = Proxy::with_credentials(&waiting("signed"));
    let mut sent = proxy.send("POST", "/orders", &[], false);
    sent.body(&proxy, b"hel", false);
    assert_eq!(sent.fate(&proxy), Fate::Held);
    assert_eq!(sent.stream(&proxy).header("authorization"), None);
    sent.body(&proxy, b"lo", true);

    assert_eq!(sent.fate(&proxy), Fate::Forwarded { body: b"hello".to_vec() });
    let stream = sent.stream(&proxy);
    assert!(stream.header("authorization").is_some());
    assert_eq!(stream.header("content-length"), Some("5"));
    assert_eq!(proxy.host.metric("sigv4.requests;route=/orders;outcome=Signed"), 1);
}

#[test]
fn a_body_is_hashed_alike_in_whatever_parts_it_arrives() {
    let body: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
    let signed = |part: usize| {
        let mut proxy = Proxy::with_credentials(&waiting("signed"));
        let mut sent = proxy.send("POST", "/orders", &[], false);
        for part in body.chunks(part) {
            sent.body(&proxy, part, false);
        }
        sent.body(&proxy, b"", true);
        sent.stream(&proxy).header("authorization").unwrap().to_owned()
    };
    // Larger than what is copied at a time, and not a multiple of it.
    let at_once = signed(body.len());
    assert_eq!([signed(1_000), signed(65_536), signed(100_001)], [&at_once; 3].map(String::clone));
}

#[test]
fn trailers_end_a_body_and_leave_its_length_open() {
    let mut proxy = Proxy::with_credentials(&waiting("signed"));
    let mut sent = proxy.send("POST", "/orders", &[], false);
    sent.body(&proxy, b"hello", false);
    sent.trailers(&proxy);

    assert_eq!(sent.fate(&proxy), Fate::Forwarded { body: b"hello".to_vec() });
    assert_eq!(sent.stream(&proxy).header("content-length"), None);
    assert!(sent.stream(&proxy).header("authorization").is_some());
}

#[test]
fn credentials_that_arrive_late_sign_what_waits() {
    let mut proxy = Proxy::start(&waiting("unsigned"));
    let mut get = proxy.get("/orders");
    let mut put = proxy.send("PUT", "/orders", &[], false);
    put.body(&proxy, b"streamed", false);
    assert_eq!((get.fate(&proxy), put.fate(&proxy)), (Fate::Held, Fate::Held));
    assert_eq!(proxy.host.tick_period(), Some(Duration::from_millis(20)));

    proxy.push_credentials();
    proxy.pass(Duration::from_millis(20));

    assert_eq!(get.fate(&proxy), Fate::Forwarded { body: Vec::new() });
    assert_eq!(put.fate(&proxy), Fate::Forwarded { body: b"streamed".to_vec() });
    assert_eq!(proxy.host.tick_period(), Some(Duration::from_secs(1)));
    put.body(&proxy, b" on", true);
    assert_eq!(put.fate(&proxy), Fate::Forwarded { body: b"streamed on".to_vec() });
    for sent in [get, put] {
        assert!(sent.stream(&proxy).header("authorization").is_some());
    }
}

#[test]
fn a_hashed_body_may_arrive_before_or_after_the_credentials() {
    for body_first in [true, false] {
        let mut proxy = Proxy::start(&waiting("signed"));
        let mut sent = proxy.send("POST", "/orders", &[], false);
        for is_body in [body_first, !body_first] {
            assert_eq!(sent.fate(&proxy), Fate::Held);
            if is_body {
                sent.body(&proxy, b"hello", true);
            } else {
                proxy.push_credentials();
                proxy.pass(Duration::from_millis(20));
            }
        }
        assert_eq!(sent.fate(&proxy), Fate::Forwarded { body: b"hello".to_vec() }, "{body_first}");
        assert!(sent.stream(&proxy).header("authorization").is_some());
    }
}

#[test]
fn a_request_waits_as_long_as_the_policy_says() {
    let mut proxy = Proxy::start(&waiting("signed"));
    let mut sent = proxy.get("/orders");
    for _ in 0..99 {
        proxy.pass(Duration::from_millis(20));
    }
    assert_eq!(sent.fate(&proxy), Fate::Held);
    proxy.pass(Duration::from_millis(20));

    refused(sent.fate(&proxy), 503, "NoCredentials");
    assert_eq!(proxy.host.metric("sigv4.requests;route=/orders;outcome=NoCredentials"), 1);
}

#[test]
fn a_clock_that_is_set_neither_ends_a_wait_nor_prolongs_it() {
    for set_to in [now() - Duration::from_secs(86_400), now() + Duration::from_secs(86_400)] {
        let policy = waiting("signed").replace("2000", "30000");
        let mut proxy = Proxy::start(&policy);
        let mut sent = proxy.get("/orders");
        proxy.host.set_now(set_to);
        proxy.tick();
        for _ in 0..27 {
            proxy.pass(Duration::from_secs(1));
        }
        assert_eq!(sent.fate(&proxy), Fate::Held, "{set_to:?}");
        for _ in 0..4 {
            proxy.pass(Duration::from_secs(1));
        }
        refused(sent.fate(&proxy), 503, "NoCredentials");
    }
}

#[test]
fn credentials_that_expire_while_a_body_arrives_sign_nothing() {
    let mut proxy = Proxy::with_credentials(&waiting("signed"));
    let mut sent = proxy.send("POST", "/orders", &[], false);
    sent.body(&proxy, b"hel", false);
    proxy.revoke_credentials();
    proxy.tick();
    sent.body(&proxy, b"lo", true);

    refused(sent.fate(&proxy), 503, "NoCredentials");
}

#[test]
fn requests_that_ended_are_not_resumed() {
    let mut proxy = Proxy::start(&waiting("signed"));
    let gone = proxy.get("/orders");
    let mut stays = proxy.get("/orders");
    gone.reset(&proxy);
    proxy.push_credentials();
    proxy.pass(Duration::from_millis(20));

    assert_eq!(stays.fate(&proxy), Fate::Forwarded { body: Vec::new() });
}

#[test]
fn a_body_that_the_proxy_withholds_ends_its_request_with_advice() {
    let mut proxy = Proxy::with_credentials(&waiting("signed"));
    let mut sent = proxy.send("POST", "/orders", &[], false);
    sent.withhold_body(&proxy, 100_000);
    proxy.pass(Duration::from_secs(1));

    let message = refused(sent.fate(&proxy), 500, "SigningFailed");
    assert!(message.contains("allow_on_headers_stop_iteration: true"), "{message}");
}

#[test]
fn a_worker_holds_as_many_requests_as_it_may_and_signs_others_all_the_same() {
    let policy = waiting("signed").replace("{\"credentialsWaitMs\"", "{\"maxHeldRequests\": 2, \"credentialsWaitMs\"");
    let mut proxy = Proxy::with_credentials(&policy);
    let held = [0, 1].map(|_| proxy.send("POST", "/orders", &[], false));
    let mut over = proxy.send("POST", "/orders", &[], false);
    refused(over.fate(&proxy), 503, "Overloaded");
    assert_eq!(proxy.get("/orders").fate(&proxy), Fate::Forwarded { body: Vec::new() });

    drop(held);
    let mut sent = proxy.send("POST", "/orders", &[], false);
    sent.body(&proxy, b"hello", true);
    assert_eq!(sent.fate(&proxy), Fate::Forwarded { body: b"hello".to_vec() });
}

#[test]
fn only_large_headers_are_read_again() {
    for (size, times) in [(100, 1), (8192, 2)] {
        let mut proxy = Proxy::with_credentials(&waiting("signed"));
        proxy.host.fail_call(None);
        let value = "v".repeat(size);
        let mut sent = proxy.send("POST", "/orders", &[("x-amz-meta-a", &value)], false);
        sent.body(&proxy, b"hello", true);

        assert_eq!(sent.fate(&proxy), Fate::Forwarded { body: b"hello".to_vec() });
        let authorization = sent.stream(&proxy).header("authorization").unwrap_or_default().to_owned();
        assert!(authorization.contains(";x-amz-meta-a;"), "{authorization}");
        let reads = proxy.host.calls().iter().filter(|call| **call == "get_header_map_pairs").count();
        assert_eq!(reads, times, "{size}");
    }
}

#[test]
fn kept_headers_count_for_what_a_worker_holds() {
    let policy = waiting("signed").replace("{\"credentialsWaitMs\"", "{\"maxHeldBytes\": 5000, \"credentialsWaitMs\"");
    let mut proxy = Proxy::with_credentials(&policy);
    let value = "v".repeat(1500);
    // Its headers are held by the proxy and by the filter.
    let held = proxy.send("POST", "/orders", &[("x-amz-meta-a", &value)], false);
    let mut over = proxy.send("POST", "/orders", &[("x-amz-meta-a", &value)], false);
    refused(over.fate(&proxy), 503, "Overloaded");

    drop(held);
    let mut sent = proxy.send("POST", "/orders", &[("x-amz-meta-a", &value)], false);
    assert_eq!(sent.fate(&proxy), Fate::Held);
}

#[test]
fn a_worker_holds_as_many_bytes_as_it_may() {
    let policy =
        waiting("signed").replace("{\"credentialsWaitMs\"", "{\"maxHeldBytes\": 1000000, \"credentialsWaitMs\"");
    let mut proxy = Proxy::with_credentials(&policy);
    let mut sent = proxy.send("POST", "/orders", &[], false);
    sent.body(&proxy, &[0; 900_000], false);
    assert_eq!(sent.fate(&proxy), Fate::Held);
    sent.body(&proxy, &[0; 200_000], false);

    refused(sent.fate(&proxy), 503, "Overloaded");
}

const TO_S3: &str = r#"{"credentialsWaitMs": 2000, "routes": {"/": "https://s3.eu-west-1.amazonaws.com/bucket"}}"#;

#[test]
fn s3_is_told_the_length_of_a_body_that_had_none() {
    for trailers in [false, true] {
        let mut proxy = Proxy::with_credentials(TO_S3);
        let mut sent = proxy.send("PUT", "/key", &[("transfer-encoding", "chunked")], false);
        sent.body(&proxy, b"hel", false);
        assert_eq!(sent.fate(&proxy), Fate::Held);
        sent.body(&proxy, b"lo", !trailers);
        if trailers {
            sent.trailers(&proxy);
        }
        assert_eq!(sent.fate(&proxy), Fate::Forwarded { body: b"hello".to_vec() });
        let stream = sent.stream(&proxy);
        assert_eq!(stream.header("content-length"), Some("5"));
        assert_eq!(stream.header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"));
        assert!(stream.header("authorization").is_some());
    }
}

#[test]
fn a_body_that_says_its_length_streams_to_s3() {
    let mut proxy = Proxy::with_credentials(TO_S3);
    let mut sent = proxy.send("PUT", "/key", &[("content-length", "5")], false);
    assert_eq!(sent.fate(&proxy), Fate::Forwarded { body: Vec::new() });
}

#[test]
fn an_aws_chunked_body_that_says_its_decoded_length_streams_to_s3() {
    let mut proxy = Proxy::with_credentials(TO_S3);
    let headers =
        [("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"), ("x-amz-decoded-content-length", "5")];
    let mut sent = proxy.send("PUT", "/key", &headers, false);
    assert_eq!(sent.fate(&proxy), Fate::Forwarded { body: Vec::new() });
}

#[test]
fn a_body_is_held_for_its_length_as_for_its_credentials() {
    let mut proxy = Proxy::start(TO_S3);
    let mut sent = proxy.send("PUT", "/key", &[], false);
    sent.body(&proxy, b"hello", true);
    assert_eq!(sent.fate(&proxy), Fate::Held);
    proxy.push_credentials();
    proxy.pass(Duration::from_millis(20));
    assert_eq!(sent.fate(&proxy), Fate::Forwarded { body: b"hello".to_vec() });
    assert_eq!(sent.stream(&proxy).header("content-length"), Some("5"));
}

#[test]
fn a_body_too_large_to_be_held_for_its_length_is_refused_with_advice() {
    const MIB: usize = 1024 * 1024;
    let mut proxy = Proxy::with_credentials(TO_S3);
    let mut sent = proxy.send("PUT", "/key", &[], false);
    sent.body(&proxy, &[0; 15 * MIB], false);
    assert_eq!(sent.fate(&proxy), Fate::Held);
    sent.body(&proxy, b"0", true);
    let message = refused(sent.fate(&proxy), 411, "LengthRequired");
    assert!(message.contains("15 MiB") && message.contains("content-length"), "{message}");
    assert_eq!(proxy.host.metric("sigv4.requests;route=/;outcome=LengthRequired"), 1);
}

#[test]
fn a_redirected_client_is_not_asked_for_its_body() {
    let policy = TO_S3.replace(
        "\"https://s3.eu-west-1.amazonaws.com/bucket\"",
        r#"{"target": "https://s3.eu-west-1.amazonaws.com/bucket", "signing": {"location": "query", "redirect": true}}"#,
    );
    let mut proxy = Proxy::with_credentials(&policy);
    let mut sent = proxy.send("PUT", "/key", &[], false);
    let Fate::Replied(reply) = sent.fate(&proxy) else { panic!() };
    assert_eq!(reply.status, 307);
}

#[test]
fn trailers_take_nothing_of_what_a_body_counts() {
    let policy =
        waiting("signed").replace("{\"credentialsWaitMs\"", "{\"maxHeldBytes\": 1000000, \"credentialsWaitMs\"");
    let mut proxy = Proxy::start(&policy);
    let mut with_trailers = proxy.send("POST", "/orders", &[], false);
    with_trailers.body(&proxy, &[0; 900_000], false);
    with_trailers.trailers(&proxy);
    assert_eq!(with_trailers.fate(&proxy), Fate::Held);
    let mut sent = proxy.send("POST", "/orders", &[], false);
    sent.body(&proxy, &[0; 900_000], false);

    refused(sent.fate(&proxy), 503, "Overloaded");
}

#[test]
fn the_routes_rules_leave_the_answer_to_a_held_request_alone() {
    let policy =
        waiting("signed").replace("\"payload\"", "\"responseHeaders\": {\"remove\": [\"retry-after\"]}, \"payload\"");
    let mut proxy = Proxy::start(&policy);
    let mut sent = proxy.get("/orders");
    proxy.pass(Duration::from_secs(1));
    proxy.pass(Duration::from_secs(1));
    refused(sent.fate(&proxy), 503, "NoCredentials");

    let reply = [(":status", "503"), ("retry-after", "5")];
    assert_eq!(sent.response(&proxy, &reply).len(), 2);
}

#[test]
fn a_request_that_can_not_be_resumed_is_refused() {
    let mut proxy = Proxy::start(&waiting("unsigned"));
    let mut sent = proxy.get("/orders");
    proxy.push_credentials();
    proxy.host.fail_every("continue_stream");
    proxy.pass(Duration::from_millis(20));

    refused(sent.fate(&proxy), 500, "SigningFailed");
}

#[test]
fn a_request_whose_context_can_not_be_entered_is_tried_again() {
    let mut proxy = Proxy::start(&waiting("unsigned"));
    let mut sent = proxy.get("/orders");
    proxy.push_credentials();
    proxy.host.fail_every("set_effective_context");
    proxy.pass(Duration::from_millis(20));
    assert_eq!(sent.fate(&proxy), Fate::Held);
    proxy.host.fail_call(None);
    proxy.pass(Duration::from_secs(1));
    proxy.pass(Duration::from_secs(1));

    assert_eq!(sent.fate(&proxy), Fate::Forwarded { body: Vec::new() });
}

#[test]
fn nothing_passes_before_the_headers() {
    let mut proxy = Proxy::with_credentials(&waiting("signed"));
    let mut sent = proxy.connect();
    sent.body(&proxy, b"hello", false);
    sent.trailers(&proxy);

    assert_eq!(sent.fate(&proxy), Fate::Held);
}
