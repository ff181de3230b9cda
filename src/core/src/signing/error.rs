//! Errors of signing.

/// The reason why a request can't be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The time of the signature is before 1970 or after 9999.
    #[error("the proxy's clock is not between the years 1970 and 9999; set it")]
    Clock,
    /// SigV4A found no key or nonce, which is practically impossible.
    #[error("cannot derive a SigV4A key from these credentials; rotate them")]
    Asymmetric,
    /// A body of signed chunks can't be re-signed with SigV4A.
    #[error("signed chunks can't be re-signed with SigV4A; let the client send STREAMING-UNSIGNED-PAYLOAD-TRAILER")]
    AsymmetricChunks,
}
