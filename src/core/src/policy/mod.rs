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
//! | `route`, `modes` | a compiled route, and the choices that a policy makes |
//! | `target`, `authority`, `path_syntax` | URLs, hosts and paths in a policy |
//! | `matcher` | the route of a request |
//! | `scope` | its credential scope |
//! | `recent_hosts` | the hosts of recent requests, and their endpoints |
//! | `bucket` | the bucket in its host |
//! | `caller` | the callers that a route admits |
//! | `caller_text` | a caller's name in the access log |
//! | `role_template`, `placeholder` | the role of a caller |
//! | `iam_names` | names and ARNs of IAM |
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
mod iam_names;
mod matcher;
mod modes;
mod notes;
mod path_syntax;
mod placeholder;
mod recent_hosts;
mod role_template;
mod route;
mod scope;
mod target;

pub use authority::HostPattern;
pub use bucket::BucketError;
pub use caller::{Admitted, Caller, CallerPattern, CallerSources};
pub use copy_source::{CopySourceError, check_query, copy_source_header};
pub use document::PolicyDocument;
pub use error::PolicyError;
pub use headers::{HeaderRules, SetHeader, UPSTREAM_SCHEME_HEADER};
pub use modes::{PayloadMode, ScopeSource, SignatureLocation, Unmatched};
pub use placeholder::Placeholder;
pub use recent_hosts::RecentHosts;
pub use role_template::{RoleTemplate, ValueError};
pub use route::{Route, RouteIdentity};
pub use scope::{RequestScope, ScopeError};
pub use target::{BucketPlace, Scheme, Target};

use crate::credentials::Identity;
use crate::held::HeldLimits;
use crate::path::{PathError, SafePath};

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

/// The reason why no route admits a caller.
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

#[cfg(test)]
mod tests;
