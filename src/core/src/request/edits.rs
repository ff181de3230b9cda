//! What signing changes in a request's headers.

use crate::header_map::HeaderMap;
use crate::host::{Host, HostError, MapKind};
use crate::policy::{Scheme, UPSTREAM_SCHEME_HEADER};
use crate::signing::{SignedHeaders, is_signature_header};

use super::head::RequestHead;
use super::plan::Plan;

/// The carrier of the signature.
pub(super) enum Signature<'a> {
    Headers(SignedHeaders<'a>),
    /// The presigned path and query.
    Uri(&'a [u8]),
}

impl Signature<'_> {
    /// Returns whether one of its headers replaces a header of the client.
    fn replaces(&self, name: &[u8]) -> bool {
        match self {
            Self::Headers(signed) => signed.iter().any(|(ours, _)| ours.as_bytes() == name),
            Self::Uri(_) => false,
        }
    }
}

/// The changes of a request's headers from what the client sent to what was signed.
pub(super) struct HeaderEdits<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) head: &'a RequestHead<'a>,
    pub(super) plan: &'a Plan<'a>,
    pub(super) signature: Signature<'a>,
}

impl HeaderEdits<'_> {
    /// Makes the changes. What stays as it is costs no host call.
    ///
    /// # Errors
    /// If the proxy refuses one. The request must not be sent on then.
    pub(super) fn apply(&self, host: &impl Host) -> Result<(), HostError> {
        let Self { headers, head, plan, signature } = self;
        let rules = &plan.route.request_headers;
        let replace = |name: &str, value: &[u8]| host.replace_header(MapKind::Request, name, value);
        if head.has_signature_headers || !rules.is_empty() {
            for (name, _) in headers.iter() {
                if !rules.keeps(name) || (is_signature_header(name) && !signature.replaces(name)) {
                    host.remove_header(MapKind::Request, name)?;
                }
            }
        }
        for header in rules.set() {
            replace(&header.name, header.value.as_bytes())?;
        }
        if plan.authority != head.authority {
            replace(":authority", plan.authority)?;
        }
        let uri = match signature {
            Signature::Headers(_) => plan.uri.as_bytes(),
            Signature::Uri(presigned) => presigned,
        };
        if uri != head.target {
            replace(":path", uri)?;
        }
        if let Signature::Headers(signed) = signature {
            for (name, value) in signed.iter() {
                if head.has_signature_headers {
                    replace(name, value)?
                } else {
                    host.add_header(MapKind::Request, name, value)?
                }
            }
        }
        match &plan.route.target {
            Some(target) if target.scheme == Scheme::Http => replace(UPSTREAM_SCHEME_HEADER, b"http"),
            _ => Ok(()),
        }
    }
}
