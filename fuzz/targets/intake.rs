//! A call to the intake as text: a line with method, path and token, then the body. It is answered in JSON with a status of
//! the table, changes something only if it says so, and tells no secret.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sigv4_core::credentials::{CredentialStore, Credentials, Identity, RequiredIds, SetError, SharedData};
use sigv4_core::intake::{self, Caller, IntakeConfig};

use memory::Memory;

#[path = "../../src/core/src/test_support/memory.rs"]
mod memory;

const SECRET: &str = "a-secret-that-no-answer-tells";
const KEY: &str = "AKIDEXAMPLE";
const NOW: Duration = Duration::from_secs(1_800_000_000);
/// The SHA-256 of "token".
const TOKEN_SHA256: &str = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0";

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let mut words = lines.next().unwrap_or_default().splitn(3, |byte| *byte == b' ');
    let body = lines.next().unwrap_or_default();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());

    let policy = format!(r#"{{"intake": {{"tokenSha256": ["{TOKEN_SHA256}"]}}}}"#);
    let policy = IntakeConfig::from_json(policy.as_bytes()).expect("it is valid");
    let authorization = words.next();
    let admitted = policy.admits(&Caller { authorization, ..Caller::default() });
    let (scheme, token) = authorization.unwrap_or_default().split_at_checked(7).unwrap_or_default();
    assert_eq!(admitted, scheme.eq_ignore_ascii_case(b"bearer ") && token.trim_ascii() == b"token");

    let now = UNIX_EPOCH + NOW;
    let memory = Memory::default();
    let store = CredentialStore(&memory);
    let known = Credentials::new(KEY, SECRET.to_owned(), None, None).expect("they are valid");
    store.lease("policy", &[Identity::default_chain()], now, true).expect("the memory takes it");
    store.put("default", &known).expect("the memory takes it");
    let mut ids = RequiredIds::default();
    let before = memory.0.lock().unwrap().clone();

    let reply = intake::answer(&store, &mut ids, method, path, body, now);
    assert!([200, 204, 400, 404, 405, 409, 503].contains(&reply.status), "{}", reply.status);
    assert_eq!(reply.body.is_empty(), reply.status == 204);
    assert_eq!(reply.changed, reply.status == 204);
    assert_eq!(reply.allow.is_some(), reply.status == 405);
    if !reply.body.is_empty() {
        let answer: Value = serde_json::from_slice(&reply.body).expect("it is JSON");
        assert_eq!(answer.get("error").is_some(), ![200, 503].contains(&reply.status), "{answer}");
    }
    let told = String::from_utf8_lossy(&reply.body);
    assert!(!told.contains(SECRET));

    let held = store.get("default");
    if !reply.changed {
        assert_eq!(*memory.0.lock().unwrap(), before, "nothing was said to change");
    } else if method == b"DELETE" {
        assert!(held.is_none());
    } else {
        let pushed = Credentials::from_document(body).expect("it was accepted");
        let held = held.expect("it was accepted");
        assert_eq!(held.secret_access_key(), pushed.secret_access_key());
        assert_eq!(held.session_token(), pushed.session_token());
    }

    // What was revoked is not taken again, however it is written, from who does not insist.
    let place = &b"/v1/identities/default/credentials"[..];
    store.put("default", &known).expect("the memory takes it");
    let held_before = store.get("default").is_some();
    assert_eq!(intake::answer(&store, &mut ids, b"DELETE", place, b"", now).status, 204);
    let holds_with_key = |pushed: Credentials| pushed.access_key_id() == KEY && pushed.hold_at(now);
    if held_before && Credentials::from_document(body).is_ok_and(holds_with_key) {
        let place = [place, &b"?unless-revoked"[..]].concat();
        assert_eq!(intake::answer(&store, &mut ids, b"PUT", &place, body, now).status, 409);
        assert!(store.get("default").is_none());
    }
});
