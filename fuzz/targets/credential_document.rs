//! Any bytes as a `credential_process` document: what is accepted is written back equal, and nothing of it is told.
#![no_main]

use std::time::UNIX_EPOCH;

use libfuzzer_sys::fuzz_target;
use sigv4_core::credentials::{CredentialDocumentError, Credentials};

/// Shorter values turn up in any text by chance.
const TELLING: usize = 8;

/// Members that a refusal can name.
const MEMBERS: [&str; 6] =
    ["Version", "AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration", "FingerprintSalt"];

/// Returns whether a refusal can hold nothing of the document: its texts are constants, and its place is a member's name or
/// made of indices.
fn is_silent(refusal: &CredentialDocumentError) -> bool {
    match refusal {
        CredentialDocumentError::Syntax { .. } | CredentialDocumentError::Version => true,
        CredentialDocumentError::Value { member, .. } => MEMBERS.contains(member),
        CredentialDocumentError::Shape(place) => {
            MEMBERS.contains(&place.as_str()) || place.bytes().all(|byte| b".[]?0123456789".contains(&byte))
        }
    }
}

fuzz_target!(|document: &[u8]| {
    let credentials = match Credentials::from_document(document) {
        Ok(credentials) => credentials,
        Err(error) => {
            assert!(is_silent(&error), "{error:?}");
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
