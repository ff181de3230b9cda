//! Random policies and hostile paths, the whole way: the path is checked, a route found, the path joined and its wire form
//! written. Whatever route takes a request, no upstream may read what is sent as a path outside of that route's target.

#[path = "oracle/upstream.rs"]
mod upstream;

use std::collections::HashSet;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use sigv4_core::path::{self, SafePath};
use sigv4_core::policy::{Policy, Route};
use sigv4_core::signing::{UriStyle, WireUri};

use upstream::{decode_once, may_leave, splits};

const STYLES: [UriStyle; 3] = [UriStyle::Standard, UriStyle::S3, UriStyle::S3Control];

/// The segments of prefixes and targets. Some are spellings of one another.
const SEGMENTS: [&str; 14] =
    ["a", "%61", "b", "ab", "", "a%2Fb", "a%2fb", "..a", "a..", "%252e%252e", "a;b", "a%3Bb", "%5Ca", "\u{25}00"];

/// The pieces of hostile paths.
const PIECES: [&[u8]; 34] = [
    b"/",
    b"//",
    b"%2f",
    b"%2F",
    b"%5c",
    b"%5C",
    b"\\",
    b".",
    b"..",
    b"/..",
    b"/../",
    b"%2e",
    b"%2E%2e",
    b"%252e",
    b"%252f",
    b";",
    b";x=1",
    b"%3b",
    b"%00",
    b"%3f",
    b"%23",
    b"#",
    b"a",
    b"b",
    b"%61",
    b"\xc3\xa9",
    b"%c0%ae",
    b"\xff",
    b"%",
    b"%2",
    b" ",
    b"+",
    b"%25",
    b"\x7f",
];

fn path_text() -> impl Strategy<Value = String> {
    (prop::collection::vec(select(&SEGMENTS[..]), 0..4), any::<bool>()).prop_map(|(segments, slash)| {
        let path: String = segments.iter().map(|segment| format!("/{segment}")).collect();
        if slash { format!("{path}/") } else { path }
    })
}

fn hosts(most: usize) -> impl Strategy<Value = Option<Vec<&'static str>>> {
    let host = select(vec!["a.example", "a.example:81", "*.example", "*.b.example"]);
    prop::option::weighted(0.3, prop::collection::vec(host, 1..=most))
}

/// Makes a policy that loads, in the list form; what a set of random routes can't have together is left out. A route has so many
/// hosts at most.
fn policies(hosts_of_a_route: usize) -> impl Strategy<Value = Policy> {
    let route = (path_text(), path_text(), hosts(hosts_of_a_route), prop::bool::weighted(0.9));
    prop::collection::vec(route, 1..8).prop_filter_map("no route could be used", |routes| {
        let mut used: Vec<Value> = Vec::new();
        let mut policy = None;
        for (prefix, path, hosts, targeted) in routes {
            let mut route = json!({ "prefix": prefix, "service": "s3", "region": "eu-west-1" });
            if targeted {
                route["target"] = json!(format!("https://h.example{path}"));
            }
            if let Some(hosts) = hosts {
                route["hosts"] = json!(hosts);
            }
            used.push(route);
            match Policy::from_json(json!({ "routes": used }).to_string().as_bytes()) {
                Ok(loaded) => policy = Some(loaded),
                Err(_) => drop(used.pop()),
            }
        }
        policy
    })
}

/// Makes a path that often begins as some prefix does, in that spelling or another.
fn hostile_paths() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        12 => select(&PIECES[..]).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 1..3),
    ];
    let query = prop::option::weighted(0.2, select(vec!["?", "?a=/../b", "?x#y", "?%"]));
    (path_text(), prop::collection::vec(piece, 0..7), query).prop_map(|(beginning, pieces, query)| {
        [b"/", beginning.trim_start_matches('/').as_bytes(), &pieces.concat(), query.unwrap_or_default().as_bytes()]
            .concat()
    })
}

/// Returns the path and query that are sent, as the filter writes them.
fn sent(route: &Route, path: &SafePath<'_>, style: UriStyle) -> (Vec<u8>, WireUri) {
    let mut joined = Vec::new();
    match &route.target {
        Some(target) => {
            let prefix = route.prefix_in(path.path()).unwrap_or_default();
            path::join(target.path.as_bytes(), prefix, path, &mut joined);
        }
        None => joined.extend_from_slice(path.path()),
    }
    let mut uri = WireUri::default();
    uri.set(style, &joined, path.query());
    (joined, uri)
}

/// Returns the length of a route's prefix, two for a segment and one for a slash at its end; `None` if it does not take the path.
fn prefix_rank(prefix: &[Vec<u8>], path: &[Vec<u8>]) -> Option<usize> {
    match prefix.split_last() {
        Some((last, before)) if last.is_empty() => {
            (path.len() > before.len() && path.starts_with(before)).then_some(2 * before.len() + 1)
        }
        _ => path.starts_with(prefix).then_some(2 * prefix.len()),
    }
}

/// Returns whether a route takes requests for a host.
fn takes_host(route: &Route, (name, port): (&str, u16)) -> bool {
    route.hosts.is_empty()
        || route.hosts.iter().any(|host| {
            let host = host.to_string();
            let (host, wanted_port) = host.split_once(':').unwrap_or((&host, ""));
            let by_name = match host.strip_prefix('*') {
                Some(domain) => name.ends_with(domain),
                None => name == host,
            };
            by_name && (wanted_port.is_empty() || wanted_port == port.to_string())
        })
}

/// Returns the route of a path in every reading, found without the matcher; `Err` if they differ.
fn expected<'p>(policy: &'p Policy, host: (&str, u16), path: &[u8]) -> Result<Option<&'p Route>, ()> {
    let splits = splits();
    let as_written = &splits[0];
    let routes: Vec<(&Route, Vec<Vec<u8>>)> = policy
        .routes_by_precedence()
        .into_iter()
        .filter(|route| takes_host(route, host))
        .map(|route| (route, as_written.segments(route.prefix.as_bytes())))
        .collect();
    let find = |segments: &[Vec<u8>]| {
        routes.iter().find_map(|(route, prefix)| Some((route.index, prefix_rank(prefix, segments)?)))
    };
    let written = find(&as_written.segments(path)).map(|(index, _)| &policy.routes()[index]);
    let mut seen = HashSet::new();
    for split in &splits {
        let segments = split.segments(path);
        let read = find(&segments);
        // The prefix of the route that takes the path as written is read like the path.
        let keeps = |route: &Route| {
            let own = prefix_rank(&split.segments(route.prefix.as_bytes()), &segments);
            own.is_some_and(|own| read.is_none_or(|(_, rank)| own > rank))
        };
        let is_new = seen.insert(segments.clone());
        let agrees = || read.map(|(index, _)| index) == written.map(|route| route.index);
        if is_new && !agrees() && !written.is_some_and(keeps) {
            return Err(());
        }
    }
    Ok(written)
}

/// Returns the route that an upstream sees in a path if it reads prefixes as it reads paths.
fn seen_by_upstream<'p>(
    policy: &'p Policy,
    host: (&str, u16),
    path: &[u8],
    split: &upstream::Split,
) -> Option<&'p Route> {
    let segments = split.segments(path);
    let ranked = policy.routes_by_precedence().into_iter().rev().filter(|route| takes_host(route, host));
    ranked
        .max_by_key(|route| prefix_rank(&split.segments(route.prefix.as_bytes()), &segments).map_or(0, |rank| rank + 1))
        .filter(|route| prefix_rank(&split.segments(route.prefix.as_bytes()), &segments).is_some())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_sent_can_be_read_as_a_path_outside_of_its_target(
        policy in policies(2),
        request in hostile_paths(),
        named in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let Ok(path) = SafePath::check(&request) else { return Ok(()) };
        let routes = policy.routes();
        // Envoy's route metadata may name a route whose prefix the path does not have.
        let found = match named {
            Some(index) => Some(&routes[index.index(routes.len())]),
            None => policy.find(b"a.example", &path).unwrap_or_default(),
        };
        let Some(route) = found else { return Ok(()) };
        let target = route.target.as_ref().map_or("", |target| target.path.as_str()).as_bytes();
        for style in STYLES {
            let (joined, uri) = sent(route, &path, style);
            let shown = || format!("{style:?}: {} sent as {}", request.escape_ascii(), uri.as_bytes().escape_ascii());
            prop_assert!(!may_leave(target, &joined), "{}", shown());
            let mut root = WireUri::default();
            root.set(style, target, None);
            prop_assert!(!may_leave(root.path(), uri.path()), "{}", shown());
            // Whoever decodes what is sent finds what was asked for, and where its path ends is no matter of opinion.
            prop_assert_eq!(decode_once(uri.path()), decode_once(&joined), "{}", shown());
            prop_assert!(uri.path().starts_with(b"/"), "{}", shown());
            prop_assert!(!uri.path().iter().any(|byte| b"?#\\".contains(byte)), "{}", shown());
            prop_assert!(uri.as_bytes().iter().all(u8::is_ascii_graphic), "{}", shown());
            prop_assert!(!uri.query().contains(&b'#'), "{}", shown());
            // It is its own wire form: a second hop of this kind would send the same.
            let mut again = WireUri::default();
            again.set(style, uri.path(), Some(uri.query()));
            prop_assert_eq!(again.as_bytes(), uri.as_bytes());
        }
    }

    #[test]
    fn the_route_of_every_reading_is_found_or_the_path_is_refused(
        policy in policies(1),
        request in hostile_paths(),
        name in select(vec!["a.example", "x.b.example", "b.example", "other.test"]),
        port in select(vec![80_u16, 81]),
    ) {
        let Ok(path) = SafePath::check(&request) else { return Ok(()) };
        let found = policy.find(format!("{name}:{port}").as_bytes(), &path);
        let expected = expected(&policy, (name, port), path.path());
        prop_assert_eq!(
            found.map(|route| route.map(|route| &route.name)).map_err(drop),
            expected.map(|route| route.map(|route| &route.name)),
            "{} among {:?}", request.escape_ascii(), policy.routes().iter().map(|route| &route.name).collect::<Vec<_>>()
        );
        let Ok(Some(route)) = found else { return Ok(()) };
        for split in splits() {
            let seen = seen_by_upstream(&policy, (name, port), path.path(), &split);
            prop_assert_eq!(
                seen.map(|seen| &seen.name), Some(&route.name),
                "{} among {:?}", request.escape_ascii(), policy.routes().iter().map(|route| &route.name).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn one_route_alone_takes_every_spelling_under_its_prefix(policy in policies(1), request in hostile_paths()) {
        let Ok(path) = SafePath::check(&request) else { return Ok(()) };
        let [route] = policy.routes() else { return Ok(()) };
        if route.hosts.is_empty() && route.prefix_in(path.path()).is_some() {
            let found = policy.find(b"a.example", &path);
            prop_assert_eq!(found.map(|route| route.is_some()), Ok(true), "{}", request.escape_ascii());
        }
    }
}
