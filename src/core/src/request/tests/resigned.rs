//! `aws-chunked` uploads, whose chunks are signed as they pass.

use std::time::Duration;

use super::proxy::{Fate, Proxy, Sent, refused};

const TO_S3: &str = r#"{"credentialsWaitMs": 2000, "routes": {"/": "https://s3.eu-west-1.amazonaws.com/bucket"}}"#;

/// Makes a chunk as a client signs it under a key that nobody has.
fn chunk(data: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x};chunk-signature={}\r\n", data.len(), "c".repeat(64)).into_bytes();
    chunk.extend_from_slice(data);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

fn upload(proxy: &mut Proxy, decoded_length: usize) -> Sent {
    let length = decoded_length.to_string();
    let headers = [
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("x-amz-decoded-content-length", length.as_str()),
    ];
    proxy.send("PUT", "/key", &headers, false)
}

/// Asserts that a body has this data in chunks that were signed again, and no signature of the client.
fn assert_resigned(fate: Fate, data: &[u8]) {
    let Fate::Forwarded { body } = fate else { panic!("{fate:?}") };
    let (mut rest, mut found, mut signatures) = (&body[..], Vec::new(), Vec::new());
    while !rest.is_empty() {
        let end = rest.windows(2).position(|window| window == b"\r\n").unwrap();
        let (size, signature) = std::str::from_utf8(&rest[..end]).unwrap().split_once(";chunk-signature=").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        found.extend_from_slice(&rest[end + 2..][..size]);
        signatures.push(signature.to_owned());
        rest = &rest[end + 2 + size + 2..];
    }
    assert!(found == data, "{} bytes of {}", found.len(), data.len());
    assert!(signatures.iter().all(|signature| signature.len() == 64 && *signature != "c".repeat(64)));
    assert!(signatures.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn chunks_are_signed_as_they_pass() {
    let mut proxy = Proxy::with_credentials(TO_S3);
    let data = [vec![b'a'; 70_000], vec![b'b'; 70_000], vec![b'c'; 10]].concat();
    let body = [chunk(&data[..70_000]), chunk(&data[70_000..140_000]), chunk(&data[140_000..]), chunk(b"")].concat();
    // However the body is cut: within lines and chunks, and larger than the pieces that are taken at a time.
    for cut in [1_000, 65_536, 65_537, 100_001, body.len()] {
        let mut sent = upload(&mut proxy, data.len());
        for part in body.chunks(cut) {
            sent.body(&proxy, part, false);
        }
        sent.body(&proxy, b"", true);
        assert_resigned(sent.fate(&proxy), &data);
    }
}

#[test]
fn an_upload_that_waited_for_credentials_is_signed_in_its_order() {
    let mut proxy = Proxy::start(TO_S3);
    let data: Vec<u8> = (0..2_000_000_u32).map(|number| (number / 251) as u8).collect();
    let mut sent = upload(&mut proxy, data.len());
    for part in data.chunks(300_000) {
        sent.body(&proxy, &chunk(part), false);
    }
    assert_eq!(sent.fate(&proxy), Fate::Held);
    proxy.push_credentials();
    proxy.pass(Duration::from_millis(20));
    sent.body(&proxy, &chunk(b""), true);

    assert_resigned(sent.fate(&proxy), &data);
}

#[test]
fn a_body_that_is_not_what_its_headers_say_ends_its_request() {
    let mut proxy = Proxy::with_credentials(TO_S3);
    for (body, ends) in [(&b"no chunk\r\n"[..], false), (b"", true), (&chunk(b"longer"), false)] {
        let mut sent = upload(&mut proxy, 3);
        sent.body(&proxy, body, ends);
        refused(sent.fate(&proxy), 400, "InvalidBody");
    }
}

#[test]
fn an_upload_says_how_long_its_data_is() {
    let mut proxy = Proxy::with_credentials(TO_S3);
    let headers = [("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")];
    let mut sent = proxy.send("PUT", "/key", &headers, false);
    let reply = refused(sent.fate(&proxy), 411, "LengthRequired");
    assert!(reply.contains("x-amz-decoded-content-length"), "{reply}");
}

#[test]
fn parts_of_chunks_that_have_to_be_held_are_counted() {
    let policy = TO_S3.replace("{\"credentialsWaitMs\"", "{\"maxHeldBytes\": 1000000, \"credentialsWaitMs\"");
    let mut proxy = Proxy::with_credentials(&policy);
    let begun = |proxy: &mut Proxy| {
        let mut sent = upload(proxy, 700_000);
        sent.body(proxy, &chunk(&[0; 700_000])[..600_000], false);
        sent
    };
    let mut first = begun(&mut proxy);
    let mut second = begun(&mut proxy);
    refused(second.fate(&proxy), 503, "Overloaded");
    first.body(&proxy, &chunk(&[0; 700_000])[600_000..], false);
    first.body(&proxy, &chunk(b""), true);
    assert_resigned(first.fate(&proxy), &[0; 700_000]);
}
