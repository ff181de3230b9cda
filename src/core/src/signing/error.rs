//! Errors of signing.

/// Why a request can't be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The time of the signature lies before 1970 or after 9999.
    #[error("the clock is off: a signature's year lies between 1970 and 9999; set the proxy's clock")]
    Clock,
    /// SigV4A found no key or nonce. Of all secrets and messages, next to none see this.
    #[error("cannot derive a SigV4A key from these credentials; rotate them")]
    Asymmetric,
    /// A body of signed chunks can't be signed anew with SigV4A.
    #[error("signed chunks can't be signed anew with SigV4A; let the client send STREAMING-UNSIGNED-PAYLOAD-TRAILER")]
    AsymmetricChunks,
}
