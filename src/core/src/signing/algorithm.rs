//! The signing algorithms.

use super::sigv4a;

/// A signing algorithm. [`Algorithm`] alone owns its parts, `Algorithm<&str>` borrows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm<S = String> {
    /// `AWS4-HMAC-SHA256`, valid in the scope's region.
    SigV4,
    /// `AWS4-ECDSA-P256-SHA256`, valid in a set of regions. The scope's region is ignored.
    SigV4a {
        /// The value of `x-amz-region-set`: names and patterns separated by `,`; `*` matches any run of characters.
        region_set: S,
    },
}

impl Algorithm {
    /// Returns a borrowed copy.
    pub fn as_deref(&self) -> Algorithm<&str> {
        match self {
            Self::SigV4 => Algorithm::SigV4,
            Self::SigV4a { region_set } => Algorithm::SigV4a { region_set },
        }
    }
}

impl<'a> Algorithm<&'a str> {
    /// Returns the algorithm's name in the signature.
    pub(super) fn name(self) -> &'static [u8] {
        match self {
            Self::SigV4 => b"AWS4-HMAC-SHA256",
            Self::SigV4a { .. } => sigv4a::ALGORITHM,
        }
    }

    /// Returns the region set.
    pub(super) fn region_set(self) -> Option<&'a [u8]> {
        match self {
            Self::SigV4 => None,
            Self::SigV4a { region_set } => Some(region_set.as_bytes()),
        }
    }
}
