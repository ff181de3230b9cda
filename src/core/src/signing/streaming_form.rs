//! The streaming forms of a body, as `x-amz-content-sha256` names them.

/// The form of an `aws-chunked` body, named by `x-amz-content-sha256`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AwsChunkedForm {
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD`: chunks are signed.
    Signed,
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER`: chunks and trailers are signed.
    SignedTrailer,
    /// `STREAMING-UNSIGNED-PAYLOAD-TRAILER`: neither is.
    UnsignedTrailer,
}

/// The reason why a body in a streaming form can't be forwarded: its signatures can't be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedStreamingForm {
    /// `STREAMING-AWS4-HMAC-SHA256-EVENTS`, or the content type of such a body. Each event has a time of its own, and a
    /// signature that is derived from the previous one.
    #[error(
        "a body of signed events can't be re-signed; give this client its own credentials and bypass the proxy, or \
         use the service's WebSocket API"
    )]
    Events,
    /// Chunks that are signed with SigV4A, and unknown forms.
    #[error(
        "x-amz-content-sha256 names a streaming form that can't be re-signed; \
         send STREAMING-AWS4-HMAC-SHA256-PAYLOAD[-TRAILER], STREAMING-UNSIGNED-PAYLOAD-TRAILER, or a body that is not chunked"
    )]
    Unknown,
    /// An `aws-chunked` body for a service other than S3.
    #[error("only S3 accepts aws-chunked bodies; send the body unchunked, without x-amz-content-sha256")]
    NotS3,
}

const STREAMING: &[u8] = b"STREAMING-";
const EVENTS: &[u8] = b"-EVENTS";

impl AwsChunkedForm {
    /// Reads the `x-amz-content-sha256` that a client sent, in any case; `None` if it does not name a streaming form.
    ///
    /// # Errors
    /// [`UnsupportedStreamingForm`]: the request must be rejected.
    pub fn from_client_header(value: &[u8]) -> Result<Option<Self>, UnsupportedStreamingForm> {
        let name = value.trim_ascii();
        match [Self::Signed, Self::SignedTrailer, Self::UnsignedTrailer]
            .into_iter()
            .find(|form| name.eq_ignore_ascii_case(form.as_bytes()))
        {
            None if !names_streaming_form(name) => Ok(None),
            None if name
                .len()
                .checked_sub(EVENTS.len())
                .is_some_and(|at| begins_with_ignoring_case(name.get(at..).unwrap_or_default(), EVENTS)) =>
            {
                Err(UnsupportedStreamingForm::Events)
            }
            None => Err(UnsupportedStreamingForm::Unknown),
            form => Ok(form),
        }
    }

    pub(super) fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Signed => b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            Self::SignedTrailer => b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
            Self::UnsignedTrailer => b"STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        }
    }

    pub(super) fn is_signed(self) -> bool {
        self != Self::UnsignedTrailer
    }
}

/// Returns whether an `x-amz-content-sha256`, or one of several that a hop joined with commas, names a streaming form.
pub fn names_streaming_form(value: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|name| begins_with_ignoring_case(name.trim_ascii_start(), STREAMING))
}

pub(super) fn begins_with_ignoring_case(text: &[u8], beginning: &[u8]) -> bool {
    text.get(..beginning.len()).is_some_and(|start| start.eq_ignore_ascii_case(beginning))
}
