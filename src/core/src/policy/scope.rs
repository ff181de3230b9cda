//! The credential scope of a route or request: what the policy says, else what the host's name implies, else what the client
//! signed for.

use crate::aws_endpoint;
use crate::signing::Scope;

use super::authority::{Authority, HostPattern, NameBuffer};
use super::error::{Location, PolicyError};
use super::{Algorithm, Route, ScopeSource, Target};

/// What a route says of its scope.
pub(super) struct ScopeRule<'a> {
    pub(super) service: Option<&'a str>,
    pub(super) region: Option<&'a str>,
    pub(super) source: ScopeSource,
    pub(super) algorithm: &'a Algorithm,
}

/// Why a rule gives a host no scope.
#[derive(Clone, Copy)]
enum NoScope {
    RequiresSigv4a,
    Unknown { service: bool, region: bool },
}

impl<'a> ScopeRule<'a> {
    /// Returns the scope of requests to a host, in lower case and without its port. `signed_for` is what the client signed
    /// for already, if it may choose.
    fn for_host(&self, host: &'a str, signed_for: Option<Scope<&'a str>>) -> Result<Scope<&'a str>, NoScope> {
        let inferred = aws_endpoint::infer(host);
        if inferred.is_some_and(|endpoint| endpoint.requires_sigv4a())
            && self.region.is_none()
            && *self.algorithm == Algorithm::SigV4
        {
            return Err(NoScope::RequiresSigv4a);
        }
        let inferred = inferred.map(|endpoint| Scope { region: endpoint.region, service: endpoint.signing_name });
        let found = inferred.or(signed_for);
        let service = self.service.or(found.map(|scope| scope.service));
        let region = self.region.or(found.map(|scope| scope.region)).or(match self.algorithm {
            Algorithm::SigV4 => None,
            // The region set is signed for instead.
            Algorithm::SigV4a { .. } => Some(""),
        });
        match (region, service) {
            (Some(region), Some(service)) => Ok(Scope { region, service }),
            _ => Err(NoScope::Unknown { service: service.is_none(), region: region.is_none() }),
        }
    }

    /// Returns the scope if the policy alone decides it, and `None` if each request does.
    ///
    /// # Errors
    /// If no request of the route could have a scope.
    pub(super) fn resolve(
        &self,
        target: Option<&'a Target>,
        hosts: &'a [HostPattern],
        place: &Location,
    ) -> Result<Option<Scope>, PolicyError> {
        let owned = |scope: Scope<&str>| Scope { region: scope.region.to_owned(), service: scope.service.to_owned() };
        if let Some(target) = target {
            let scope = self.for_host(target.host(), None);
            self.require_inferable(scope, target.host(), place)?;
            return Ok(scope.ok().map(owned));
        }
        for (i, host) in hosts.iter().enumerate() {
            let place = place.key("hosts").index(i);
            if !host.wildcard {
                self.require_inferable(self.for_host(&host.name, None), &host.name, &place)?;
            } else if !aws_endpoint::is_aws_domain(&host.name) {
                self.require_inferable(self.for_host("", None), &host.to_string(), &place)?;
            }
        }
        // The same for every host if it is so for one of which nothing is known.
        Ok(self.for_host("", None).ok().map(owned))
    }

    /// Refuses a route whose requests to a host could have no scope.
    fn require_inferable(
        &self,
        scope: Result<Scope<&str>, NoScope>,
        host: &str,
        place: &Location,
    ) -> Result<(), PolicyError> {
        let (missing, cure) = match scope {
            Ok(_) => return Ok(()),
            Err(NoScope::RequiresSigv4a) => {
                return Err(place.error(format!(
                    "{host:?} answers for all regions and takes SigV4A alone; add \"signing\": {{\"algorithm\": \"sigv4a\"}}"
                )));
            }
            Err(NoScope::Unknown { .. }) if self.source == ScopeSource::Client => return Ok(()),
            Err(NoScope::Unknown { region: false, .. }) => ("its service", "\"service\", such as \"execute-api\""),
            Err(NoScope::Unknown { service: false, .. }) => ("its region", "\"region\", such as \"eu-west-1\""),
            Err(NoScope::Unknown { .. }) => {
                ("its service and region", "\"service\" and \"region\", such as \"execute-api\" and \"eu-west-1\"")
            }
        };
        Err(place.error(format!("{host:?} is not an AWS host name from which {missing} can be inferred; add {cure}")))
    }
}

/// Why a request has no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// The host takes SigV4A alone, and the route signs with SigV4.
    #[error("the host {host:?} takes SigV4A signatures only; set signing.algorithm: sigv4a for route {route}")]
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
    /// Service and region can't be inferred from the host, and the client's signature names none.
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
    /// Returns the scope of a request to an authority, that came with this `authorization`.
    ///
    /// # Errors
    /// If neither policy nor request implies it.
    pub fn request_scope<'a>(
        &'a self,
        authority: &[u8],
        authorization: Option<&'a [u8]>,
        buffer: &'a mut NameBuffer,
    ) -> Result<Scope<&'a str>, ScopeError> {
        if let Some(scope) = &self.scope {
            return Ok(scope.as_deref());
        }
        let rule = ScopeRule {
            service: self.service.as_deref(),
            region: self.region.as_deref(),
            source: self.scope_source,
            algorithm: &self.algorithm,
        };
        let host = Authority::parse(authority, buffer).map_or("", |authority| authority.name);
        let signed_for = authorization.filter(|_| self.scope_source == ScopeSource::Client);
        rule.for_host(host, signed_for.and_then(Scope::of_authorization)).map_err(|refused| {
            let host = if host.is_empty() { String::from_utf8_lossy(authority).into_owned() } else { host.to_owned() };
            let route = self.name.clone();
            match (refused, self.scope_source) {
                (NoScope::RequiresSigv4a, _) => ScopeError::Sigv4aHost { host, route },
                (NoScope::Unknown { .. }, ScopeSource::Client) => ScopeError::NoClientScope { host, route },
                (NoScope::Unknown { .. }, ScopeSource::Infer) => ScopeError::UnknownScope { host, route },
            }
        })
    }
}
