//! The signature of a planned request.

use std::time::SystemTime;

use crate::header_map::HeaderMap;
use crate::host::Host;
use crate::local_reply::{self, LengthRequired, Outcome, Refusal, UnsupportedRequest};
use crate::policy::{Route, Scheme, ScopeSource, SignatureLocation};
use crate::signing::{ChunkResigner, PayloadHash, SigningCredentials};
use crate::worker::{SignsAs, Worker};

use super::edits::{HeaderEdits, Signature};
use super::head::RequestHead;
use super::plan::Plan;

/// The result of signing a request.
pub(super) enum Signed {
    /// Forwarded; carries the chunk re-signer of an aws-chunked body.
    Forwarded(Option<Box<ChunkResigner>>),
    /// The client was redirected to the presigned URL.
    Redirected,
}

/// Signs the stream's request and writes the signature into its headers, or redirects the client.
///
/// # Errors
/// If it can't be signed, or the proxy refuses a change. The request must not be sent on then.
pub(super) fn sign<H: Host>(
    worker: &Worker<H>,
    (headers, head): (&HeaderMap, &RequestHead<'_>),
    plan: &Plan<'_>,
    payload: PayloadHash,
    (identity, credentials): (&SignsAs, &SigningCredentials),
    now: SystemTime,
) -> Result<Signed, Refusal> {
    let route = plan.route;
    let request = plan.request(head, payload);
    let context = plan.context(credentials, worker.signing_time(plan.authority, now));
    let rules = &route.request_headers;
    let set = rules.set().iter().map(|header| (header.name.as_bytes(), header.value.as_bytes()));
    let sent = headers.iter().filter(|(name, _)| rules.keeps(name)).chain(set);
    let mut signer = worker.signer.borrow_mut();
    let mut chunked_body = None;
    let signature = match route.location {
        SignatureLocation::Header if let PayloadHash::AwsChunked(form) = payload => {
            let length = head.decoded_content_length.ok_or(LengthRequired::DecodedLength)?;
            let (signed, body) = signer.sign_aws_chunked(form, length, &request, sent, &context)?;
            chunked_body = Some(Box::new(body));
            Signature::Headers(signed)
        }
        SignatureLocation::Query { .. } if matches!(payload, PayloadHash::AwsChunked(_)) => {
            return Err(UnsupportedRequest::ChunkedBodyInQuery.into());
        }
        SignatureLocation::Header => Signature::Headers(signer.sign(&request, sent, &context)?),
        // A client that follows the redirect sends its own headers, so only `host` can be signed.
        SignatureLocation::Query { expires } if route.redirect => {
            let uri = signer.presign(&request, [], &context, expires)?;
            worker.record(Some(route), Some(identity), plan.scope.service, Outcome::Redirected);
            local_reply::redirect(&worker.host, &presigned_url(route, plan.authority, uri));
            return Ok(Signed::Redirected);
        }
        SignatureLocation::Query { expires } => Signature::Uri(signer.presign(&request, sent, &context, expires)?),
    };
    HeaderEdits { headers, head, plan, signature }.apply(&worker.host)?;
    if route.has_fixed_authority() {
        // The proxy resolves hosts of the policy apart from those that clients choose.
        worker.describe("sigv4.host", "policy");
    }
    worker.record(Some(route), Some(identity), plan.scope.service, Outcome::Signed);
    if route.scope_source != ScopeSource::Infer
        && let Some(signed_for) = route.overridden_scope(plan.scope, head.authorization)
    {
        worker.report_overridden_scope(route, plan.authority, plan.scope, signed_for);
    }
    Ok(Signed::Forwarded(chunked_body))
}

/// Returns the URL of a presigned request.
fn presigned_url(route: &Route, authority: &[u8], uri: &[u8]) -> String {
    let scheme = match route.target.as_ref().map(|target| target.scheme) {
        Some(Scheme::Http) => "http",
        Some(Scheme::Https) | None => "https",
    };
    format!("{scheme}://{}{}", String::from_utf8_lossy(authority), String::from_utf8_lossy(uri))
}
