//! Prefixes that an upstream may not tell apart.
//!
//! A request's path is looked up in each way that an upstream may read it, and a prefix such as `/a%2Fb` has several
//! readings itself: to some upstreams `/a/b/key` is one of its paths, whatever route the policy gives it. So a prefix
//! with several readings can't stand beside one that it begins with, or that begins with it, in one of them.

use crate::path::{Reading, SafePath, Spelling};

/// Returns the places of two prefixes, the first one with several readings, that an upstream may not tell apart.
pub(super) fn confusable(prefixes: &[&str]) -> Option<(usize, usize)> {
    let spelled: Vec<usize> =
        prefixes.iter().zip(0..).filter(|(prefix, _)| has_several_readings(prefix)).map(|(_, place)| place).collect();
    if spelled.is_empty() {
        return None;
    }
    Spelling::ANY.readings().find_map(|reading| {
        let read: Vec<Vec<u8>> = prefixes.iter().map(|prefix| segments(prefix, reading)).collect();
        spelled.iter().find_map(|&one| {
            let begins = |other: usize| read[one].starts_with(&read[other]) || read[other].starts_with(&read[one]);
            (0..read.len()).find(|&other| prefixes[one] != prefixes[other] && begins(other)).map(|other| (one, other))
        })
    })
}

fn has_several_readings(prefix: &str) -> bool {
    SafePath::check(prefix.as_bytes()).is_ok_and(|path| !path.spelling().is_plain())
}

/// Returns a prefix's segments, each after its length: they begin with those of another prefix if their bytes do.
fn segments(prefix: &str, reading: Reading) -> Vec<u8> {
    let mut segments = Vec::new();
    reading.visit_segments(prefix.as_bytes(), &mut |segment, slash_follows| {
        let segment = segment.unwrap_or_default();
        // What follows a final slash is not a segment.
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
            assert_eq!(confusable(&[prefix, other]), Some((0, 1)), "{prefix} {other}");
            assert_eq!(confusable(&[other, prefix]), Some((1, 0)), "{prefix} {other}");
        }
        assert_eq!(confusable(&["/a%2Fb", "/a;x"]), Some((0, 1)));
    }

    #[test]
    fn prefixes_that_no_reading_brings_together_stand_side_by_side() {
        for prefixes in [
            &["/", "/a", "/a/b", "/%61/", "/a.b"][..],
            &["/a%2Fb", "/b", "/ab", "/x/a"],
            &["/a%2Fb", "/a/c", "/a%2Fb"],
            &["/a//b", "/b/a"],
        ] {
            assert_eq!(confusable(prefixes), None, "{prefixes:?}");
        }
    }
}
