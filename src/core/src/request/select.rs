//! The route of a request.

use crate::header_map::HeaderMap;
use crate::host::Host;
use crate::local_reply::{Refusal, SigningFailure};
use crate::policy::{Policy, Route, Unmatched};

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
    // Most routes have no metadata, and fetching all of it is cheaper than looking up one key. It is serialized protobuf,
    // which has our key as it is.
    let all = host.property("xds\0route_metadata")?.unwrap_or_default();
    if !all.windows(b"sigv4".len()).any(|part| part == b"sigv4") {
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
