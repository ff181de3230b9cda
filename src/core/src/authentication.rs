//! Whether Envoy has authenticated a request by a token, read from what its `jwt_authn` filter leaves in the stream's
//! dynamic metadata.
//!
//! The metadata is a map with a member for each `payload_in_metadata` and `header_in_metadata`, which are there once a
//! token is verified. With `failed_status_in_metadata` there is also one for a token that was *refused*, of the form
//! `{code, message}`, and a rule such as `allow_missing_or_failed` lets that request go on. So it is not enough that there
//! is something.
//!
//! Source: Envoy's `jwt_authn/v3/config.proto`.

use crate::pairs::pairs;

/// Whether the metadata holds what only a verified token leaves. `metadata` is the property as the proxy hands it over,
/// a map of maps; what can't be read authenticates nobody.
pub fn has_verified_token(metadata: &[u8]) -> bool {
    // A payload that has just the members of a failure's status is not believed.
    pairs(metadata).any(|(_, payload)| pairs(payload).any(|(claim, _)| !matches!(claim, b"code" | b"message")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::serialize;

    fn metadata(member: &str, claims: &[(&str, &[u8])]) -> Vec<u8> {
        serialize(&[(member, &serialize(claims))])
    }

    #[test]
    fn a_payload_authenticates() {
        assert!(has_verified_token(&metadata("jwt", &[("iss", b"https://issuer"), ("sub", b"a")])));
        assert!(has_verified_token(&metadata("jwt", &[("code", b"1"), ("sub", b"a")])));
        let (failed, payload) = (serialize(&[("code", b"2"), ("message", b"expired")]), serialize(&[("sub", b"a")]));
        assert!(has_verified_token(&serialize(&[("failed", &failed), ("jwt", &payload)])));
    }

    #[test]
    fn the_status_of_a_refused_token_does_not() {
        assert!(!has_verified_token(&metadata("failed", &[("code", b"2"), ("message", b"Jwt is expired")])));
        assert!(!has_verified_token(&metadata("failed", &[("message", b"Jwt is expired")])));
    }

    #[test]
    fn nothing_or_something_else_does_not() {
        let text = serialize(&[("jwt", b"text")]);
        for metadata in [&b""[..], b"\x01", b"\xff\xff\xff\xff", b"{}", &text, &metadata("jwt", &[])] {
            assert!(!has_verified_token(metadata), "{metadata:?}");
        }
    }
}
