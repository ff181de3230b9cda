//! The route of a request.

use crate::header_map::HeaderMap;
use crate::host::{Host, HostError};
use crate::local_reply::{Refusal, SigningFailure};
use crate::policy::{Policy, Route, Unmatched};
use crate::worker::Worker;

use super::head::RequestHead;

/// Returns the route that signs this request; `None` if the request passes untouched. What Envoy's own route says in its
/// metadata comes before the policy's matching.
pub(super) fn select_route<'p>(
    policy: &'p Policy,
    host: &impl Host,
    headers: &HeaderMap,
    head: &Result<RequestHead<'_>, Refusal>,
) -> Result<Option<&'p Route>, Refusal> {
    if policy.route_metadata
        && let Some(says) = read_route_override(host, policy)?
    {
        return Ok(match says {
            RouteOverride::Disabled => None,
            RouteOverride::Route(route) => Some(route),
        });
    }
    let found = match head {
        Ok(head) => policy.find(head.authority, &head.path).map_err(Refusal::InvalidPath)?,
        Err(refusal) if policy.unmatched == Unmatched::Deny => return Err(refusal.clone()),
        // A path that can't be trusted passes only if no route takes it, however it is read.
        Err(_) => {
            // CONNECT has no path; it is for the whole host.
            let path = headers.get(b":path").unwrap_or_default().split(|byte| *byte == b'?').next();
            policy.find_any(headers.get(b":authority").unwrap_or_default(), path.unwrap_or_default())
        }
    };
    match found {
        None if policy.unmatched == Unmatched::Deny => Err(Refusal::NoRoute),
        found => Ok(found),
    }
}

/// What the metadata of Envoy's own route says to the filter.
enum RouteOverride<'p> {
    Disabled,
    Route(&'p Route),
}

fn read_route_override<'p>(host: &impl Host, policy: &'p Policy) -> Result<Option<RouteOverride<'p>>, Refusal> {
    if !has_override(host)? {
        return Ok(None);
    }
    if host.property("xds\0route_metadata\0filter_metadata\0sigv4\0disabled")?.is_some_and(|value| value == [1]) {
        return Ok(Some(RouteOverride::Disabled));
    }
    let Some(name) = host.property("xds\0route_metadata\0filter_metadata\0sigv4\0route")? else { return Ok(None) };
    match policy.route_named(&name) {
        Some(route) => Ok(Some(RouteOverride::Route(route))),
        None => Err(SigningFailure::UnknownRoute(String::from_utf8_lossy(&name).into_owned()).into()),
    }
}

/// Returns whether the metadata of Envoy's route names this filter.
fn has_override(host: &impl Host) -> Result<bool, HostError> {
    // Most routes have no metadata, and fetching all of it is cheaper than looking up one key. It is serialized protobuf,
    // which has our key as it is.
    let all = host.property("xds\0route_metadata")?.unwrap_or_default();
    Ok(all.windows(b"sigv4".len()).any(|part| part == b"sigv4"))
}

/// Warns of metadata of Envoy's route that the policy ignores, and counts the request. Costs a host call, so it is for sampled
/// requests; and it must come before the headers change, with which Envoy's route may.
pub(super) fn report_ignored_override<H: Host>(worker: &Worker<H>) {
    // A warning is not worth a refusal.
    if worker.policy.route_metadata || !has_override(&worker.host).unwrap_or(false) {
        return;
    }
    let name = worker.host.property("xds\0route_name").ok().flatten().unwrap_or_default();
    log::warn!(
        "the route {:?} of Envoy has metadata under \"sigv4\", which the policy ignores; set \"routeMetadata\": true in the \
         policy, or remove the metadata",
        String::from_utf8_lossy(&name)
    );
    worker.metrics.count_ignored_override();
}
