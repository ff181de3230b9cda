//! The `credential_process` document, the form in which credentials are pushed and kept.
//!
//! Source: AWS SDKs and Tools Reference Guide, "Process credential provider".

use std::fmt;
use std::time::{Duration, SystemTime};

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::instant::{self, InstantError};

/// AWS credentials, whole and checked. The secret parts never show in `Debug` and are wiped on drop.
#[derive(Clone)]
pub struct Credentials {
    access_key_id: String,
    secret_access_key: SecretString,
    session_token: Option<SecretString>,
    expiration: Option<SystemTime>,
}

/// Why a credential document is refused. Never holds a value of the document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialDocumentError {
    /// The text is no JSON.
    #[error("not a JSON document (line {line}, column {column})")]
    Syntax {
        /// 1-based.
        line: usize,
        /// 1-based.
        column: usize,
    },
    /// A member is missing or has another type than the format gives it.
    #[error("{0}: missing, or not of the type that credential_process gives it")]
    Shape(String),
    /// `Version` is another than 1.
    #[error("Version: must be 1")]
    Version,
    /// A member is there but can't be used in a request.
    #[error("{member}: {problem}")]
    Value {
        /// The member's name.
        member: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// For what a worker holds already; not for telling whether a caller knows a secret, as its time depends on the values.
impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.access_key_id == other.access_key_id
            && self.expiration == other.expiration
            && self.secret_access_key() == other.secret_access_key()
            && self.session_token() == other.session_token()
    }
}

impl Credentials {
    /// Checks and keeps credentials.
    ///
    /// # Errors
    /// [`CredentialDocumentError::Value`] where a part is empty or has characters that a header can't carry, or where the
    /// expiration can't be written.
    pub fn new(
        access_key_id: impl Into<String>,
        secret_access_key: impl Into<SecretString>,
        session_token: Option<SecretString>,
        expiration: Option<SystemTime>,
    ) -> Result<Self, CredentialDocumentError> {
        let access_key_id = access_key_id.into();
        let secret_access_key = secret_access_key.into();
        let refuse = |member, problem| Err(CredentialDocumentError::Value { member, problem });
        // IAM API Reference, AccessKey: pattern [\w]+. A slash here would shift the credential scope.
        if access_key_id.is_empty() || !access_key_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return refuse("AccessKeyId", "must be letters and digits");
        }
        if secret_access_key.expose_secret().is_empty() {
            return refuse("SecretAccessKey", "must not be empty");
        }
        if let Some(token) = &session_token
            && (token.expose_secret().is_empty() || !token.expose_secret().bytes().all(|b| b.is_ascii_graphic()))
        {
            return refuse("SessionToken", "must be printable ASCII without blanks; leave it out where there is none");
        }
        if expiration.is_some_and(|at| !instant::can_be_written(at)) {
            return Err(EXPIRATION_OUT_OF_RANGE);
        }
        Ok(Self { access_key_id, secret_access_key, session_token, expiration })
    }

    /// Reads a `credential_process` document; members that the format does not name are passed over.
    ///
    /// # Errors
    /// Says which member is wrong, never with its value.
    pub fn from_document(json: &[u8]) -> Result<Self, CredentialDocumentError> {
        let mut json = serde_json::Deserializer::from_slice(json);
        let document: Document = serde_path_to_error::deserialize(&mut json).map_err(shape_error)?;
        json.end().map_err(|e| CredentialDocumentError::Syntax { line: e.line(), column: e.column() })?;
        if document.version != 1 {
            return Err(CredentialDocumentError::Version);
        }
        let expiration = document.expiration.as_deref().map(parse_expiration).transpose()?;
        Self::new(document.access_key_id, document.secret_access_key, document.session_token, expiration)
    }

    /// The document that [`Credentials::from_document`] reads. It holds the secret: for the proxy alone.
    pub fn to_document(&self) -> Zeroizing<Vec<u8>> {
        // Room for all of it, as a vector that has to grow leaves what it held where it was.
        let mut document = Zeroizing::new(Vec::with_capacity(self.document_bound()));
        match serde_json::to_writer(&mut *document, &ExposedDocument(self)) {
            Ok(()) => document,
            // Writing into a vector does not fail.
            Err(_) => Zeroizing::default(),
        }
    }

    /// No document of these credentials is longer: JSON takes six bytes at most for one of a string.
    fn document_bound(&self) -> usize {
        const MEMBERS: usize = 160;
        let token = self.session_token().unwrap_or_default();
        MEMBERS + self.access_key_id.len() + 6 * self.secret_access_key().len() + 2 * token.len()
    }

    /// The access key's id, which is no secret.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// The secret access key.
    pub fn secret_access_key(&self) -> &str {
        self.secret_access_key.expose_secret()
    }

    /// The session token of temporary credentials.
    pub fn session_token(&self) -> Option<&str> {
        self.session_token.as_ref().map(ExposeSecret::expose_secret)
    }

    /// When they cease to hold; `None` for long-lived ones.
    pub fn expiration(&self) -> Option<SystemTime> {
        self.expiration
    }

    /// Whether they hold at `now`.
    pub fn hold_at(&self, now: SystemTime) -> bool {
        self.expiration.is_none_or(|expiration| now < expiration)
    }

    /// How much longer they hold after `now`; `None` for ever.
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
}

struct ExposedDocument<'a>(&'a Credentials);

impl Serialize for ExposedDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut document = serializer.serialize_struct("Credentials", 5)?;
        document.serialize_field("Version", &1)?;
        document.serialize_field("AccessKeyId", self.0.access_key_id())?;
        document.serialize_field("SecretAccessKey", self.0.secret_access_key())?;
        if let Some(token) = self.0.session_token() {
            document.serialize_field("SessionToken", token)?;
        }
        if let Some(expiration) = self.0.expiration() {
            document.serialize_field("Expiration", &format_expiration(expiration))?;
        }
        document.end()
    }
}

/// An instant in the form that AWS documents carry, `2026-01-02T03:04:05Z`, cut to the second.
pub(super) fn format_expiration(at: SystemTime) -> String {
    // `Credentials::new` takes no instant that can't be written.
    instant::format_rfc3339(at).unwrap_or_default()
}

const EXPIRATION_OUT_OF_RANGE: CredentialDocumentError =
    CredentialDocumentError::Value { member: "Expiration", problem: "must lie between the years 1970 and 9999" };

fn parse_expiration(text: &str) -> Result<SystemTime, CredentialDocumentError> {
    instant::parse_rfc3339(text).map_err(|error| match error {
        InstantError::OutOfRange => EXPIRATION_OUT_OF_RANGE,
        InstantError::Malformed => CredentialDocumentError::Value {
            member: "Expiration",
            problem: "must be an ISO 8601 instant such as 2026-01-02T03:04:05Z",
        },
    })
}

/// serde's own words for a wrong type repeat the value, which may be the secret: only the place is kept.
fn shape_error(error: serde_path_to_error::Error<serde_json::Error>) -> CredentialDocumentError {
    let inner = error.inner();
    if !inner.is_data() {
        return CredentialDocumentError::Syntax { line: inner.line(), column: inner.column() };
    }
    // A missing member is reported at its parent; serde's words for it hold the member's name alone.
    let text = inner.to_string();
    let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    let place = match missing {
        Some(member) => member.to_owned(),
        None => error.path().to_string(),
    };
    CredentialDocumentError::Shape(place)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(again.expiration(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045)));
    }

    #[test]
    fn a_document_never_outgrows_its_buffer() {
        let expiration = Some(SystemTime::UNIX_EPOCH);
        for (secret, token) in [("\u{1}".repeat(40), "\"\\".repeat(500)), ("s".to_owned(), "t".to_owned())] {
            let credentials = Credentials::new("A".repeat(128), secret, Some(token.into()), expiration).unwrap();
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
                br#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "hush", "SessionToken": "hush\n"}"#,
                "SessionToken: ",
            ),
            (
                br#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "hush", "Expiration": "hush"}"#,
                "Expiration: must be",
            ),
            (
                br#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "hush", "Expiration": "1960-01-01T00:00:00Z"}"#,
                "Expiration: must lie between",
            ),
            (
                br#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "hush", "Expiration": "9999-12-31T23:59:59-01:00"}"#,
                "Expiration: must lie between",
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
    fn debug_output_shows_no_secret() {
        let json = document(r#", "SessionToken": "abc""#);
        let shown = format!("{:?}", Credentials::from_document(&json).unwrap());
        assert!(shown.contains("AKIDEXAMPLE") && !shown.contains(SECRET) && !shown.contains("abc"), "{shown}");
    }
}
