//! The result of reconciling a proxy, and the identities that it lacks.

use std::fmt;
use std::time::SystemTime;

use crate::proxy::ProxyError;

/// The result of reconciling a proxy.
#[derive(Debug)]
pub struct Supply {
    /// The identities that are not supplied.
    pub unsupplied: Vec<Unsupplied>,
    /// True if any policy is loaded there.
    pub requires: bool,
    /// True if it holds unexpired credentials for at least one identity.
    pub holds: bool,
    /// True if it holds any at all, expired ones included. Revoked ones do not count: revocation is intended.
    pub was_supplied: bool,
    /// The earliest expiry of the credentials that it holds.
    pub expires: Option<SystemTime>,
}

impl Supply {
    /// Returns whether the proxy can sign, or could until a source failed, in which case another instance would do no
    /// better.
    pub fn is_ready(&self) -> bool {
        self.requires && (self.holds || (self.was_supplied && self.unsupplied.iter().any(Unsupplied::source_failed)))
    }
}

/// An identity that a proxy wants and that is not supplied.
#[derive(Debug)]
pub struct Unsupplied {
    /// The identity's id.
    pub identity: String,
    /// The reason.
    pub why: UnsuppliedReason,
}

impl Unsupplied {
    fn source_failed(&self) -> bool {
        matches!(self.why, UnsuppliedReason::NoCredentials(Some(_)))
    }
}

/// The reason that a proxy lacks an identity's credentials.
#[derive(Debug)]
pub enum UnsuppliedReason {
    /// The identity may not be supplied.
    Denied(Denial),
    /// The source has not answered yet, or its last answer was this failure.
    NoCredentials(Option<String>),
    /// The source only has an access key that was revoked in this proxy.
    Revoked(String),
    /// The push failed.
    PushFailed(ProxyError),
}

/// The reason that an identity may not be supplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// `--allow-role` does not cover one of its roles.
    RoleNotAllowed,
    /// Another `--allow-…` is set, and `--allow-default` is not.
    DefaultNotAllowed,
    /// No pattern covers a part of its session: the part, and the option.
    SessionNotAllowed(&'static str, &'static str),
    /// The signer's filter is newer: it requires a session property that this version does not know.
    NotUnderstood,
    /// The intake's filter is older than the signer's, and does not list all that the signer requires.
    OlderIntake,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RoleNotAllowed => f.write_str("no --allow-role covers all of its roles"),
            Self::DefaultNotAllowed => f.write_str("with other --allow-… options, the base identity needs --allow-default"),
            Self::SessionNotAllowed(what, option) => write!(f, "no {option} covers its {what}"),
            Self::NotUnderstood => {
                f.write_str("the proxy requires a session property that this version does not know; upgrade credential-refresher")
            }
            Self::OlderIntake => f.write_str(
                "the intake's filter is older than the signer's and does not list all that the signer requires; use one .wasm for both",
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
