//! What the filter reads of a request's headers, in one pass.

use crate::header_map::HeaderMap;
use crate::held::FULL_BUFFER;
use crate::local_reply::{Refusal, UnsupportedRequest};
use crate::path::SafePath;
use crate::policy;
use crate::signing::{is_signature_header, names_streaming_form};

use super::payload::is_event_stream;

/// The header that the signer itself writes.
const UPSTREAM_SCHEME: &[u8] = policy::UPSTREAM_SCHEME_HEADER.as_bytes();

/// The parts of a request's headers that the filter reads.
pub(super) struct RequestHead<'a> {
    pub(super) method: &'a [u8],
    pub(super) authority: &'a [u8],
    /// Path and query as the client sent them.
    pub(super) target: &'a [u8],
    pub(super) path: SafePath<'a>,
    pub(super) authorization: Option<&'a [u8]>,
    pub(super) content_sha256: Option<&'a [u8]>,
    pub(super) decoded_content_length: Option<u64>,
    /// `true` if there are headers that [signing owns](is_signature_header).
    pub(super) has_signature_headers: bool,
    /// `true` if there is an [`UPSTREAM_SCHEME_HEADER`](policy::UPSTREAM_SCHEME_HEADER).
    pub(super) sends_upstream_scheme: bool,
    pub(super) is_upgrade: bool,
    /// `true` if a header names another object, to S3.
    pub(super) names_copy_source: bool,
    pub(super) is_event_stream: bool,
    pub(super) content_length: Option<u64>,
}

impl<'a> RequestHead<'a> {
    /// Reads the headers of a request.
    ///
    /// # Errors
    /// If the request is a `CONNECT`, or its path can't be trusted.
    // Inlined into the filter, which is optimized for speed, and not the core.
    #[inline]
    pub(super) fn parse(headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let (mut method, mut authority, mut path) = (&b""[..], &b""[..], &b""[..]);
        let (mut authorization, mut content_sha256, mut decoded_content_length) = (None, None, None);
        let (mut has_signature_headers, mut sends_upstream_scheme, mut is_upgrade) = (false, false, false);
        let (mut sent_event_stream, mut content_length, mut names_copy_source) = (false, None, false);
        for (name, value) in headers.iter() {
            match name {
                b":method" => method = value,
                b":authority" => authority = value,
                b":path" => path = value,
                b"authorization" => authorization = Some(value),
                // Of several, one that names a streaming form counts: the body may have signatures in it.
                b"x-amz-content-sha256" if !content_sha256.is_some_and(names_streaming_form) => {
                    content_sha256 = Some(value);
                }
                b"content-type" => sent_event_stream |= is_event_stream(value),
                b"content-length" => content_length = Some(parse_number(value).unwrap_or(u64::MAX)),
                b"x-amz-decoded-content-length" => decoded_content_length = parse_number(value),
                b"upgrade" => is_upgrade = value.eq_ignore_ascii_case(b"websocket"),
                UPSTREAM_SCHEME => sends_upstream_scheme = true,
                _ => names_copy_source |= policy::copy_source_header(name).is_some(),
            }
            has_signature_headers |= is_signature_header(name);
        }
        if method == b"CONNECT" {
            return Err(UnsupportedRequest::Connect.into());
        }
        Ok(Self {
            method,
            authority,
            target: path,
            path: SafePath::check(path).map_err(Refusal::InvalidPath)?,
            authorization,
            content_sha256,
            decoded_content_length,
            has_signature_headers,
            sends_upstream_scheme,
            is_upgrade,
            names_copy_source,
            is_event_stream: sent_event_stream,
            content_length,
        })
    }

    /// Returns how much of the body the proxy may buffer unseen.
    pub(super) fn unseen_size(&self) -> usize {
        let length = self.content_length.and_then(|length| usize::try_from(length).ok());
        length.map_or(FULL_BUFFER, |length| length.min(FULL_BUFFER))
    }
}

fn parse_number(value: &[u8]) -> Option<u64> {
    let digits = value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits).and_then(|value| value.parse().ok())
}
