//! What the filter reads and changes in the headers of a response.

use crate::clock_skew;
use crate::host::{Host, HostError, MapKind};
use crate::policy::{HeaderRules, Route};
use crate::worker::Worker;

/// Learns the upstream's clock from the response, if that is a refusal for its sake. `authority` is the one that was signed
/// for, if the route does not fix it.
pub(super) fn check_clock<H: Host>(worker: &Worker<H>, route: &Route, authority: &[u8]) -> Result<(), HostError> {
    if !clock_skew::is_refusal(&worker.host.header(MapKind::Response, ":status")?) {
        return Ok(());
    }
    let headers = worker.host.headers(MapKind::Response)?;
    if let Some(date) = clock_skew::date_of_refusal(headers.iter()) {
        let authority = route
            .target
            .as_ref()
            .filter(|_| route.has_fixed_authority())
            .map_or(authority, |target| target.authority.as_bytes());
        worker.learn_clock(authority, date, worker.host.now());
    }
    Ok(())
}

/// Applies a route's rules to the response's headers.
pub(super) fn apply_rules(host: &impl Host, rules: &HeaderRules) -> Result<(), HostError> {
    if rules.is_empty() {
        return Ok(());
    }
    for (name, _) in host.headers(MapKind::Response)?.iter().filter(|(name, _)| !rules.keeps(name)) {
        host.remove_header(MapKind::Response, name)?;
    }
    rules
        .set()
        .iter()
        .try_for_each(|header| host.replace_header(MapKind::Response, &header.name, header.value.as_bytes()))
}
