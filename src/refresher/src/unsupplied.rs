//! What a look at a proxy found, and what could not be supplied there.

use std::fmt;
use std::time::SystemTime;

use crate::proxy::ProxyError;

/// What a look at a proxy found and did.
#[derive(Debug)]
pub struct Supply {
    /// What the proxy is not given.
    pub unsupplied: Vec<Unsupplied>,
    /// Whether any policy is loaded there.
    pub requires: bool,
    /// Whether it holds unexpired credentials for at least one identity.
    pub holds: bool,
    /// Whether it was given any that have expired since; what was revoked does not count, as that is meant.
    pub was_supplied: bool,
    /// When the first of what it holds expires.
    pub expires: Option<SystemTime>,
}

impl Supply {
    /// Whether the proxy can sign, or could until a source failed: then no other instance would fare better.
    pub fn is_ready(&self) -> bool {
        self.requires && (self.holds || (self.was_supplied && self.unsupplied.iter().any(Unsupplied::source_failed)))
    }
}

/// Why an identity that a proxy wants is not supplied.
#[derive(Debug)]
pub struct Unsupplied {
    /// The identity's id.
    pub identity: String,
    /// Why it is not.
    pub why: UnsuppliedReason,
}

impl Unsupplied {
    fn source_failed(&self) -> bool {
        matches!(self.why, UnsuppliedReason::NoCredentials(Some(_)))
    }
}

/// Why there is nothing in the proxy yet.
#[derive(Debug)]
pub enum UnsuppliedReason {
    /// It is not supplied at all.
    Denied(Denial),
    /// The source has not answered yet, or its last answer was this failure.
    NoCredentials(Option<String>),
    /// The source only has what was revoked in this proxy.
    Revoked(String),
    /// The proxy did not take them.
    PushFailed(ProxyError),
}

/// Why an identity is not supplied, whatever its source would say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// `--allow-role` does not cover one of its roles.
    RoleNotAllowed,
    /// An `--allow-…` is given, and `--allow-default` is not.
    DefaultNotAllowed,
    /// A pattern does not cover what it wants of the session: that, and the option.
    SessionNotAllowed(&'static str, &'static str),
    /// The signer's filter is newer: it wants something of the session that this version knows nothing of.
    NotUnderstood,
    /// The intake's filter is older than the signer's, and lists less than that one wants.
    OlderIntake,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RoleNotAllowed => f.write_str("no --allow-role covers every role of it"),
            Self::DefaultNotAllowed => f.write_str("what may be supplied is bounded, so the base identity needs --allow-default"),
            Self::SessionNotAllowed(what, option) => write!(f, "no {option} covers its {what}"),
            Self::NotUnderstood => {
                f.write_str("the proxy wants more of it than this version knows of: upgrade credential-refresher")
            }
            Self::OlderIntake => f.write_str(
                "the intake's filter is older than the signer's and does not know all that it wants: use one .wasm for both",
            ),
        }
    }
}

impl fmt::Display for Unsupplied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.identity)?;
        match &self.why {
            UnsuppliedReason::Denied(denial) => denial.fmt(f),
            UnsuppliedReason::NoCredentials(Some(failure)) | UnsuppliedReason::Revoked(failure) => f.write_str(failure),
            UnsuppliedReason::NoCredentials(None) => f.write_str("its source has not answered yet"),
            UnsuppliedReason::PushFailed(error) => error.fmt(f),
        }
    }
}
