//! The placeholders in a role, each for a value of the caller.

use std::fmt;

/// A value of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placeholder {
    /// The namespace of a SPIFFE id with the path `/ns/NAMESPACE/sa/ACCOUNT`.
    Namespace,
    /// The service account of such an id.
    ServiceAccount,
    /// The trust domain of a SPIFFE id.
    TrustDomain,
    /// A claim of a token, a string.
    Claim(String),
}

impl Placeholder {
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "namespace" => Some(Self::Namespace),
            "serviceAccount" => Some(Self::ServiceAccount),
            "trustDomain" => Some(Self::TrustDomain),
            _ => {
                name.strip_prefix("claim:").filter(|claim| !claim.is_empty()).map(|claim| Self::Claim(claim.to_owned()))
            }
        }
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace => f.write_str("{namespace}"),
            Self::ServiceAccount => f.write_str("{serviceAccount}"),
            Self::TrustDomain => f.write_str("{trustDomain}"),
            Self::Claim(name) => write!(f, "{{claim:{name}}}"),
        }
    }
}
