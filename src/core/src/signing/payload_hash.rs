//! The payload's part of a signature: the SHA-256 of the body, or a mark that it is not signed.

use sha2::{Digest, Sha256};

use super::hex::{self, HexDigest};
use super::streaming_form::AwsChunkedForm;

pub(super) const EMPTY: &[u8] = b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const UNSIGNED: &[u8] = b"UNSIGNED-PAYLOAD";

/// The last line of a canonical request, and the value of `x-amz-content-sha256` if that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadHash {
    /// There is no body.
    Empty,
    /// The body is not part of the signature, `UNSIGNED-PAYLOAD`.
    Unsigned,
    /// The body's SHA-256 in lower-case hexadecimal.
    Sha256([u8; 64]),
    /// The body is `aws-chunked`, signed by chunk or not at all.
    AwsChunked(AwsChunkedForm),
}

impl PayloadHash {
    /// Reads the `x-amz-content-sha256` that a client sent: 64 hexadecimal digits or `UNSIGNED-PAYLOAD`. `None` for anything
    /// else, which must not be signed. [`AwsChunkedForm::from_client_header`] reads the rest.
    pub fn from_client_header(value: &[u8]) -> Option<Self> {
        if value == UNSIGNED {
            return Some(Self::Unsigned);
        }
        let mut digest: HexDigest = value.try_into().ok()?;
        digest.make_ascii_lowercase();
        digest.iter().all(u8::is_ascii_hexdigit).then_some(Self::Sha256(digest))
    }

    /// Returns its text.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Empty => EMPTY,
            Self::Unsigned => UNSIGNED,
            Self::Sha256(digest) => digest,
            Self::AwsChunked(form) => form.as_bytes(),
        }
    }

    /// Returns whether a request to `service` needs `x-amz-content-sha256`: if the text is not a hash that the service can
    /// compute itself, or if the service rejects a request without the header.
    ///
    /// Sources: S3 API Reference, "Authenticating Requests"; S3 Glacier Developer Guide, "Signing Requests";
    /// OpenSearch Service Developer Guide, "Signing HTTP requests" (for Serverless).
    pub(super) fn is_required_by(&self, service: &str) -> bool {
        matches!(self, Self::Unsigned | Self::AwsChunked(_))
            || super::uri::is_s3(service)
            || matches!(service, "aoss" | "glacier")
    }
}

/// A hasher of a body as it arrives.
#[derive(Debug, Clone, Default)]
pub struct PayloadHasher(Sha256);

impl PayloadHasher {
    /// Adds the next part of the body.
    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    /// Returns the hash of all parts.
    pub fn finish(self) -> PayloadHash {
        PayloadHash::Sha256(hex::encode(&self.0.finalize().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_may_arrive_in_any_parts() {
        let mut hasher = PayloadHasher::default();
        for part in [&b"Param1"[..], b"", b"=value1"] {
            hasher.update(part);
        }
        let expected = b"9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e";
        assert_eq!(hasher.finish(), PayloadHash::Sha256(*expected));
    }

    #[test]
    fn no_parts_are_the_empty_body() {
        assert_eq!(PayloadHasher::default().finish().as_bytes(), PayloadHash::Empty.as_bytes());
    }

    #[test]
    fn only_a_well_formed_hash_of_the_client_is_taken() {
        let upper = b"9095672BBD1F56DFC5B65F3E153ADC8731A4A654192329106275F4C7B24D0B6E";
        let lower = b"9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e";
        assert_eq!(PayloadHash::from_client_header(upper), Some(PayloadHash::Sha256(*lower)));
        assert_eq!(PayloadHash::from_client_header(b"UNSIGNED-PAYLOAD"), Some(PayloadHash::Unsigned));
        let wrong: &[&[u8]] = &[b"", b"unsigned-payload", &lower[1..], &[b'g'; 64], &[b'a'; 65], &[0xff; 64]];
        for value in wrong {
            assert_eq!(PayloadHash::from_client_header(value), None);
        }
    }

    #[test]
    fn the_header_goes_where_it_is_needed() {
        assert!(PayloadHash::Empty.is_required_by("s3"));
        assert!(PayloadHash::Empty.is_required_by("aoss"));
        assert!(PayloadHash::Unsigned.is_required_by("execute-api"));
        assert!(!PayloadHash::Empty.is_required_by("execute-api"));
    }
}
