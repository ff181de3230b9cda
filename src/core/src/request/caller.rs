//! The route of a caller, and the authentication that it requires.

use crate::connection;
use crate::host::Host;
use crate::local_reply::Refusal;
use crate::policy::{Policy, Route};

/// Returns the route that takes the caller's request: `route` or a sibling.
///
/// # Errors
/// If the route requires a caller whom Envoy has authenticated, or other callers than this one.
pub(super) fn admit<'p>(policy: &'p Policy, host: &impl Host, route: &'p Route) -> Result<&'p Route, Refusal> {
    if route.admits_everyone() {
        return if route.allow_unauthenticated || connection::is_authenticated(host) {
            Ok(route)
        } else {
            Err(Refusal::Unauthenticated)
        };
    }
    let caller = connection::caller(host, route.caller_sources)?;
    match policy.admit(route, &caller) {
        Ok((admitting, None)) if admitting.allow_unauthenticated || connection::is_authenticated(host) => Ok(admitting),
        Ok((admitting, Some(_))) => Ok(admitting),
        Ok((_, None)) => Err(Refusal::Unauthenticated),
        Err(_) if !connection::is_authenticated(host) => Err(Refusal::Unauthenticated),
        Err(cause) => Err(Refusal::CallerNotAllowed(cause)),
    }
}
