//! The route of a caller, the authentication that it requires, and the identity that signs for the caller.

use crate::connection;
use crate::host::Host;
use crate::local_reply::Refusal;
use crate::policy::{Admitted, Caller, Route};
use crate::worker::{SignsAs, Worker};

/// Returns the route that takes the caller's request, `route` or a sibling, and the identity that signs it. Names the caller
/// for the access log.
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
    let selected = worker.policy.admit(route, &caller);
    let by = selected.as_ref().ok().and_then(|(_, admitted)| *admitted);
    let signs_as = match &selected {
        Ok((route, Some(admitted))) => worker.signs_as(route, Some(admitted)).map(|identity| (*route, identity)),
        Ok((route, None)) if route.allow_unauthenticated || is_authenticated() => {
            worker.signs_as(route, None).map(|identity| (*route, identity))
        }
        Err(cause) if is_authenticated() => Err(Refusal::CallerNotAllowed(cause.clone())),
        Ok((_, None)) | Err(_) => Err(Refusal::Unauthenticated),
    };
    if worker.policy.access_log || signs_as.is_err() {
        describe(worker, &caller, by);
    }
    signs_as
}

/// Names the caller for the access log, if Envoy has verified a name or a token.
fn describe<H: Host>(worker: &Worker<H>, caller: &Caller, admitted: Option<Admitted<'_>>) {
    let text = caller.text(admitted);
    if !text.is_empty() {
        worker.describe("sigv4.caller", &text);
    }
}
