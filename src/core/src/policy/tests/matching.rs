//! Matching compared with the simplest implementation of its rules.

use std::collections::HashSet;

use proptest::prelude::*;

use crate::path::SafePath;
use crate::policy::{Policy, Route};

/// Generates segments from a small set, so that prefixes and paths match.
fn segment() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => Just("a"), 3 => Just("b"), 1 => Just(""), 1 => Just("ab"), 1 => Just("%61"), 1 => Just("a%2Fb"), 1 => Just("%C3%BC"),
    ]
}

/// Generates a prefix with one reading: those with several conflict with most others.
fn prefix() -> impl Strategy<Value = String> {
    let segment = segment().prop_filter("several readings", |segment| !matches!(*segment, "" | "a%2Fb"));
    let segments = prop::collection::vec(segment, 0..4);
    (segments, prop::bool::weighted(0.2)).prop_map(|(segments, slash)| match segments[..] {
        [] => "/".to_owned(),
        _ => format!("/{}{}", segments.join("/"), if slash { "/" } else { "" }),
    })
}

/// Generates a path, also in spellings that a policy may not have.
fn path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![8 => segment(), 1 => Just("%"), 1 => Just("ü"), 1 => Just("%c3%bc")];
    prop::collection::vec(segment, 1..6).prop_map(|segments| format!("/{}", segments.join("/")))
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..4).prop_map(|labels| labels.join("."))
}

fn port() -> impl Strategy<Value = &'static str> {
    prop_oneof![3 => Just(""), 1 => Just(":80"), 1 => Just(":8080")]
}

fn host() -> impl Strategy<Value = String> {
    (prop::bool::ANY, name(), port())
        .prop_map(|(star, name, port)| format!("{}{name}{port}", if star { "*." } else { "" }))
}

fn authority() -> impl Strategy<Value = String> {
    let odd =
        prop_oneof![Just(""), Just("."), Just(":80"), Just("a..b"), Just("x@a.b"), Just("a.b:80:80"), Just("a/b.c")];
    prop_oneof![
        8 => (name(), prop_oneof![4 => Just(""), 1 => Just(".")], port()).prop_map(|(name, dot, port)| format!("{name}{dot}{port}")),
        1 => name().prop_map(|name| name.to_uppercase()),
        1 => odd.prop_map(str::to_owned),
    ]
}

/// Generates prefixes with their hosts, such that no two routes match the same requests.
fn routes() -> impl Strategy<Value = Vec<(String, Vec<String>)>> {
    prop::collection::vec((prefix(), prop::collection::vec(host(), 0..3)), 1..12).prop_map(|routes| {
        let mut taken = HashSet::new();
        let mut distinct = Vec::new();
        for (prefix, hosts) in routes {
            let mut take = |host: Option<&String>| taken.insert((decoded_segments(&prefix), host.cloned()));
            let any_host = hosts.is_empty() && take(None);
            let hosts: Vec<String> = hosts.into_iter().filter(|host| take(Some(host))).collect();
            if any_host || !hosts.is_empty() {
                distinct.push((prefix, hosts));
            }
        }
        distinct
    })
}

/// Returns the policy in its list form; the target ends in a slash so that every prefix may.
fn policy(routes: &[(String, Vec<String>)]) -> Policy {
    let routes: Vec<serde_json::Value> = routes
        .iter()
        .map(|(prefix, hosts)| {
            let mut route = serde_json::json!({"prefix": prefix, "target": "https://sqs.eu-west-1.amazonaws.com/p/"});
            if !hosts.is_empty() {
                route["hosts"] = serde_json::json!(hosts);
            }
            route
        })
        .collect();
    Policy::from_json(serde_json::json!({ "routes": routes }).to_string().as_bytes()).unwrap()
}

fn decoded_segments(path: &str) -> Vec<Vec<u8>> {
    path.split('/').map(|segment| percent_decode(segment.as_bytes())).collect()
}

fn percent_decode(text: &[u8]) -> Vec<u8> {
    match text {
        [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
            let digits = [*high, *low];
            let byte = u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap();
            [vec![byte], percent_decode(rest)].concat()
        }
        [byte, rest @ ..] => [vec![*byte], percent_decode(rest)].concat(),
        [] => Vec::new(),
    }
}

/// Returns the length of a prefix that the path begins with: two for each segment, and one for a trailing slash.
fn prefix_rank(prefix: &str, path: &str) -> Option<usize> {
    let (prefix, path) = (decoded_segments(prefix), decoded_segments(path));
    let (last, whole) = prefix.split_last()?;
    match last.is_empty() {
        true => (path.len() > whole.len() && path.starts_with(whole)).then_some(2 * whole.len() + 1),
        false => path.starts_with(&prefix).then_some(2 * prefix.len()),
    }
}

/// Returns how exactly hosts match an authority: a name before a domain, a longer domain before a shorter one, one with a
/// port before one without. A route without hosts matches least.
fn host_rank(hosts: &[String], authority: &str) -> Option<(usize, usize, bool)> {
    if hosts.is_empty() {
        return Some((0, 0, false));
    }
    let (name, port) = authority.split_once(':').map_or((authority, None), |(name, port)| (name, Some(port)));
    let name = name.strip_suffix('.').unwrap_or(name).to_lowercase();
    if name.split('.').any(|label| label.is_empty() || !label.bytes().all(|b| b.is_ascii_alphanumeric()))
        || port.is_some_and(|port| port.parse::<u16>().is_err())
    {
        return None;
    }
    let rank = |pattern: &String| {
        let (wanted, wanted_port) =
            pattern.split_once(':').map_or((&**pattern, None), |(name, port)| (name, Some(port)));
        if wanted_port.is_some() && wanted_port != port {
            return None;
        }
        match wanted.strip_prefix("*.") {
            Some(domain) => name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')).then_some((
                1,
                domain.len(),
                wanted_port.is_some(),
            )),
            None => (name == wanted).then_some((2, 0, wanted_port.is_some())),
        }
    };
    hosts.iter().filter_map(rank).max()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_match_is_the_longest_prefix_and_then_the_most_exact_host(
        routes in routes(),
        requests in prop::collection::vec((authority(), path()), 1..20),
    ) {
        let policy = policy(&routes);
        for (authority, path) in requests {
            let rank = |route: &Route| {
                let hosts: Vec<String> = route.hosts.iter().map(ToString::to_string).collect();
                Some((prefix_rank(&route.prefix, &path)?, host_rank(&hosts, &authority)?))
            };
            let best = policy.routes().iter().filter_map(|route| Some((rank(route)?, route.index))).max();
            let Ok(path_sent) = SafePath::check(path.as_bytes()) else { continue };
            // Paths with several readings have their own oracle in tests/whole_routes.rs.
            let Ok(found) = policy.find(authority.as_bytes(), &path_sent) else { continue };
            prop_assert_eq!(found.map(|route| route.index), best.map(|(_, index)| index), "{} {}", authority, path);
            if let Some(route) = found {
                let prefix = route.prefix_in(path.as_bytes()).expect("a path that was matched begins with the prefix");
                prop_assert_eq!(percent_decode(prefix), percent_decode(route.prefix.as_bytes()));
                prop_assert!(path.as_bytes().starts_with(prefix));
            }
        }
    }

    #[test]
    fn no_bytes_make_matching_panic(authority: Vec<u8>, path: Vec<u8>, routes in routes()) {
        let path = [b"/".as_slice(), &path].concat();
        let policy = policy(&routes);
        let _ = policy.find_any(&authority, &path);
        if let Ok(safe) = SafePath::check(&path)
            && let Ok(Some(route)) = policy.find(&authority, &safe)
        {
            prop_assert!(route.prefix_in(safe.path()).is_some());
        }
    }
}
