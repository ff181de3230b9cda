//! What is decided of a request before it is signed: its scope, and its authority and URI at the upstream.

use std::time::SystemTime;

use crate::host::Host;
use crate::path;
use crate::policy::{PayloadMode, RequestScope, Route, Target};
use crate::signing::{
    PayloadHash, Scope, SigningContext, SigningCredentials, UnsignedRequest, UnsupportedStreamingForm, UriStyle,
    WireUri, is_unsigned_operation, signs_content_sha256, takes_nothing_else,
};
use crate::worker::SigningBuffers;

use super::head::RequestHead;
use super::payload::{self, BodyInfo, PayloadPlan};
use crate::local_reply::{Refusal, UnsupportedRequest};

/// The plan of a request: its signature's scope, and its destination.
pub(super) struct Plan<'a> {
    pub(super) route: &'a Route,
    pub(super) scope: Scope<&'a str>,
    /// The signing name that decides on the form of path and body: that of the policy or of the host, and only if neither is
    /// known, the client's.
    pub(super) service: &'a str,
    is_service_known: bool,
    /// The authority that the upstream sees.
    pub(super) authority: &'a [u8],
    /// The path and query that the upstream sees.
    pub(super) uri: &'a WireUri,
}

impl<'a> Plan<'a> {
    /// Makes the plan of a request that a route takes.
    ///
    /// # Errors
    /// If neither policy nor request implies a scope, or the host names no bucket for the target.
    #[inline]
    pub(super) fn new(
        route: &'a Route,
        head: &RequestHead<'a>,
        buffers: &'a mut SigningBuffers,
    ) -> Result<Self, Refusal> {
        let SigningBuffers { hosts, authority: own_authority, path, uri } = buffers;
        let RequestScope { scope, service, is_service_known } =
            route.request_scope(head.authority, head.authorization, hosts)?;
        let (authority, path) = match &route.target {
            Some(target) if target.bucket.is_some() => to_bucket(route, target, head, (own_authority, path))?,
            Some(target) => {
                let prefix = route.prefix_in(head.path.path()).unwrap_or_default();
                path::join(target.path.as_bytes(), prefix, &head.path, path);
                (target.authority.as_bytes(), path.as_slice())
            }
            None => (head.authority, head.path.path()),
        };
        uri.set(UriStyle::of(service, authority), path, head.path.query());
        Ok(Self { route, scope, service, is_service_known, authority, uri })
    }

    /// Decides when the payload hash is known; `ends` is whether no body follows.
    ///
    /// # Errors
    /// If the body has signatures in it that can't be replaced.
    pub(super) fn payload(
        &self,
        host: &impl Host,
        head: &RequestHead<'_>,
        ends: bool,
    ) -> Result<PayloadPlan, UnsupportedStreamingForm> {
        // Most requests, for which nothing has to be decided.
        if ends && head.content_sha256.is_none() && !takes_nothing_else(self.service) {
            return Ok(PayloadPlan::Known(PayloadHash::Empty));
        }
        let asks_envoy = self.route.payload == PayloadMode::Envoy && !ends;
        PayloadPlan::decide(
            self.route.payload,
            BodyInfo {
                is_empty: ends,
                is_upgrade: head.is_upgrade,
                service: self.service,
                // A client's word for S3 must not take its body out of the signature.
                over_tls: self.route.upstream_tls && self.is_service_known,
                client_hash: head.content_sha256,
                envoy_hash: if asks_envoy { payload::hash_by_envoy(host) } else { None },
                is_event_stream: head.is_event_stream,
                // A redirected client sends its body elsewhere.
                has_length: ends || head.content_length.is_some() || self.route.redirect,
                signs_client_hash: !ends
                    && head.content_sha256.is_some()
                    && head.authorization.is_some_and(signs_content_sha256),
                is_unsigned_operation: !ends && is_unsigned_operation(self.service, head.method, self.uri.path()),
            },
        )
    }

    /// Returns the request as it is signed.
    pub(super) fn request(&self, head: &RequestHead<'a>, payload: PayloadHash) -> UnsignedRequest<'a> {
        UnsignedRequest {
            method: head.method,
            authority: self.authority,
            uri: self.uri,
            payload,
            signed_headers: &self.route.signed_headers,
        }
    }

    /// Returns the context of the signature.
    pub(super) fn context(&self, credentials: &'a SigningCredentials, at: SystemTime) -> SigningContext<'a> {
        SigningContext { credentials, scope: self.scope, algorithm: self.route.algorithm.as_deref(), at }
    }
}

/// Returns authority and path at the target of the bucket that a request's host names, written into the buffers.
#[cold]
fn to_bucket<'a>(
    route: &Route,
    target: &Target,
    head: &RequestHead<'_>,
    (authority, path): (&'a mut Vec<u8>, &'a mut Vec<u8>),
) -> Result<(&'a [u8], &'a [u8]), UnsupportedRequest> {
    let target = route.target_of_bucket(target, head.authority)?;
    let prefix = route.prefix_in(head.path.path()).unwrap_or_default();
    path::join(target.path.as_bytes(), prefix, &head.path, path);
    *authority = target.authority.into_bytes();
    Ok((authority, path))
}
