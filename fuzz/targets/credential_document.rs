//! Any bytes as a `credential_process` document: what is accepted is written back equal, and nothing of it is told.
#![no_main]

use std::time::UNIX_EPOCH;

use libfuzzer_sys::fuzz_target;
use sigv4_core::credentials::Credentials;

/// Shorter values turn up in any text by chance.
const TELLING: usize = 8;

const MEMBERS: [&str; 5] = ["Version", "AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"];

/// Whether a refusal is one of a fixed number of texts, apart from a place: it can hold nothing of the document.
fn is_known(refusal: &str) -> bool {
    let (place, problem) = refusal.split_once(": ").unwrap_or(("", refusal));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_place = MEMBERS.contains(&place) || place.bytes().all(|byte| b".[]?0123456789".contains(&byte));
    let syntax = problem.strip_prefix("not a JSON document (line ").and_then(|rest| rest.strip_suffix(')'));
    match syntax.and_then(|rest| rest.split_once(", column ")) {
        Some((line, column)) => is_number(line) && is_number(column),
        None => is_place && PROBLEMS.contains(&problem),
    }
}

const PROBLEMS: [&str; 7] = [
    "missing, or not of the type that credential_process gives it",
    "must be 1",
    "must be letters and digits",
    "must not be empty",
    "must be printable ASCII without blanks; leave it out where there is none",
    "must be an ISO 8601 instant such as 2026-01-02T03:04:05Z",
    "must lie between the years 1970 and 9999",
];

fuzz_target!(|document: &[u8]| {
    let credentials = match Credentials::from_document(document) {
        Ok(credentials) => credentials,
        Err(error) => {
            assert!(is_known(&error.to_string()), "{error:?}");
            return;
        }
    };
    assert!(!credentials.access_key_id().is_empty() && !credentials.secret_access_key().is_empty());
    let shown = format!("{credentials:?}");
    for secret in [Some(credentials.secret_access_key()), credentials.session_token()].into_iter().flatten() {
        let telling = secret.len() >= TELLING && !credentials.access_key_id().contains(secret);
        assert!(
            !telling || !shown.contains(secret) || "Credentials access_key_id expiration".contains(secret),
            "{shown}"
        );
    }

    let written = credentials.to_document();
    let again = Credentials::from_document(&written).expect("what was written can be read");
    assert_eq!(again.access_key_id(), credentials.access_key_id());
    assert_eq!(again.secret_access_key(), credentials.secret_access_key());
    assert_eq!(again.session_token(), credentials.session_token());
    assert_eq!(again.to_document(), written);
    // To the second, and never later than what was said.
    assert_eq!(again.expiration().is_some(), credentials.expiration().is_some());
    if let (Some(kept), Some(said)) = (again.expiration(), credentials.expiration()) {
        let lost = said.duration_since(kept).expect("never later");
        assert!(lost.as_secs() == 0, "{lost:?}");
        assert!(credentials.hold_at(UNIX_EPOCH) == (said > UNIX_EPOCH));
    }
});
