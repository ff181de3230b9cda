//! Matches a request to its route.
//!
//! The prefixes form a trie of path segments, so that the cost depends on the request's path and not on the number of
//! routes. Under each prefix, hosts are looked up by name, from the most exact to none.
//!
//! Segments are compared decoded: `/%61dmin` is `/admin`, as for the upstream. As written, an encoded slash stays inside its
//! segment: `/a%2Fadmin` is one segment, which the prefixes `/a` and `/a/admin` do not match. An upstream may read it as
//! two, so such a path is looked up in each of its [readings](crate::path::Reading). If they lead to different routes, the
//! request is rejected: no spelling bypasses a stricter route. A prefix with several readings that overlaps another one in
//! any of them is rejected when the policy [loads](super::confusable).

use std::cmp::Reverse;
use std::collections::HashMap;

use super::Route;
use super::authority::{Authority, HostPattern, NAME_MAX, NameBuffer};
use crate::path::{PathError, Reading, SEGMENT_MAX, SafePath, Spelling, percent};

/// The longest prefix of a policy, in bytes.
pub(super) const PREFIX_MAX: usize = SEGMENT_MAX;

/// A route's index in the policy.
type RouteIndex = usize;

/// All prefixes and hosts of a policy, for look-up.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    root: Node,
    /// `true` if any route restricts hosts; if none does, the authority is not parsed.
    by_host: bool,
}

/// A node of the trie.
#[derive(Debug, Default)]
struct Node {
    children: Children,
    /// Routes whose prefix ends with this segment.
    exact: Hosts,
    /// Routes whose prefix ends with a slash after this segment.
    with_slash: Hosts,
}

/// Nodes sorted by segment: a policy does not change, and binary search beats hashing each segment of a request.
#[derive(Debug, Default)]
struct Children(Vec<(Box<[u8]>, Node)>);

impl Children {
    fn get(&self, segment: &[u8]) -> Option<&Node> {
        let at = self.0.binary_search_by(|(name, _)| name.as_ref().cmp(segment)).ok()?;
        self.0.get(at).map(|(_, node)| node)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn get_or_insert(&mut self, segment: Box<[u8]>) -> &mut Node {
        let at = self.0.binary_search_by(|(name, _)| name.cmp(&segment)).unwrap_or_else(|free| {
            self.0.insert(free, (segment, Node::default()));
            free
        });
        &mut self.0[at].1
    }
}

/// The routes of one prefix by host.
#[derive(Debug, Default)]
struct Hosts {
    exact: HashMap<String, Vec<(Option<u16>, RouteIndex)>>,
    /// By the domain after `*.`.
    wildcard: HashMap<String, Vec<(Option<u16>, RouteIndex)>>,
    any_host: Option<RouteIndex>,
}

impl Matcher {
    pub(super) fn new(routes: &[Route]) -> Self {
        let mut matcher = Self::default();
        for route in routes.iter().filter(|route| route.leads()) {
            let PrefixSegments { segments, slash } = PrefixSegments::of(&route.prefix);
            let mut node = &mut matcher.root;
            for segment in segments {
                node = node.children.get_or_insert(segment);
            }
            let hosts = if slash { &mut node.with_slash } else { &mut node.exact };
            hosts.add(route);
            matcher.by_host |= !route.hosts.is_empty();
        }
        matcher
    }

    /// Returns the route of a request, if every reading of its path leads there.
    ///
    /// In each reading, the longest prefix wins. If the prefix of the route that matches the path as written has several
    /// readings itself (`/a%2Fb`), it is read like the path.
    ///
    /// # Errors
    /// [`PathError::Ambiguous`] if readings lead to different routes, or only some of them to a route.
    pub(super) fn find(
        &self,
        authority: &[u8],
        path: &SafePath<'_>,
        routes: &[Route],
    ) -> Result<Option<RouteIndex>, PathError> {
        let mut buffer = [0; NAME_MAX];
        let host = self.host(authority, &mut buffer);
        let written = self.find_as_written(host.as_ref(), path.path());
        if path.spelling().is_plain() || self.root.children.is_empty() {
            return Ok(written);
        }
        let prefix = written.and_then(|route| routes.get(route)).map_or("", |route| route.prefix.as_str());
        let agrees = |reading: Reading| {
            let read = self.find_as_read(host.as_ref(), path.path(), reading);
            read.map(|found| found.route) == written
                || written.is_some() && prefix_rank(prefix, reading) > read.map_or(0, |found| found.rank)
        };
        // The first reading is the one as written.
        if path.spelling().readings().skip(1).all(agrees) { Ok(written) } else { Err(PathError::Ambiguous) }
    }

    /// Returns a route that an upstream may see in a path that [`SafePath`] rejects: in any reading, with dot segments
    /// resolved or not. A target that is not a path is read as `/`.
    pub(super) fn find_any(&self, authority: &[u8], path: &[u8]) -> Option<RouteIndex> {
        let mut buffer = [0; NAME_MAX];
        let host = self.host(authority, &mut buffer);
        let path = if path.starts_with(b"/") { path } else { b"/" };
        Spelling::ANY.readings().find_map(|reading| {
            let read = self.find_as_read(host.as_ref(), path, reading).map(|found| found.route);
            read.or_else(|| self.find_resolved(host.as_ref(), path, reading))
        })
    }

    fn host<'b>(&self, authority: &[u8], buffer: &'b mut NameBuffer) -> Option<Authority<'b>> {
        if self.by_host { Authority::parse(authority, buffer) } else { None }
    }

    fn find_as_written(&self, host: Option<&Authority<'_>>, path: &[u8]) -> Option<RouteIndex> {
        let mut node = &self.root;
        let mut at = 0;
        let mut best = node.with_slash.find(host);
        while let Some(rest) = path.get(at + 1..) {
            let segment = rest.split(|b| *b == b'/').next().unwrap_or_default();
            let Some(child) = node.child(segment) else { break };
            node = child;
            at += 1 + segment.len();
            best = node.exact.find(host).or(best);
            if at < path.len() {
                best = node.with_slash.find(host).or(best);
            }
        }
        best
    }

    fn find_as_read(&self, host: Option<&Authority<'_>>, path: &[u8], reading: Reading) -> Option<Found> {
        let mut node = &self.root;
        let mut rank = 1;
        let found = |hosts: &Hosts, rank| hosts.find(host).map(|route| Found { route, rank });
        let mut best = found(&node.with_slash, rank);
        reading.visit_segments(path, &mut |segment, slash_follows| {
            let Some(child) = segment.and_then(|segment| node.children.get(segment)) else { return false };
            node = child;
            rank += 2;
            best = found(&node.exact, rank - 1).or(best);
            if slash_follows {
                best = found(&node.with_slash, rank).or(best);
            }
            !node.children.is_empty()
        });
        best
    }

    /// Finds a route like [`Self::find_as_read`], with dot segments resolved (RFC 3986, 5.2.4).
    fn find_resolved(&self, host: Option<&Authority<'_>>, path: &[u8], reading: Reading) -> Option<RouteIndex> {
        // The nodes of the resolved path's segments; `None` if no prefix has them.
        let mut nodes: Vec<Option<&Node>> = Vec::new();
        let mut ends_in_slash = true;
        reading.visit_segments(path, &mut |segment, slash_follows| {
            ends_in_slash = slash_follows || matches!(segment, Some(b"" | b"." | b".."));
            match segment {
                Some(b"..") => drop(nodes.pop()),
                Some(b".") => {}
                Some(b"") if !slash_follows => {}
                segment => {
                    let parent = nodes.last().copied().unwrap_or(Some(&self.root));
                    nodes.push(parent.zip(segment).and_then(|(parent, segment)| parent.children.get(segment)));
                }
            }
            true
        });
        let last = nodes.len();
        let below = nodes.iter().zip(1..).map_while(|(node, depth)| node.map(|node| (node, depth)));
        let routes = below.flat_map(|(node, depth)| {
            let with_slash = if depth < last || ends_in_slash { node.with_slash.find(host) } else { None };
            [node.exact.find(host), with_slash]
        });
        std::iter::once(self.root.with_slash.find(host)).chain(routes).flatten().last()
    }
}

/// The route of a path in one reading.
#[derive(Clone, Copy)]
struct Found {
    route: RouteIndex,
    /// The length of its prefix: two for each segment, and one for a slash at its end.
    rank: usize,
}

/// Returns the length of a prefix in a reading, as [`Found::rank`] counts it.
fn prefix_rank(prefix: &str, reading: Reading) -> usize {
    let mut rank = 0;
    reading.visit_segments(prefix.as_bytes(), &mut |segment, slash_follows| {
        // The text after a final slash is not a segment.
        rank += if slash_follows || segment != Some(b"") { 2 } else { 1 };
        true
    });
    rank
}

impl Node {
    fn child(&self, segment: &[u8]) -> Option<&Self> {
        if !segment.contains(&b'%') {
            return self.children.get(segment);
        }
        // A segment longer than the longest prefix matches none.
        let mut room = [0; PREFIX_MAX];
        self.children.get(percent::decode_into(segment, &mut room)?)
    }
}

impl Hosts {
    fn add(&mut self, route: &Route) {
        if route.hosts.is_empty() {
            self.any_host = Some(route.index);
        }
        for HostPattern { wildcard, name, port } in &route.hosts {
            let table = if *wildcard { &mut self.wildcard } else { &mut self.exact };
            let routes = table.entry(name.clone()).or_default();
            // A pattern with a port is more exact, so it comes first.
            let at = if port.is_some() { 0 } else { routes.len() };
            routes.insert(at, (*port, route.index));
        }
    }

    fn find(&self, host: Option<&Authority<'_>>) -> Option<RouteIndex> {
        host.and_then(|host| self.find_named(host)).or(self.any_host)
    }

    fn find_named(&self, host: &Authority<'_>) -> Option<RouteIndex> {
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

/// A prefix in the form for comparison: equal for prefixes that match the same paths.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct PrefixSegments {
    /// The segments, decoded.
    segments: Vec<Box<[u8]>>,
    /// `true` if a slash follows the last segment, as it does in `/`.
    slash: bool,
}

impl PrefixSegments {
    pub(super) fn of(prefix: &str) -> Self {
        let (inner, slash) = match prefix.strip_suffix('/') {
            Some(inner) => (inner, true),
            None => (prefix, false),
        };
        let decode = |segment: &str| percent::decode(segment.as_bytes()).into_boxed_slice();
        Self { segments: inner.split('/').skip(1).map(decode).collect(), slash }
    }
}

/// Returns the sort key by which [`Matcher::find`] prefers routes: the length of the prefix, then the exactness of the most
/// exact host.
pub(super) fn precedence(route: &Route) -> impl Ord {
    let PrefixSegments { segments, slash } = PrefixSegments::of(&route.prefix);
    // A name is more exact than a domain, a subdomain than its parent, and either with a port than without.
    let exactness = |host: &HostPattern| (!host.wildcard, host.name.split('.').count(), host.port.is_some());
    let hosts = route.hosts.iter().map(exactness).max();
    (Reverse(segments.len()), segments, Reverse(slash), Reverse(hosts))
}

impl Route {
    /// Returns the part of `path` that matches the route's prefix, as this request spells it (`/%61` for `/a`). It is
    /// removed before the rest is appended to the target's path. `None` if the path does not begin with the prefix, which is
    /// possible for a route that was selected by its name.
    pub fn prefix_in<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        prefix_in(&self.prefix, path)
    }
}

/// Returns the part of `path` that matches `prefix`, as spelled in the path; `None` if the path does not begin with it.
fn prefix_in<'a>(prefix: &str, path: &'a [u8]) -> Option<&'a [u8]> {
    let ends_at_boundary = |at: usize| prefix.ends_with('/') || matches!(path.get(at), None | Some(b'/'));
    if path.starts_with(prefix.as_bytes()) && ends_at_boundary(prefix.len()) {
        return path.get(..prefix.len());
    }
    // In another spelling: as many segments, equal when decoded.
    let PrefixSegments { segments, slash } = PrefixSegments::of(prefix);
    let mut at = 0;
    for expected in segments {
        let segment = path.get(at..)?.strip_prefix(b"/")?.split(|b| *b == b'/').next()?;
        if percent::decode(segment) != *expected {
            return None;
        }
        at += 1 + segment.len();
    }
    if slash {
        at += path.get(at..)?.starts_with(b"/").then_some(1)?;
    }
    path.get(..at)
}
