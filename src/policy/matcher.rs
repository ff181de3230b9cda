//! Which route takes a request.
//!
//! The prefixes form a trie of path segments, so that the work depends on the request's path and not on the number of
//! routes. Under each prefix, hosts are looked up by name, from the most exact to none.
//!
//! Segments are compared decoded: `/%61dmin` is `/admin` to the upstream, so it is to the policy, and the stricter
//! route of two can't be slipped past by spelling. An encoded slash stays inside its segment: `/a%2Fadmin` is one
//! segment, which the prefixes `/a` and `/a/admin` do not match.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::Route;
use super::host::{HostPattern, NAME_MAX, RequestHost};
use super::path_text;

/// The longest prefix that a policy may write, in bytes.
pub(super) const PREFIX_MAX: usize = 1024;

/// A route's place in the policy.
type RouteIndex = usize;

/// All prefixes and hosts of a policy, for look-up.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    root: Node,
    /// Whether any route looks at hosts; without, a request's authority need not be read.
    by_host: bool,
}

/// The place in the trie that some segments lead to.
#[derive(Debug, Default)]
struct Node {
    children: Children,
    /// Routes whose prefix ends with this segment.
    here: Hosts,
    /// Routes whose prefix ends with a slash behind this segment.
    below: Hosts,
}

/// Nodes by their segment, sorted: a policy does not change, and a search by halves beats hashing each segment of a request.
#[derive(Debug, Default)]
struct Children(Vec<(Box<[u8]>, Node)>);

impl Children {
    fn get(&self, segment: &[u8]) -> Option<&Node> {
        let at = self.0.binary_search_by(|(name, _)| name.as_ref().cmp(segment)).ok()?;
        self.0.get(at).map(|(_, node)| node)
    }

    fn get_or_insert(&mut self, segment: Box<[u8]>) -> &mut Node {
        let at = self.0.binary_search_by(|(name, _)| name.cmp(&segment)).unwrap_or_else(|free| {
            self.0.insert(free, (segment, Node::default()));
            free
        });
        &mut self.0[at].1
    }
}

/// The routes of one prefix by the hosts they take.
#[derive(Debug, Default)]
struct Hosts {
    exact: HashMap<String, Vec<(Option<u16>, RouteIndex)>>,
    /// By the domain behind `*.`.
    wildcard: HashMap<String, Vec<(Option<u16>, RouteIndex)>>,
    every: Option<RouteIndex>,
}

impl Matcher {
    pub(super) fn new(routes: &[Route]) -> Self {
        let mut matcher = Self::default();
        for route in routes {
            let PrefixSegments { segments, slash } = PrefixSegments::of(&route.prefix);
            let mut node = &mut matcher.root;
            for segment in segments {
                node = node.children.get_or_insert(segment);
            }
            let hosts = if slash { &mut node.below } else { &mut node.here };
            hosts.add(route);
            matcher.by_host |= !route.hosts.is_empty();
        }
        matcher
    }

    /// The route that takes a request.
    pub(super) fn find(&self, authority: &[u8], path: &[u8]) -> Option<RouteIndex> {
        if path.first() != Some(&b'/') {
            return None;
        }
        let mut buffer = [0; NAME_MAX];
        let host = if self.by_host { RequestHost::read(authority, &mut buffer) } else { None };
        let mut node = &self.root;
        let mut at = 0;
        let mut best = node.below.find(host.as_ref());
        while let Some(rest) = path.get(at + 1..) {
            let segment = rest.split(|b| *b == b'/').next().unwrap_or_default();
            let Some(child) = node.child(segment) else { break };
            node = child;
            at += 1 + segment.len();
            best = node.here.find(host.as_ref()).or(best);
            if at < path.len() {
                best = node.below.find(host.as_ref()).or(best);
            }
        }
        best
    }
}

impl Node {
    fn child(&self, segment: &[u8]) -> Option<&Self> {
        if !segment.contains(&b'%') {
            return self.children.get(segment);
        }
        // What outgrows the longest prefix is no segment of any.
        let mut room = [0; PREFIX_MAX];
        self.children.get(path_text::decode_into(segment, &mut room)?)
    }
}

impl Hosts {
    fn add(&mut self, route: &Route) {
        if route.hosts.is_empty() {
            self.every = Some(route.index);
        }
        for HostPattern { wildcard, name, port } in &route.hosts {
            let table = if *wildcard { &mut self.wildcard } else { &mut self.exact };
            let routes = table.entry(name.clone()).or_default();
            routes.push((*port, route.index));
            // A pattern that names a port is the more exact one.
            routes.sort_by_key(|(port, _)| port.is_none());
        }
    }

    fn find(&self, host: Option<&RequestHost<'_>>) -> Option<RouteIndex> {
        host.and_then(|host| self.find_named(host)).or(self.every)
    }

    fn find_named(&self, host: &RequestHost<'_>) -> Option<RouteIndex> {
        let on_port = |routes: &Vec<(Option<u16>, RouteIndex)>| {
            routes.iter().find(|(port, _)| port.is_none() || *port == host.port).map(|(_, route)| *route)
        };
        if let Some(route) = self.exact.get(host.name).and_then(on_port) {
            return Some(route);
        }
        if self.wildcard.is_empty() {
            return None;
        }
        let mut name = host.name;
        while let Some((_, domain)) = name.split_once('.') {
            if let Some(route) = self.wildcard.get(domain).and_then(on_port) {
                return Some(route);
            }
            name = domain;
        }
        None
    }
}

/// A prefix as it is compared: equal for prefixes that take the same paths.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct PrefixSegments {
    /// Decoded.
    segments: Vec<Box<[u8]>>,
    /// Whether a slash stands behind the last segment, as it does in `/`.
    slash: bool,
}

impl PrefixSegments {
    pub(super) fn of(prefix: &str) -> Self {
        let (inner, slash) = match prefix.strip_suffix('/') {
            Some(inner) => (inner, true),
            None => (prefix, false),
        };
        let decode = |segment: &str| path_text::decode(segment.as_bytes()).into_boxed_slice();
        Self { segments: inner.split('/').skip(1).map(decode).collect(), slash }
    }
}

/// Sorts routes as [`Matcher::find`] prefers them: by the length of their prefix, then by how exact their hosts are. Of a
/// route with several hosts the most exact one counts.
pub(super) fn precedence(route: &Route) -> impl Ord {
    let PrefixSegments { segments, slash } = PrefixSegments::of(&route.prefix);
    // A name is more exact than a domain, a longer domain than one that it is part of, and either with a port.
    let exactness = |host: &HostPattern| (!host.wildcard, host.name.split('.').count(), host.port.is_some());
    let hosts = route.hosts.iter().map(exactness).max();
    (Reverse(segments.len()), segments, Reverse(slash), Reverse(hosts))
}

/// The beginning of `path` that is `prefix`, as this path spells it; `None` where the path does not begin with it.
pub(super) fn prefix_in<'a>(prefix: &str, path: &'a [u8]) -> Option<&'a [u8]> {
    let ends_at_boundary = |at: usize| prefix.ends_with('/') || matches!(path.get(at), None | Some(b'/'));
    if path.starts_with(prefix.as_bytes()) && ends_at_boundary(prefix.len()) {
        return path.get(..prefix.len());
    }
    // Spelled otherwise: as many segments, equal when decoded.
    let PrefixSegments { segments, slash } = PrefixSegments::of(prefix);
    let mut at = 0;
    for expected in segments {
        let segment = path.get(at..)?.strip_prefix(b"/")?.split(|b| *b == b'/').next()?;
        if path_text::decode(segment) != *expected {
            return None;
        }
        at += 1 + segment.len();
    }
    if slash {
        at += path.get(at..)?.starts_with(b"/").then_some(1)?;
    }
    path.get(..at)
}
