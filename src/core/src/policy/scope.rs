//! The credential scope of a route or request: set by the policy, else inferred from the host's name, else taken from the
//! client's signature.

use crate::aws_endpoint::{self, Endpoint};
use crate::signing::{Algorithm, Scope};

use super::authority::HostPattern;
use super::error::{Location, PolicyError};
use super::modes::ScopeSource;
use super::recent_hosts::RecentHosts;
use super::route::Route;
use super::target::Target;

/// The settings of a route that determine its scope.
pub(super) struct ScopeRule<'a> {
    pub(super) service: Option<&'a str>,
    pub(super) region: Option<&'a str>,
    pub(super) source: ScopeSource,
    pub(super) algorithm: &'a Algorithm,
}

/// The reason why a host has no scope.
#[derive(Clone, Copy)]
enum NoScope {
    RequiresSigv4a,
    Unknown { service: bool, region: bool },
}

/// The scope of a request, and what else is known of its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestScope<'a> {
    /// The region and service that it is signed for.
    pub scope: Scope<&'a str>,
    /// The signing name by which the wire form of the path is chosen. The policy or the host name sets it; the client's
    /// scope does only if neither does, as no other form could be verified.
    pub service: &'a str,
    /// `true` if the policy or the host name sets `service`.
    pub is_service_known: bool,
}

impl<'a> ScopeRule<'a> {
    /// Returns the scope of requests to a host from whose name this endpoint was inferred. `signed_for` is the scope that the
    /// client signed for, if it may choose.
    fn for_host(
        &self,
        inferred: Option<Endpoint<'a>>,
        signed_for: Option<Scope<&'a str>>,
    ) -> Result<RequestScope<'a>, NoScope> {
        if inferred.is_some_and(|endpoint| endpoint.requires_sigv4a())
            && self.region.is_none()
            && *self.algorithm == Algorithm::SigV4
        {
            return Err(NoScope::RequiresSigv4a);
        }
        let inferred = inferred.map(|endpoint| Scope { region: endpoint.region, service: endpoint.signing_name });
        let found = match self.source {
            ScopeSource::ClientFirst => signed_for.or(inferred),
            ScopeSource::Infer | ScopeSource::Client => inferred.or(signed_for),
        };
        let service = self.service.or(found.map(|scope| scope.service));
        let region = self.region.or(found.map(|scope| scope.region)).or(match self.algorithm {
            Algorithm::SigV4 => None,
            // The region set is signed instead.
            Algorithm::SigV4a { .. } => Some(""),
        });
        let known = self.service.or(inferred.map(|scope| scope.service));
        match (region, service) {
            (Some(region), Some(service)) => Ok(RequestScope {
                scope: Scope { region, service },
                service: known.unwrap_or(service),
                is_service_known: known.is_some(),
            }),
            _ => Err(NoScope::Unknown { service: service.is_none(), region: region.is_none() }),
        }
    }

    /// Returns the scope if the policy alone determines it, and `None` if it depends on the request.
    ///
    /// # Errors
    /// If no request of the route could have a scope.
    pub(super) fn resolve(
        &self,
        target: Option<&'a Target>,
        hosts: &'a [HostPattern],
        location: &Location,
    ) -> Result<Option<Scope>, PolicyError> {
        let owned = |RequestScope { scope, .. }: RequestScope<'_>| Scope {
            region: scope.region.to_owned(),
            service: scope.service.to_owned(),
        };
        if let Some(target) = target {
            let scope = self.for_host(aws_endpoint::infer(target.host()), None);
            self.require_inferable(scope, target.host(), location)?;
            return Ok(scope.ok().filter(|_| !self.may_client_override()).map(owned));
        }
        for (i, host) in hosts.iter().enumerate() {
            let location = location.key("hosts").index(i);
            if !host.wildcard {
                let scope = self.for_host(aws_endpoint::infer(&host.name), None);
                self.require_inferable(scope, &host.name, &location)?;
            } else if !aws_endpoint::is_aws_domain(&host.name) {
                self.require_inferable(self.for_host(None, None), &host.to_string(), &location)?;
            }
        }
        // A scope without any host is the scope of every host.
        Ok(self.for_host(None, None).ok().filter(|_| !self.may_client_override()).map(owned))
    }

    /// Returns whether a client's scope wins over one that needs no client.
    fn may_client_override(&self) -> bool {
        self.source == ScopeSource::ClientFirst && (self.service.is_none() || self.region.is_none())
    }

    /// Rejects a route whose requests to a host could have no scope.
    fn require_inferable(
        &self,
        scope: Result<RequestScope<'_>, NoScope>,
        host: &str,
        location: &Location,
    ) -> Result<(), PolicyError> {
        let (missing, cure) = match scope {
            Ok(_) => return Ok(()),
            Err(NoScope::RequiresSigv4a) => {
                return Err(location.error(format!(
                    "{host:?} serves all regions and accepts only SigV4A; add \"signing\": {{\"algorithm\": \"sigv4a\"}}"
                )));
            }
            Err(NoScope::Unknown { .. }) if self.source != ScopeSource::Infer => return Ok(()),
            Err(NoScope::Unknown { region: false, .. }) => ("its service", "\"service\", such as \"execute-api\""),
            Err(NoScope::Unknown { service: false, .. }) => ("its region", "\"region\", such as \"eu-west-1\""),
            Err(NoScope::Unknown { .. }) => {
                ("its service and region", "\"service\" and \"region\", such as \"execute-api\" and \"eu-west-1\"")
            }
        };
        Err(location
            .error(format!("{host:?} is not an AWS host name from which {missing} can be inferred; add {cure}")))
    }
}

/// The reason why a request has no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// The host accepts only SigV4A, and the route signs with SigV4.
    #[error("the host {host:?} accepts only SigV4A; set signing.algorithm: sigv4a for route {route}")]
    Sigv4aHost {
        /// The host, without its port.
        host: String,
        /// The route's name.
        route: String,
    },
    /// Service and region can't be inferred from the host.
    #[error("service and region can't be inferred from the host {host:?}; set both for route {route}")]
    UnknownScope {
        /// The host, without its port.
        host: String,
        /// The route's name.
        route: String,
    },
    /// Service and region can't be inferred from the host, and the client's signature does not name them.
    #[error(
        "neither the host {host:?} nor an authorization header names service and region; sign the request under a \
         throw-away key with AWS4-HMAC-SHA256, or set both for route {route}"
    )]
    NoClientScope {
        /// The host, without its port.
        host: String,
        /// The route's name.
        route: String,
    },
}

impl Route {
    /// Returns the scope of a request to an authority, with this `authorization` header from the client.
    ///
    /// # Errors
    /// If neither policy nor request implies it.
    pub fn request_scope<'a>(
        &'a self,
        authority: &[u8],
        authorization: Option<&'a [u8]>,
        hosts: &'a mut RecentHosts,
    ) -> Result<RequestScope<'a>, ScopeError> {
        if let Some(scope) = &self.scope {
            return Ok(RequestScope { scope: scope.as_deref(), service: &scope.service, is_service_known: true });
        }
        let rule = ScopeRule {
            service: self.service.as_deref(),
            region: self.region.as_deref(),
            source: self.scope_source,
            algorithm: &self.algorithm,
        };
        let (host, endpoint) = match &self.target {
            Some(target) => (target.host(), aws_endpoint::infer(target.host())),
            None => hosts.find_or_infer(authority).map_or(("", None), |host| (host.name(), host.endpoint())),
        };
        let signed_for = authorization.filter(|_| self.scope_source != ScopeSource::Infer);
        rule.for_host(endpoint, signed_for.and_then(Scope::of_authorization)).map_err(|refused| {
            let host = if host.is_empty() { String::from_utf8_lossy(authority).into_owned() } else { host.to_owned() };
            let route = self.name.clone();
            match (refused, self.scope_source) {
                (NoScope::RequiresSigv4a, _) => ScopeError::Sigv4aHost { host, route },
                (NoScope::Unknown { .. }, ScopeSource::Infer) => ScopeError::UnknownScope { host, route },
                (NoScope::Unknown { .. }, _) => ScopeError::NoClientScope { host, route },
            }
        })
    }

    /// Returns the scope that a client signed for, if `used` differs from it in a part that the policy does not set.
    pub fn overridden_scope<'a>(&self, used: Scope<&str>, authorization: Option<&'a [u8]>) -> Option<Scope<&'a str>> {
        let signed_for = Scope::of_authorization(authorization?)?;
        // With SigV4A, the region set is signed instead of the region.
        let region_counts = self.region.is_none() && self.algorithm == Algorithm::SigV4;
        let differs = (self.service.is_none() && signed_for.service != used.service)
            || (region_counts && signed_for.region != used.region);
        differs.then_some(signed_for)
    }
}
