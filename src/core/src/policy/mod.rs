//! The signing policy: which requests are signed, under which identity, and where they go.
//!
//! A [`PolicyDocument`] is the policy as its author writes it; a [`Policy`] is the same checked and compiled. Requests see
//! only the latter: everything that can be wrong with a policy is reported when it loads, in one line that names the
//! location and the fix.
//!
//! | part | its job |
//! | --- | --- |
//! | `document` | the shape of the JSON document |
//! | `compile` | the meaning of its values, and checks that they are consistent |
//! | `target`, `authority`, `path_syntax` | URLs, hosts and paths in a policy |
//! | `matcher` | the route of a request |
//! | `scope` | its credential scope |
//! | `bucket` | the bucket in its host |
//! | `caller` | the callers that a route admits |
//! | `caller_text` | a caller's name in the access log |
//! | `role_template` | the role of a caller |
//! | `copy_source` | the headers by which S3 names another object |
//! | `headers` | header rules |
//! | `notes` | notes on valid settings |
//! | `error` | errors, with their location in the document |

mod authority;
mod bucket;
mod caller;
mod caller_text;
mod compile;
mod confusable;
mod copy_source;
mod document;
mod error;
mod headers;
mod matcher;
mod notes;
mod path_syntax;
mod role_template;
#[cfg(feature = "schema")]
mod schema;
mod scope;
mod target;

use std::time::Duration;

pub use authority::{HostPattern, NAME_MAX, NameBuffer};
pub use bucket::{BucketError, BucketPlace};
pub use caller::{Admitted, Caller, CallerPattern, CallerSources};
pub use copy_source::{CopySourceError, check_query, copy_source_header};
pub use document::PolicyDocument;
pub use error::PolicyError;
pub use headers::{HeaderRules, SetHeader, UPSTREAM_SCHEME_HEADER};
pub use role_template::{Placeholder, RoleTemplate, ValueError};
pub use scope::{RequestScope, ScopeError};
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
    /// The treatment of a request that no route matches.
    pub unmatched: Unmatched,
    has_caller_identities: bool,
    /// The most identities of callers.
    pub max_caller_identities: u32,
    /// The bounds on the requests that each worker holds.
    pub held_limits: HeldLimits,
    /// `true` if requests that are signed immediately are described for the access log.
    pub access_log: bool,
    /// `true` if the metadata of Envoy's route may select one of these routes, or disable signing.
    pub route_metadata: bool,
}

impl Policy {
    /// Reads and compiles a policy, in its own form or as a Backstage `proxysigv4` section.
    ///
    /// # Errors
    /// The first defect, with its location and the fix.
    pub fn from_json(json: &[u8]) -> Result<Self, PolicyError> {
        PolicyDocument::from_json(json).and_then(Self::compile)
    }

    /// Returns the route of a request, by its authority and its path: the longest prefix, and among equals the most exact
    /// host. Of [siblings](Route::siblings) it returns the first, for [`Self::admit`] to choose from. Allocates nothing; the
    /// cost does not depend on the number of routes.
    ///
    /// An authority that is not a host name with an optional port matches no route that has `hosts`.
    ///
    /// # Errors
    /// [`PathError::Ambiguous`] if an upstream may read the path as one of another route, or of none.
    pub fn find(&self, authority: &[u8], path: &SafePath<'_>) -> Result<Option<&Route>, PathError> {
        let found = self.matcher.find(authority, path, &self.routes)?;
        Ok(found.and_then(|route| self.routes.get(route)))
    }

    /// Returns the route of a path that [`SafePath`] rejects, in any way that an upstream may read it.
    pub fn find_any(&self, authority: &[u8], path: &[u8]) -> Option<&Route> {
        self.routes.get(self.matcher.find_any(authority, path)?)
    }

    /// Returns the route of this name (see [`Route::name`]).
    pub fn route_named(&self, name: &[u8]) -> Option<&Route> {
        self.routes.iter().find(|route| route.name.as_bytes() == name)
    }

    /// Returns the route that takes a caller's request: `route`, or the sibling with the most exact pattern that admits the
    /// caller, and what that pattern admits. A route without callers is the least exact.
    ///
    /// # Errors
    /// If no route admits the caller, or if several do that are equally exact.
    pub fn admit<'p, 'c>(
        &'p self,
        route: &'p Route,
        caller: &'c Caller,
    ) -> Result<(&'p Route, Option<Admitted<'c>>), NotAdmitted> {
        let alone = [route.index];
        let siblings = if route.siblings.is_empty() { &alone[..] } else { &route.siblings };
        let mut best = None;
        let mut is_tie = false;
        for route in siblings.iter().filter_map(|index| self.routes.get(*index)) {
            let admitted =
                route.callers.iter().filter_map(|pattern| Some((Some(pattern.exactness()), pattern.admits(caller)?)));
            let admitted = admitted
                .max_by_key(|(exactness, _)| *exactness)
                .map(|(exactness, admitted)| (exactness, Some(admitted)));
            let Some((exactness, admitted)) = admitted.or(route.callers.is_empty().then_some((None, None))) else {
                continue;
            };
            match &best {
                Some((_, other, _)) if *other > exactness => {}
                Some((_, other, _)) if *other == exactness => is_tie = true,
                _ => (best, is_tie) = (Some((route, exactness, admitted)), false),
            }
        }
        match best {
            Some((route, _, admitted)) if !is_tie => Ok((route, admitted)),
            Some(_) => Err(NotAdmitted::Tie),
            None => Err(NotAdmitted::NoRoute),
        }
    }

    /// Returns all routes, in the document's order.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Returns all routes by precedence: a request takes the first one that matches it. The most exact host of a route
    /// decides its position.
    pub fn routes_by_precedence(&self) -> Vec<&Route> {
        let mut routes: Vec<&Route> = self.routes.iter().collect();
        routes.sort_by_cached_key(|route| matcher::precedence(route));
        routes
    }

    /// Returns whether routes have identities that come with their callers.
    pub fn has_caller_identities(&self) -> bool {
        self.has_caller_identities
    }

    /// Returns the identities that routes sign as, each once.
    pub fn identities(&self) -> &[Identity] {
        &self.identities
    }
}

/// A route: the requests that it matches, the identity that signs them, and their target.
#[derive(Debug)]
pub struct Route {
    /// Its index in [`Policy::routes`].
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
    /// What has to be known of a client to select one of them.
    pub caller_sources: CallerSources,
}

impl Route {
    /// Returns the part of `path` that matches the route's prefix, as this request spells it (`/%61` for `/a`). It is
    /// removed before the rest is appended to the target's path. `None` if the path does not begin with the prefix, which is
    /// possible for a route that was selected by its name.
    pub fn prefix_in<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        matcher::prefix_in(&self.prefix, path)
    }

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
    /// The same for all requests: an index in [`Policy::identities`].
    Fixed(usize),
    /// One for each caller.
    Caller(Box<RoleTemplate>),
}

/// Why no route admits a caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// None has the caller among its callers.
    #[error("the route's callers do not include this one")]
    NoRoute,
    /// Several routes admit it, and none more exactly than the others.
    #[error("several routes admit this caller equally; give one of them a more exact caller")]
    Tie,
    /// The caller's values make no role.
    #[error(transparent)]
    Value(#[from] ValueError),
}

/// The treatment of a request that no route matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    /// Answered with 404.
    #[default]
    Deny,
    /// Forwarded, unchanged and unsigned.
    Pass,
}

/// The signature of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PayloadMode {
    /// No body: the empty hash, immediately. With an SHA-256 that the client signed in `x-amz-content-sha256`: `client`. S3,
    /// and operations that AWS's SDKs leave unsigned, over https: `unsigned`. Else: `signed`.
    #[default]
    Auto,
    /// The body is hashed as it arrives and held until it is complete.
    Signed,
    /// `UNSIGNED-PAYLOAD`: the body streams.
    Unsigned,
    /// A well-formed `x-amz-content-sha256` from the client is signed, and the body streams; without one, like
    /// `auto`.
    Client,
    /// The hash that Envoy's hasher, a filter before this one, computed and marked is signed. Without one, like `signed`.
    Envoy,
}

/// The source of service and region, if the policy does not set them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ScopeSource {
    /// From the host name.
    #[default]
    Infer,
    /// From the host name or, if they can't be inferred, from the credential scope that the client, an AWS SDK, signed
    /// for under a throw-away key.
    Client,
    /// From the client's credential scope or, if it has none, from the host name.
    ClientFirst,
}

/// The location of the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureLocation {
    /// The `authorization` header.
    Header,
    /// The query: a presigned URL.
    Query {
        /// Its validity.
        expires: Duration,
    },
}

#[cfg(test)]
mod tests;
