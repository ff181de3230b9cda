//! The intake's configuration, and the callers that it accepts.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The configuration of callers that the intake accepts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IntakeConfig {
    token_digests: Vec<[u8; 32]>,
}

/// The reason for rejecting an intake's configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntakeConfigError {
    /// The document does not have the shape of an intake's configuration.
    #[error("{location}: {problem}")]
    Document {
        /// The location, as a path into the document.
        location: String,
        /// The defect.
        problem: String,
    },
    /// A token's digest is not a SHA-256 in hex.
    #[error("intake.tokenSha256[{0}]: must be the token's SHA-256 as 64 hex digits: printf %s \"$TOKEN\" | sha256sum")]
    TokenDigest(usize),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    intake: IntakeDocument,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct IntakeDocument {
    #[serde(default)]
    token_sha256: Vec<String>,
}

impl IntakeConfig {
    /// Returns whether a plugin configuration is an intake's, which its one key decides.
    pub fn is_intake_config(json: &[u8]) -> bool {
        // A map, because serde also accepts a list for a struct.
        type Members = std::collections::HashMap<String, serde::de::IgnoredAny>;
        serde_json::from_slice::<Members>(json).is_ok_and(|members| members.contains_key("intake"))
    }

    /// Reads `{"intake": {"tokenSha256": ["<64 hex>"]}}`.
    ///
    /// # Errors
    /// Names the location and the fix.
    pub fn from_json(json: &[u8]) -> Result<Self, IntakeConfigError> {
        let mut json = serde_json::Deserializer::from_slice(json);
        let document: Document = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            // One line, whatever it repeats of the document.
            let shown = |text: String| text.replace(char::is_control, " ");
            let (location, problem) = (shown(error.path().to_string()), shown(error.inner().to_string()));
            IntakeConfigError::Document { location, problem }
        })?;
        let digests = document.intake.token_sha256.iter().enumerate();
        let token_digests = digests
            .map(|(index, hex)| parse_digest(hex).ok_or(IntakeConfigError::TokenDigest(index)))
            .collect::<Result<_, _>>()?;
        Ok(Self { token_digests })
    }

    /// Returns whether a caller is accepted: over a Unix socket, with a verified client certificate, or with a listed token.
    pub fn admits(&self, caller: &Caller<'_>) -> bool {
        caller.over_unix_socket
            || caller.client_certificate
            || caller.authorization.and_then(bearer_token).is_some_and(|token| self.accepts_token(token))
    }

    /// Compares all digests, each in constant time, so that the time reveals nothing of a token.
    fn accepts_token(&self, token: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let known =
            self.token_digests.iter().fold(subtle::Choice::from(0), |known, listed| known | listed.ct_eq(&digest));
        known.into()
    }
}

/// The properties of a caller that decide whether it is accepted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller<'a> {
    /// `true` if the connection came over a Unix socket, whose file mode decides who may connect.
    pub over_unix_socket: bool,
    /// `true` for TLS with a client certificate that Envoy verified.
    pub client_certificate: bool,
    /// The `authorization` header.
    pub authorization: Option<&'a [u8]>,
}

fn bearer_token(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii()).filter(|token| !token.is_empty())
}

fn parse_digest(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let decoded = base16ct::mixed::decode(hex, &mut digest).ok()?;
    (decoded.len() == digest.len()).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN_SHA256: &str = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0"; // of "token"

    #[test]
    fn a_caller_is_let_in_by_socket_certificate_or_listed_token() {
        let config = format!(r#"{{"intake": {{"tokenSha256": ["{}", "{TOKEN_SHA256}"]}}}}"#, "0".repeat(64));
        let policy = IntakeConfig::from_json(config.as_bytes()).unwrap();
        let with = |authorization: &'static [u8]| Caller { authorization: Some(authorization), ..Caller::default() };
        assert!(policy.admits(&Caller { over_unix_socket: true, ..Caller::default() }));
        assert!(policy.admits(&Caller { client_certificate: true, ..Caller::default() }));
        assert!(policy.admits(&with(b"Bearer token")));
        assert!(policy.admits(&with(b"bearer  token ")));
        for refused in [&b"Bearer tokem"[..], b"Bearer ", b"Basic token", b"token", b"", b"Bearer \xff"] {
            assert!(!policy.admits(&with(refused)), "{refused:?}");
        }
        assert!(!policy.admits(&Caller::default()));
        assert!(!IntakeConfig::from_json(br#"{"intake": {}}"#).unwrap().admits(&with(b"Bearer token")));
    }

    #[test]
    fn a_configuration_that_can_not_work_is_refused_with_its_location() {
        for (config, message) in [
            (r#"{"intake": {"tokenSha256": ["abc"]}}"#, "intake.tokenSha256[0]: must be"),
            (r#"{"intake": {"tokenSha256": "abc"}}"#, "intake.tokenSha256: invalid type"),
            (r#"{"intake": {"tokens": []}}"#, "intake.tokens: unknown field"),
            (r#"{"intake": {}, "routes": {}}"#, "routes: unknown field"),
            (r#"{"intake": {"a\nb": 1}}"#, "intake.a b: unknown field `a b`"),
        ] {
            let error = IntakeConfig::from_json(config.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
        let sign = "+".repeat(64);
        assert!(IntakeConfig::from_json(format!(r#"{{"intake": {{"tokenSha256": ["{sign}"]}}}}"#).as_bytes()).is_err());
    }

    #[test]
    fn an_intake_configuration_is_told_from_a_policy() {
        assert!(IntakeConfig::is_intake_config(br#"{"intake": {}}"#));
        assert!(!IntakeConfig::is_intake_config(br#"{"routes": {}}"#));
        assert!(!IntakeConfig::is_intake_config(b"[{}]"));
    }
}
