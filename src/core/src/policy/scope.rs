//! The credential scope of a request: the policy's, else what the host's name implies, else the client's.

use crate::aws_endpoint;
use crate::signing::Scope;

use super::{Algorithm, Route, ScopeSource};

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
    /// Returns the scope of a request to `host`, an authority without its port, that came with this `authorization`.
    /// `lower_case` is scratch space.
    ///
    /// # Errors
    /// If neither policy nor request implies it.
    pub fn request_scope<'a>(
        &'a self,
        host: &[u8],
        authorization: Option<&'a [u8]>,
        lower_case: &'a mut String,
    ) -> Result<Scope<&'a str>, ScopeError> {
        if let Some(scope) = &self.scope {
            return Ok(scope.as_deref());
        }
        lower_case.clear();
        lower_case.push_str(std::str::from_utf8(host).unwrap_or_default().trim_end_matches('.'));
        lower_case.make_ascii_lowercase();
        let inferred = aws_endpoint::infer(lower_case);
        let refused = |error: fn(String, String) -> ScopeError| Err(error(lower_case.clone(), self.name.clone()));
        if inferred.is_some_and(|endpoint| endpoint.requires_sigv4a())
            && self.region.is_none()
            && self.algorithm == Algorithm::SigV4
        {
            return refused(|host, route| ScopeError::Sigv4aHost { host, route });
        }
        let inferred = inferred.map(|found| Scope { region: found.region, service: found.signing_name });
        let found = inferred.or_else(|| match self.scope_source {
            ScopeSource::Client => authorization.and_then(Scope::of_authorization),
            ScopeSource::Infer => None,
        });
        let region = self.region.as_deref().or(found.map(|scope| scope.region));
        let service = self.service.as_deref().or(found.map(|scope| scope.service));
        match (region, service) {
            (Some(region), Some(service)) => Ok(Scope { region, service }),
            _ => match self.scope_source {
                ScopeSource::Client => refused(|host, route| ScopeError::NoClientScope { host, route }),
                ScopeSource::Infer => refused(|host, route| ScopeError::UnknownScope { host, route }),
            },
        }
    }
}
