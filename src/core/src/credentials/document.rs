//! The `credential_process` document, the form in which credentials are pushed and stored.
//!
//! Source: AWS SDKs and Tools Reference Guide, "Process credential provider".

use std::fmt;
use std::time::{Duration, SystemTime};

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use sha2::{Digest, Sha256};

use crate::instant::{self, InstantError};

/// AWS credentials, complete and validated. `Debug` never shows the secret parts, and they are wiped on drop.
#[derive(Clone)]
pub struct Credentials {
    access_key_id: String,
    secret_access_key: SecretString,
    session_token: Option<SecretString>,
    expiration: Option<SystemTime>,
    fingerprint_salt: Option<String>,
}

/// The reason for rejecting a credential document. Never holds a value of the document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialDocumentError {
    /// The text is not JSON.
    #[error("not a JSON document (line {line}, column {column})")]
    Syntax {
        /// 1-based.
        line: usize,
        /// 1-based.
        column: usize,
    },
    /// A member is missing or has the wrong type.
    #[error("{0}: missing, or not of the type that credential_process defines")]
    Shape(String),
    /// `Version` is not 1.
    #[error("Version: must be 1")]
    Version,
    /// A member's value can't be used in a request.
    #[error("{member}: {problem}")]
    Value {
        /// The member's name.
        member: &'static str,
        /// The defect.
        problem: &'static str,
    },
}

/// For a worker's own copies. The comparison is not in constant time, so it must not check a caller's secret.
impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.access_key_id == other.access_key_id
            && self.expiration == other.expiration
            && self.secret_access_key() == other.secret_access_key()
            && self.session_token() == other.session_token()
    }
}

impl Credentials {
    /// Validates credentials. Trims white space around each part, as `echo` leaves it in a file; an empty session token
    /// counts as none.
    ///
    /// # Errors
    /// [`CredentialDocumentError::Value`] if a part is empty or has characters that no credential has, or if the expiration
    /// can't be formatted.
    pub fn new(
        access_key_id: impl Into<String>,
        secret_access_key: impl Into<SecretString>,
        session_token: Option<SecretString>,
        expiration: Option<SystemTime>,
    ) -> Result<Self, CredentialDocumentError> {
        let access_key_id = access_key_id.into().trim_ascii().to_owned();
        let secret_access_key = trimmed(secret_access_key.into());
        let session_token = session_token.map(trimmed).filter(|token| !token.expose_secret().is_empty());
        let refuse = |member, problem| Err(CredentialDocumentError::Value { member, problem });
        // IAM API Reference, AccessKey: pattern [\w]+. A slash would shift the credential scope.
        if access_key_id.is_empty() || !access_key_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return refuse("AccessKeyId", "must be letters and digits");
        }
        let secret = secret_access_key.expose_secret();
        if secret.is_empty() || secret.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return refuse("SecretAccessKey", "must not be empty or contain blanks");
        }
        if let Some(token) = &session_token
            && !token.expose_secret().bytes().all(|b| b.is_ascii_graphic())
        {
            return refuse("SessionToken", "must be printable ASCII without blanks");
        }
        if expiration.is_some_and(|at| !instant::can_be_written(at)) {
            return Err(EXPIRATION_OUT_OF_RANGE);
        }
        Ok(Self { access_key_id, secret_access_key, session_token, expiration, fingerprint_salt: None })
    }

    /// Sets the salt of the [fingerprint](Self::fingerprint) under which a proxy lists them; a salt over 64 bytes is
    /// ignored.
    #[must_use]
    pub fn with_fingerprint_salt(mut self, salt: Option<String>) -> Self {
        self.fingerprint_salt = salt.filter(|salt| salt.len() <= LONGEST_SALT);
        self
    }

    /// Returns the salt that their pusher chose.
    pub fn fingerprint_salt(&self) -> Option<&str> {
        self.fingerprint_salt.as_deref()
    }

    /// Returns 16 hexadecimal digits of a salted SHA-256, equal if secret, token and expiry are equal. They reveal nothing
    /// of the secret.
    pub fn fingerprint(&self, salt: &str) -> String {
        let mut digest = Sha256::new();
        let expiration = self.expiration.map(format_expiration).unwrap_or_default();
        for part in [salt, self.secret_access_key(), self.session_token().unwrap_or_default(), &expiration] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        base16ct::lower::encode_string(&digest.finalize()[..8])
    }

    /// Reads a `credential_process` document; unknown members are ignored.
    ///
    /// # Errors
    /// Names the invalid member, never its value.
    pub fn from_document(json: &[u8]) -> Result<Self, CredentialDocumentError> {
        let mut json = serde_json::Deserializer::from_slice(json);
        let document: Document = serde_path_to_error::deserialize(&mut json).map_err(shape_error)?;
        json.end().map_err(|e| CredentialDocumentError::Syntax { line: e.line(), column: e.column() })?;
        if document.version != 1 {
            return Err(CredentialDocumentError::Version);
        }
        let expiration = document.expiration.as_deref().map(parse_expiration).transpose()?;
        let salt = document.fingerprint_salt;
        Self::new(document.access_key_id, document.secret_access_key, document.session_token, expiration)
            .map(|credentials| credentials.with_fingerprint_salt(salt))
    }

    /// Writes the document that [`Credentials::from_document`] reads. It holds the secret: for the proxy alone.
    pub fn to_document(&self) -> Zeroizing<Vec<u8>> {
        // Reserved in full: a vector that grows leaves its old content, the secret, in freed memory.
        let mut document = Zeroizing::new(Vec::with_capacity(self.document_bound()));
        match serde_json::to_writer(&mut *document, &ExposedDocument(self)) {
            Ok(()) => document,
            // Writing into a vector does not fail.
            Err(_) => Zeroizing::default(),
        }
    }

    /// Returns an upper bound of the document's length: JSON escapes a byte of a string with six bytes at most.
    fn document_bound(&self) -> usize {
        const MEMBERS: usize = 190;
        let token = self.session_token().unwrap_or_default();
        let salt = self.fingerprint_salt().unwrap_or_default();
        MEMBERS + self.access_key_id.len() + 6 * (self.secret_access_key().len() + salt.len()) + 2 * token.len()
    }

    /// Returns the access key's id, which is not a secret.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// Returns the secret access key.
    pub fn secret_access_key(&self) -> &str {
        self.secret_access_key.expose_secret()
    }

    /// Returns the session token of temporary credentials.
    pub fn session_token(&self) -> Option<&str> {
        self.session_token.as_ref().map(ExposeSecret::expose_secret)
    }

    /// Returns the time at which they expire; `None` for long-lived ones.
    pub fn expiration(&self) -> Option<SystemTime> {
        self.expiration
    }

    /// Returns whether they are valid at `now`.
    pub fn hold_at(&self, now: SystemTime) -> bool {
        self.expiration.is_none_or(|expiration| now < expiration)
    }

    /// Returns the time left before they expire; `None` if they never do.
    pub fn remaining(&self, now: SystemTime) -> Option<Duration> {
        self.expiration.map(|expiration| expiration.duration_since(now).unwrap_or_default())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .field("expiration", &self.expiration)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    version: u64,
    access_key_id: String,
    secret_access_key: SecretString,
    session_token: Option<SecretString>,
    expiration: Option<String>,
    fingerprint_salt: Option<String>,
}

struct ExposedDocument<'a>(&'a Credentials);

impl Serialize for ExposedDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut document = serializer.serialize_struct("Credentials", 6)?;
        document.serialize_field("Version", &1)?;
        document.serialize_field("AccessKeyId", self.0.access_key_id())?;
        document.serialize_field("SecretAccessKey", self.0.secret_access_key())?;
        if let Some(token) = self.0.session_token() {
            document.serialize_field("SessionToken", token)?;
        }
        if let Some(expiration) = self.0.expiration() {
            document.serialize_field("Expiration", &format_expiration(expiration))?;
        }
        if let Some(salt) = self.0.fingerprint_salt() {
            document.serialize_field("FingerprintSalt", salt)?;
        }
        document.end()
    }
}

/// A bound on stored data; no pusher needs a longer salt.
const LONGEST_SALT: usize = 64;

fn trimmed(secret: SecretString) -> SecretString {
    let whole = secret.expose_secret();
    let part = whole.trim_ascii();
    if part.len() == whole.len() { secret } else { part.into() }
}

/// Formats an instant as AWS documents do, `2026-01-02T03:04:05Z`, truncated to the second.
pub(crate) fn format_expiration(at: SystemTime) -> String {
    // `Credentials::new` rejects an instant that can't be formatted.
    instant::format_rfc3339(at).unwrap_or_default()
}

const EXPIRATION_OUT_OF_RANGE: CredentialDocumentError =
    CredentialDocumentError::Value { member: "Expiration", problem: "must be between the years 1970 and 9999" };

/// Parses an expiry: RFC 3339, also with the zone as `+0000`, and with white space around it.
///
/// # Errors
/// [`CredentialDocumentError::Value`] if it is not an instant, or one that can't be formatted.
pub fn parse_expiration(text: &str) -> Result<SystemTime, CredentialDocumentError> {
    let mut text = text.trim_ascii().to_owned();
    // The zone as Python's %z and Go's -0700 write it, `+0000`.
    if text.is_ascii()
        && let [.., b'+' | b'-', _, _, _, _] = text.as_bytes()
    {
        text.insert(text.len() - 2, ':');
    }
    instant::parse_rfc3339(&text).map_err(|error| match error {
        InstantError::OutOfRange => EXPIRATION_OUT_OF_RANGE,
        InstantError::Malformed => CredentialDocumentError::Value {
            member: "Expiration",
            problem: "must be an ISO 8601 instant such as 2026-01-02T03:04:05Z",
        },
    })
}

/// Returns an error with the location alone: serde's message for a wrong type repeats the value, which may be the secret.
fn shape_error(error: serde_path_to_error::Error<serde_json::Error>) -> CredentialDocumentError {
    let inner = error.inner();
    if !inner.is_data() {
        return CredentialDocumentError::Syntax { line: inner.line(), column: inner.column() };
    }
    // serde reports a missing member at its parent; the message holds the member's name alone.
    let text = inner.to_string();
    let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    let member = match missing {
        Some(member) => member.to_owned(),
        None => error.path().to_string(),
    };
    CredentialDocumentError::Shape(member)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::at;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    fn document(members: &str) -> Vec<u8> {
        format!(r#"{{"Version": 1, "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "{SECRET}"{members}}}"#).into()
    }

    #[test]
    fn a_document_survives_the_round_trip() {
        let json = document(r#", "SessionToken": "abc+/=", "Expiration": "2026-01-02T03:04:05Z""#);
        let credentials = Credentials::from_document(&json).unwrap();
        let again = Credentials::from_document(&credentials.to_document()).unwrap();
        assert_eq!(again.access_key_id(), "AKIDEXAMPLE");
        assert_eq!(again.secret_access_key(), SECRET);
        assert_eq!(again.session_token(), Some("abc+/="));
        assert_eq!(again.expiration(), Some(at(1_767_323_045)));
    }

    #[test]
    fn a_document_never_outgrows_its_buffer() {
        let expiration = Some(SystemTime::UNIX_EPOCH);
        for (secret, token) in [("\"\\".repeat(40), "\"\\".repeat(500)), ("s".to_owned(), "t".to_owned())] {
            let credentials = Credentials::new("A".repeat(128), secret, Some(token.into()), expiration).unwrap();
            let credentials = credentials.with_fingerprint_salt(Some("\u{1}".repeat(LONGEST_SALT)));
            let document = credentials.to_document();
            assert!(document.len() <= credentials.document_bound(), "{}", document.len());
            assert_eq!(document.capacity(), credentials.document_bound());
        }
    }

    #[test]
    fn an_expiration_that_can_not_be_written_is_refused_from_a_source_as_well() {
        let credentials = |at| Credentials::new("AKIDEXAMPLE", SECRET.to_owned(), None, Some(at));
        let epoch = SystemTime::UNIX_EPOCH;
        assert!(credentials(epoch).is_ok());
        for at in [epoch - Duration::from_secs(1), epoch + Duration::from_secs(253_402_300_800)] {
            assert_eq!(credentials(at).unwrap_err(), EXPIRATION_OUT_OF_RANGE);
        }
    }

    #[test]
    fn long_lived_credentials_hold_for_ever() {
        let credentials = Credentials::from_document(&document("")).unwrap();
        assert!(credentials.hold_at(SystemTime::now()));
        assert_eq!(credentials.remaining(SystemTime::now()), None);
    }

    #[test]
    fn expired_credentials_do_not_hold() {
        let credentials = Credentials::from_document(&document(r#", "Expiration": "2020-01-01T00:00:00Z""#)).unwrap();
        assert!(!credentials.hold_at(SystemTime::now()));
        assert_eq!(credentials.remaining(SystemTime::now()), Some(Duration::ZERO));
    }

    #[test]
    fn refusals_name_the_member_and_never_its_value() {
        let cases: &[(&[u8], &str)] = &[
            (b"", "not a JSON document (line 1, column 0)"),
            (b"{", "not a JSON document (line 1, column 1)"),
            (b"[]", ""),
            (br#"{"AccessKeyId": "A", "SecretAccessKey": "hush"}"#, "Version: missing"),
            (br#"{"Version": "hush", "AccessKeyId": "A", "SecretAccessKey": "hush"}"#, "Version: missing, or not"),
            (br#"{"Version": 2, "AccessKeyId": "A", "SecretAccessKey": "hush"}"#, "Version: must be 1"),
            (br#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": ["hush"]}"#, "SecretAccessKey: missing, or not"),
            (br#"{"Version": 1, "AccessKeyId": "A"}"#, "SecretAccessKey: missing"),
            (br#"{"Version": 1, "AccessKeyId": "hush/b", "SecretAccessKey": "hush"}"#, "AccessKeyId: must be letters"),
            (br#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": ""}"#, "SecretAccessKey: must not be empty"),
            (
                br#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "hush", "SessionToken": "hu\nsh"}"#,
                "SessionToken: ",
            ),
            (
                br#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "hu\tsh"}"#,
                "SecretAccessKey: must not be empty or contain blanks",
            ),
            (br#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": " \n"}"#, "SecretAccessKey: must not be empty"),
            (
                br#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "hush", "Expiration": 1767323045}"#,
                "Expiration: missing, or not of the type",
            ),
            (
                br#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "hush", "Expiration": "hush"}"#,
                "Expiration: must be",
            ),
            (
                br#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "hush", "Expiration": "1960-01-01T00:00:00Z"}"#,
                "Expiration: must be between",
            ),
            (
                br#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "hush", "Expiration": "9999-12-31T23:59:59-01:00"}"#,
                "Expiration: must be between",
            ),
            (br#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "hush"} hush"#, "not a JSON document"),
        ];
        for (json, message) in cases {
            let error = Credentials::from_document(json).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error:?} for {:?}", String::from_utf8_lossy(json));
            assert!(!error.contains("hush"), "{error:?} shows a value");
        }
    }

    #[test]
    fn white_space_around_a_part_is_no_part_of_it() {
        let json = br#"{"Version": 1, "AccessKeyId": " AKIDEXAMPLE\n", "SecretAccessKey": "\tsecret\r\n",
            "SessionToken": " token \n", "Expiration": "2026-01-02T03:04:05Z\n"}"#;
        let credentials = Credentials::from_document(json).unwrap();
        assert_eq!(credentials.access_key_id(), "AKIDEXAMPLE");
        assert_eq!((credentials.secret_access_key(), credentials.session_token()), ("secret", Some("token")));
        for empty in ["", " \n"] {
            let credentials = Credentials::new("AKIDEXAMPLE", "secret", Some(empty.into()), None).unwrap();
            assert_eq!(credentials.session_token(), None);
        }
    }

    #[test]
    fn an_expiration_is_read_in_each_form_in_which_its_zone_is_written() {
        let expiration = |text: &str| {
            let json = document(&format!(r#", "Expiration": "{text}""#));
            Credentials::from_document(&json).map(|credentials| credentials.expiration().unwrap())
        };
        let expected = Ok(at(1_767_323_045));
        for text in ["05Z", "05+00:00", "05-00:00", "05+0000", "05.000000+0000", "05.9+0000"] {
            let text = format!("2026-01-02T03:04:{text}");
            assert_eq!(
                expiration(&text).map(|at| at
                    - Duration::from_nanos(at.duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos().into())),
                expected,
                "{text}"
            );
        }
        assert_eq!(expiration("2026-01-02T05:34:05+0230"), expected);
        for text in ["1767323045", "+0000", "+000", "2026-01-02T03:04:05", "2026-01-02T03:04:05+00", "\u{e9}+000\u{e9}"]
        {
            assert!(expiration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_fingerprint_differs_with_every_part_and_with_the_salt() {
        let credentials = |secret: &str, token: &str, expiration| {
            Credentials::new("AKIDEXAMPLE", secret.to_owned(), Some(token.into()), expiration).unwrap()
        };
        let all = [
            credentials("secret", "token", None),
            credentials("secretto", "ken", None),
            credentials("secret", "", None),
            credentials("secret", "token", Some(at(1))),
            credentials("secret", "token", Some(at(2))),
        ];
        let prints: std::collections::HashSet<_> =
            all.iter().flat_map(|c| [c.fingerprint("a"), c.fingerprint("b")]).collect();
        assert_eq!(prints.len(), 2 * all.len());
        assert!(prints.iter().all(|print| print.len() == 16));
        assert_eq!(all[0].fingerprint("a"), credentials("secret", "token", None).fingerprint("a"));
        let pushed = all[0].clone().with_fingerprint_salt(Some("a".to_owned()));
        let held = Credentials::from_document(&pushed.to_document()).unwrap();
        assert_eq!(held.fingerprint_salt(), Some("a"));
        assert_eq!(pushed.with_fingerprint_salt(Some("a".repeat(65))).fingerprint_salt(), None);
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let json = document(r#", "SessionToken": "abc""#);
        let shown = format!("{:?}", Credentials::from_document(&json).unwrap());
        assert!(shown.contains("AKIDEXAMPLE") && !shown.contains(SECRET) && !shown.contains("abc"), "{shown}");
    }
}
