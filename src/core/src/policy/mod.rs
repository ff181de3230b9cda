//! The signing policy: which requests are signed, as whom, and where they go.
//!
//! A [`PolicyDocument`] is the policy as its author writes it; a [`Policy`] is the same checked and compiled. Requests
//! only ever see the latter: all that can be wrong with a policy is found when it loads, and told in one line that
//! names the place and the cure.
//!
//! | part | its job |
//! | --- | --- |
//! | `document` | the shape of the JSON document |
//! | `compile` | what its values mean, and whether they go together |
//! | `target`, `authority`, `path_syntax` | URLs, hosts and paths as a policy writes them |
//! | `matcher` | the route of a request |
//! | `scope` | its credential scope |
//! | `bucket` | the bucket in its host |
//! | `copy_source` | the headers by which S3 names another object |
//! | `headers` | which headers pass |
//! | `error` | refusals |

mod authority;
mod bucket;
mod compile;
mod confusable;
mod copy_source;
mod document;
mod error;
mod headers;
mod matcher;
mod path_syntax;
#[cfg(feature = "schema")]
mod schema;
mod scope;
mod target;

use std::time::Duration;

pub use authority::{HostPattern, NAME_MAX, NameBuffer};
pub use bucket::{BucketError, BucketPlace};
pub use copy_source::{CopySourceError, check_query, copy_source_header};
pub use document::PolicyDocument;
pub use error::PolicyError;
pub use headers::{HeaderRules, SetHeader, UPSTREAM_SCHEME_HEADER};
pub use scope::ScopeError;
pub use target::{Scheme, Target};

use crate::credentials::Identity;
use crate::held::HeldLimits;
use crate::path::{PathError, SafePath};
use crate::signing::{Algorithm, Scope};

/// A checked policy, ready for requests.
#[derive(Debug)]
pub struct Policy {
    routes: Vec<Route>,
    matcher: matcher::Matcher,
    identities: Vec<Identity>,
    /// What happens to a request that no route matches.
    pub unmatched: Unmatched,
    /// How long a request may wait for the first credentials after a cold start.
    pub credentials_wait: Duration,
    /// What each worker may hold of requests that can't go on yet.
    pub held_limits: HeldLimits,
    /// Whether requests that are signed at once are described for the access log.
    pub access_log: bool,
    /// Whether Envoy's own route may say which of these routes signs, or that none does.
    pub route_metadata: bool,
}

impl Policy {
    /// Reads and compiles a policy, in its own form or as a Backstage `proxysigv4` section.
    ///
    /// # Errors
    /// The first thing found that can't be used, with its place and the cure.
    pub fn from_json(json: &[u8]) -> Result<Self, PolicyError> {
        PolicyDocument::from_json(json).and_then(Self::compile)
    }

    /// Returns the route that takes a request, by its authority and its path: the longest prefix, and among equals the
    /// most exact host. Allocates nothing; the cost does not depend on the number of routes.
    ///
    /// An authority that is not a host name with an optional port matches no route that has `hosts`.
    ///
    /// # Errors
    /// [`PathError::Ambiguous`] if an upstream may read the path as one that another route takes, or that none takes.
    pub fn find(&self, authority: &[u8], path: &SafePath<'_>) -> Result<Option<&Route>, PathError> {
        let found = self.matcher.find(authority, path, &self.routes)?;
        Ok(found.and_then(|route| self.routes.get(route)))
    }

    /// Returns a route that takes a path that [`SafePath`] refuses, in any way that an upstream may read it.
    pub fn find_any(&self, authority: &[u8], path: &[u8]) -> Option<&Route> {
        self.routes.get(self.matcher.find_any(authority, path)?)
    }

    /// The route of this name (see [`Route::name`]).
    pub fn route_named(&self, name: &[u8]) -> Option<&Route> {
        self.routes.iter().find(|route| route.name.as_bytes() == name)
    }

    /// All routes, in the document's order.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// All routes, the one that wins first: of those that match a request, the first one takes it. A route with several
    /// hosts stands where its most exact one puts it.
    pub fn routes_by_precedence(&self) -> Vec<&Route> {
        let mut routes: Vec<&Route> = self.routes.iter().collect();
        routes.sort_by_cached_key(|route| matcher::precedence(route));
        routes
    }

    /// All that routes sign as, each once.
    pub fn identities(&self) -> &[Identity] {
        &self.identities
    }
}

/// What is signed, as whom, and where it goes.
#[derive(Debug)]
pub struct Route {
    /// Its place in [`Policy::routes`].
    pub index: usize,
    /// What replies, logs, metrics and route metadata call it: the prefix as written. Where several routes share a
    /// prefix, their first host stands before it: `orders.internal/a`.
    pub name: String,
    /// The path prefix as written.
    pub prefix: String,
    /// The hosts it takes; empty for every host.
    pub hosts: Vec<HostPattern>,
    /// Where requests go; `None` keeps the request's own authority and path.
    pub target: Option<Target>,
    /// `true` if its upstream has TLS: by the target's scheme, or by what the policy says of a route without one.
    pub upstream_tls: bool,
    /// The domain before which a host names a bucket, for S3 outside of AWS; `None` if that is not known.
    pub s3_domain: Option<String>,
    /// Whom it signs as: a place in [`Policy::identities`].
    pub identity: usize,
    /// The signing name that the policy writes; wins over all inference.
    pub service: Option<String>,
    /// The region that the policy writes; wins over all inference.
    pub region: Option<String>,
    /// The credential scope where the policy alone tells it; `None` where it comes from each request.
    pub scope: Option<Scope>,
    /// Where service and region come from that neither the policy nor the host name tells.
    pub scope_source: ScopeSource,
    /// How the body is signed.
    pub payload: PayloadMode,
    /// The kind of signature.
    pub algorithm: Algorithm,
    /// Where the signature goes.
    pub location: Location,
    /// Answer 307 with the presigned URL in place of proxying; only with [`Location::Query`] and a target.
    pub redirect: bool,
    /// What becomes of the client's headers before the request is signed.
    pub request_headers: HeaderRules,
    /// What becomes of the upstream's headers.
    pub response_headers: HeaderRules,
    /// Headers to sign beside the usual ones: lower case, sorted, each once.
    pub signed_headers: Vec<String>,
    /// Whether a request is signed that Envoy has not authenticated.
    pub allow_unauthenticated: bool,
}

impl Route {
    /// The beginning of `path` that is the route's prefix, as this request spells it (`/%61` for `/a`): what is taken off
    /// before the rest goes behind the target's path. `None` where the path does not begin with the prefix, as it may be
    /// for a route that was found by its name.
    pub fn prefix_in<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        matcher::prefix_in(&self.prefix, path)
    }

    /// Returns whether all its requests go to its target's authority.
    pub fn has_fixed_authority(&self) -> bool {
        self.target.as_ref().is_some_and(|target| target.bucket != Some(BucketPlace::Label))
    }

    /// Returns whether a client may choose the service, by the scope that it signed for.
    pub fn takes_clients_service(&self) -> bool {
        self.scope.is_none() && self.service.is_none() && self.scope_source == ScopeSource::Client
    }
}

/// What happens to a request that no route matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    /// It is answered with 404.
    #[default]
    Deny,
    /// It goes on untouched and unsigned.
    Pass,
}

/// How a body is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PayloadMode {
    /// No body: the empty hash, at once. S3 over https: `unsigned`. Else: `signed`.
    #[default]
    Auto,
    /// The body is hashed as it arrives and held back until it is whole.
    Signed,
    /// `UNSIGNED-PAYLOAD`: the body streams.
    Unsigned,
    /// A well-formed `x-amz-content-sha256` that the client sent is signed for, and the body streams; without one,
    /// as `auto`.
    Client,
}

/// Where service and region come from that neither the policy nor the host name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ScopeSource {
    /// From the host name.
    #[default]
    Infer,
    /// From the credential scope that the client, an AWS SDK, signed for under a throw-away key, where the host name
    /// does not tell; without one, as `infer`.
    Client,
}

/// Where the signature goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// The `authorization` header.
    Header,
    /// The query: a presigned URL.
    Query {
        /// How long it holds.
        expires: Duration,
    },
}

#[cfg(test)]
mod tests;
