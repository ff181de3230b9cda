//! A compiled route.

use std::time::Duration;

use super::authority::HostPattern;
use super::caller::{CallerPattern, CallerSources};
use super::headers::HeaderRules;
use super::modes::{PayloadMode, ScopeSource, SignatureLocation};
use super::role_template::RoleTemplate;
use super::target::{BucketPlace, Target};
use crate::signing::{Algorithm, Scope};

/// A route: the requests that it matches, the identity that signs them, and their target.
#[derive(Debug)]
pub struct Route {
    /// Its index in [`Policy::routes`](super::Policy::routes)(super::Policy::routes).
    pub index: usize,
    /// Its name in replies, logs, metrics and route metadata: the prefix as written. If several routes share a prefix, each
    /// one's first host precedes it: `orders.internal/a`.
    pub name: String,
    /// The path prefix as written.
    pub prefix: String,
    /// The hosts that it matches; empty for every host.
    pub hosts: Vec<HostPattern>,
    /// The target of requests; `None` keeps the request's own authority and path.
    pub target: Option<Target>,
    /// `true` if its upstream has TLS: by the target's scheme, or by the policy's setting for a route without a target.
    pub upstream_tls: bool,
    /// The domain before which a host names a bucket, for S3 outside of AWS; `None` if that is not known.
    pub s3_domain: Option<String>,
    /// The identity that it signs as.
    pub identity: RouteIdentity,
    /// The longest time that a request waits for credentials: after a cold start, or as the first of its caller.
    pub credentials_wait: Duration,
    /// The signing name that the policy sets; overrides inference.
    pub service: Option<String>,
    /// The region that the policy sets; overrides inference.
    pub region: Option<String>,
    /// The credential scope, if the policy alone determines it; `None` if it depends on the request.
    pub scope: Option<Scope>,
    /// The source of service and region, if the policy does not set them.
    pub scope_source: ScopeSource,
    /// The signature of the body.
    pub payload: PayloadMode,
    /// The signing algorithm.
    pub algorithm: Algorithm,
    /// The location of the signature.
    pub location: SignatureLocation,
    /// `true` to answer 307 with the presigned URL instead of proxying; only with [`SignatureLocation::Query`] and a target.
    pub redirect: bool,
    /// The rules for the client's headers, applied before the request is signed.
    pub request_headers: HeaderRules,
    /// The rules for the upstream's headers.
    pub response_headers: HeaderRules,
    /// The headers to sign in addition to the usual ones: lower case, sorted, each once.
    pub signed_headers: Vec<String>,
    /// `true` to sign requests that Envoy has not authenticated.
    pub allow_unauthenticated: bool,
    /// The callers that it admits; empty for everyone.
    pub callers: Vec<CallerPattern>,
    /// The indexes of all routes of its prefix and hosts, which differ by callers; empty if there is no other.
    pub siblings: Vec<usize>,
    /// The sources that identify a client well enough to select one of them.
    pub caller_sources: CallerSources,
}

impl Route {
    /// Returns whether it is the other route, or one of its prefix and hosts.
    pub fn is_sibling_of(&self, other: &Self) -> bool {
        self.index == other.index || self.siblings.contains(&other.index)
    }

    /// Returns whether it is alone with its prefix and hosts, or the first of its siblings.
    pub(super) fn leads(&self) -> bool {
        self.siblings.first().is_none_or(|first| *first == self.index)
    }

    /// Returns whether neither it nor a sibling asks who the caller is.
    pub fn admits_everyone(&self) -> bool {
        self.caller_sources == CallerSources::default()
    }

    /// Returns whether all its requests go to its target's authority.
    pub fn has_fixed_authority(&self) -> bool {
        self.target.as_ref().is_some_and(|target| target.bucket != Some(BucketPlace::Label))
    }

    /// Returns whether a client may choose the service, by the scope that it signed for.
    pub fn takes_clients_service(&self) -> bool {
        self.scope.is_none() && self.service.is_none() && self.scope_source != ScopeSource::Infer
    }
}

/// The identity that a route signs as.
#[derive(Debug)]
pub enum RouteIdentity {
    /// The same for all requests: an index in [`Policy::identities`](super::Policy::identities).
    Fixed(usize),
    /// One for each caller.
    Caller(Box<RoleTemplate>),
}
