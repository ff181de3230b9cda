//! The route of a caller, the authentication that it requires, and the identity that signs for the caller.

use crate::connection;
use crate::host::Host;
use crate::local_reply::Refusal;
use crate::policy::Route;
use crate::worker::{SignsAs, Worker};

/// Returns the route that takes the caller's request, `route` or a sibling, and the identity that signs it.
///
/// # Errors
/// If the route requires a caller whom Envoy has authenticated, or other callers than this one.
pub(super) fn admit<'w, H: Host>(worker: &'w Worker<H>, route: &'w Route) -> Result<(&'w Route, SignsAs), Refusal> {
    let is_authenticated = || connection::is_authenticated(&worker.host);
    if route.admits_everyone() {
        if route.allow_unauthenticated || is_authenticated() {
            return Ok((route, worker.signs_as(route, None)?));
        }
        return Err(Refusal::Unauthenticated);
    }
    let caller = connection::caller(&worker.host, route.caller_sources)?;
    match worker.policy.admit(route, &caller) {
        Ok((route, Some(admitted))) => Ok((route, worker.signs_as(route, Some(&admitted))?)),
        Ok((route, None)) if route.allow_unauthenticated || is_authenticated() => {
            Ok((route, worker.signs_as(route, None)?))
        }
        Err(cause) if is_authenticated() => Err(Refusal::CallerNotAllowed(cause)),
        Ok((_, None)) | Err(_) => Err(Refusal::Unauthenticated),
    }
}
