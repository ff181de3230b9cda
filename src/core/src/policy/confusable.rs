//! Prefixes that an upstream may confuse.
//!
//! A request's path is looked up in each way that an upstream may read it, and a prefix such as `/a%2Fb` has several
//! readings itself: to some upstreams `/a/b/key` is one of its paths, whatever route the policy gives it. So a prefix with
//! several readings conflicts with one that it begins with, or that begins with it, in one of them.

use super::authority::HostPattern;
use crate::path::{Reading, SafePath, Spelling};

/// Returns the indices of two routes whose prefixes an upstream may confuse. The first one's prefix has several readings.
pub(super) fn confusable(routes: &[(&str, &[HostPattern])]) -> Option<(usize, usize)> {
    let spelled: Vec<usize> = routes
        .iter()
        .zip(0..)
        .filter(|((prefix, _), _)| has_several_readings(prefix))
        .map(|(_, place)| place)
        .collect();
    if spelled.is_empty() {
        return None;
    }
    Spelling::ANY.readings().find_map(|reading| {
        let read: Vec<Vec<u8>> = routes.iter().map(|(prefix, _)| segments(prefix, reading)).collect();
        spelled.iter().find_map(|&one| {
            let meets = |other: usize| {
                (read[one].starts_with(&read[other]) || read[other].starts_with(&read[one]))
                    && routes[one].0 != routes[other].0
                    && share_a_host(routes[one].1, routes[other].1)
            };
            (0..read.len()).find(|&other| meets(other)).map(|other| (one, other))
        })
    })
}

fn share_a_host(some: &[HostPattern], others: &[HostPattern]) -> bool {
    some.is_empty() || others.is_empty() || some.iter().any(|host| others.iter().any(|other| host.overlaps(other)))
}

fn has_several_readings(prefix: &str) -> bool {
    SafePath::check(prefix.as_bytes()).is_ok_and(|path| !path.spelling().is_plain())
}

/// Returns a prefix's segments, each after its length, so that a comparison of bytes compares whole segments.
fn segments(prefix: &str, reading: Reading) -> Vec<u8> {
    let mut segments = Vec::new();
    reading.visit_segments(prefix.as_bytes(), &mut |segment, slash_follows| {
        let segment = segment.unwrap_or_default();
        // The text after a final slash is not a segment.
        if slash_follows || !segment.is_empty() {
            segments.extend_from_slice(&segment.len().to_be_bytes());
            segments.extend_from_slice(segment);
        }
        true
    });
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds the confusable prefixes of routes for every host.
    fn confusable_prefixes(prefixes: &[&str]) -> Option<(usize, usize)> {
        confusable(&prefixes.iter().map(|prefix| (*prefix, &[][..])).collect::<Vec<_>>())
    }

    #[test]
    fn a_prefix_with_several_readings_stands_alone_below_and_above_them() {
        for (prefix, other) in [
            ("/a%2Fb", "/"),
            ("/a%2Fb", "/a"),
            ("/a%2fb", "/a/b"),
            ("/a%2Fb", "/a/b/c"),
            ("/a%5Cb", "/a/"),
            ("/private;v=1", "/private"),
            ("/private%3Bv", "/"),
            ("/a//b", "/a"),
            ("//", "/x"),
            ("/a%00", "/a/b"),
        ] {
            assert_eq!(confusable_prefixes(&[prefix, other]), Some((0, 1)), "{prefix} {other}");
            assert_eq!(confusable_prefixes(&[other, prefix]), Some((1, 0)), "{prefix} {other}");
        }
        assert_eq!(confusable_prefixes(&["/a%2Fb", "/a;x"]), Some((0, 1)));
    }

    #[test]
    fn prefixes_that_no_reading_brings_together_stand_side_by_side() {
        for prefixes in [
            &["/", "/a", "/a/b", "/%61/", "/a.b"][..],
            &["/a%2Fb", "/b", "/ab", "/x/a"],
            &["/a%2Fb", "/a/c", "/a%2Fb"],
            &["/a//b", "/b/a"],
        ] {
            assert_eq!(confusable_prefixes(prefixes), None, "{prefixes:?}");
        }
    }

    #[test]
    fn prefixes_of_hosts_that_never_meet_stand_side_by_side() {
        for (one, other, meet) in [
            ("x.example", "y.example", false),
            ("x.example", "x.example", true),
            ("x.example:80", "x.example:81", false),
            ("x.example:80", "x.example", true),
            ("*.example", "x.example", true),
            ("*.example", "example", false),
            ("*.example", "x.notexample", false),
            ("*.example", "*.b.example", true),
            ("*.example", "*.example", true),
            ("*.a.example", "*.b.example", false),
        ] {
            let host = |written| [HostPattern::parse(written).unwrap()];
            let (one, other) = (host(one), host(other));
            assert_eq!(one[0].overlaps(&other[0]), meet, "{one:?} {other:?}");
            assert_eq!(other[0].overlaps(&one[0]), meet, "{one:?} {other:?}");
            let found = confusable(&[("/a%2Fb", &one), ("/a", &other)]);
            assert_eq!(found.is_some(), meet, "{one:?} {other:?}");
        }
    }
}
