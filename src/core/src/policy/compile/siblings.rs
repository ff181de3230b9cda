//! Routes that match the same requests: siblings that differ by their callers, or duplicates.

use std::collections::HashMap;

use super::super::Route;
use super::super::authority::HostPattern;
use super::super::error::{Location, PolicyError};
use super::super::matcher::PrefixSegments;

/// Links routes of one prefix and the same hosts that differ by their callers. Rejects any other two that would match the
/// same requests.
pub(super) fn link(routes: &mut [(Route, Location)]) -> Result<(), PolicyError> {
    let mut siblings = Vec::new();
    let mut taken: HashMap<(PrefixSegments, Option<&HostPattern>), &(Route, Location)> = HashMap::new();
    for entry in routes.iter() {
        let (route, location) = entry;
        let every_host = route.hosts.is_empty().then_some(None);
        for host in route.hosts.iter().map(Some).chain(every_host) {
            let Some((first, first_location)) = taken.get(&(PrefixSegments::of(&route.prefix), host)) else {
                taken.insert((PrefixSegments::of(&route.prefix), host), entry);
                continue;
            };
            let has_same_hosts =
                first.hosts.len() == route.hosts.len() && route.hosts.iter().all(|host| first.hosts.contains(host));
            if !has_same_hosts || (first.callers.is_empty() && route.callers.is_empty()) {
                let host = host.map(|host| format!(" with the host \"{host}\"")).unwrap_or_default();
                return Err(location.error(format!(
                    "the prefix {:?}{host} is already taken by {first_location}; keep one, or give each different hosts or callers",
                    route.prefix
                )));
            }
            if siblings.last() != Some(&(first.index, route.index)) {
                siblings.push((first.index, route.index));
            }
        }
    }
    for (first, other) in siblings {
        add_sibling(routes, first, other)?;
    }
    for at in 0..routes.len() {
        set_sources(routes, at);
    }
    Ok(())
}

/// Adds a route to the siblings of the first of them.
fn add_sibling(routes: &mut [(Route, Location)], first: usize, other: usize) -> Result<(), PolicyError> {
    let mut siblings = routes.get(first).map(|(first, _)| first.siblings.clone()).unwrap_or_default();
    if siblings.is_empty() {
        siblings.push(first);
    }
    if let Some((route, location)) = routes.get(other) {
        for (sibling, sibling_location) in siblings.iter().filter_map(|index| routes.get(*index)) {
            refuse_tie(route, location, sibling, sibling_location)?;
        }
    }
    siblings.push(other);
    for index in siblings.clone() {
        if let Some((route, _)) = routes.get_mut(index) {
            route.siblings.clone_from(&siblings);
        }
    }
    Ok(())
}

/// Rejects a sibling that admits a caller, or everyone, as another one does.
fn refuse_tie(route: &Route, location: &Location, sibling: &Route, first: &Location) -> Result<(), PolicyError> {
    if route.callers.is_empty() && sibling.callers.is_empty() {
        return Err(location.error(format!("admits everyone, as {first} does; keep one, or add callers")));
    }
    let tie = route.callers.iter().find_map(|caller| {
        let twin = sibling.callers.iter().find(|twin| twin.ties_with(caller))?;
        Some((caller, twin))
    });
    match tie {
        Some((caller, twin)) => Err(location.error(format!(
            "\"{caller}\" admits callers that {first} admits equally, with \"{twin}\"; make one of them more exact"
        ))),
        None => Ok(()),
    }
}

/// Has a route know what it takes to choose between it and its siblings.
fn set_sources(routes: &mut [(Route, Location)], at: usize) {
    let Some((route, _)) = routes.get(at) else { return };
    let mut sources = route.caller_sources;
    route.callers.iter().for_each(|caller| sources.add(caller));
    for (sibling, _) in route.siblings.iter().filter_map(|index| routes.get(*index)) {
        sibling.callers.iter().for_each(|caller| sources.add(caller));
    }
    if let Some((route, _)) = routes.get_mut(at) {
        route.caller_sources = sources;
    }
}
