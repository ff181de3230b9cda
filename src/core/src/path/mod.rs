//! The request's path: checked before anything trusts it, then appended to its target's path.
//!
//! Rejected, and no more than that:
//!
//! - **Dot segments**, in every spelling that an upstream may see after decoding once and cutting where parsers cut: `.` and
//!   `..` written as `%2e`, between `/`, `\`, `%2f` or `%5c`, and followed by `;`, `?`, `#` or NUL, raw or encoded (`/..;x/`
//!   is `/../` to a servlet container). A double encoding (`%252e`) decodes once to a text that is not a dot, and passes.
//! - **Malformed percent escapes** of the path, which parsers read in different ways. A stray `%` in the query is harmless;
//!   the wire form writes it as `%25`.
//! - **Raw control characters**, in path and query. Encoded ones pass: an S3 key may hold any byte.
//! - **Paths that an upstream may read as one of another route.** They depend on the policy, so its matcher rejects them, by
//!   the path's [readings](Spelling::readings).

pub mod percent;
mod reading;

pub use reading::{Reading, SEGMENT_MAX, Spelling};

use percent::{Decode, DecodedByte};

/// The reason for rejecting a request's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A `.` or `..` segment, in any spelling.
    #[error("the path has a dot segment; send it with its `.` and `..` resolved")]
    DotSegment,
    /// A `%` that is not followed by two hexadecimal digits.
    #[error("the path has a `%` that is not followed by two hex digits; encode a literal percent sign as %25")]
    MalformedEscape,
    /// A raw byte below 0x20, or 0x7f.
    #[error("the path has a control character; percent-encode it")]
    ControlCharacter,
    /// The path does not begin with `/`: `OPTIONS *`, `CONNECT`, or a full URL.
    #[error("the path must begin with `/`")]
    NotAbsolute,
    /// An upstream may read the path as one of another route, or of none.
    #[error(
        "an upstream may read the path as one of another route; send it without `//`, `;`, `\\`, `#` and the escapes \
         %2F, %5C, %3B, %3F, %23 and %00 in the part that chooses the route"
    )]
    Ambiguous,
}

/// A request's path and query that have passed the checks. Neither is decoded or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SafePath<'a> {
    path: &'a [u8],
    query: Option<&'a [u8]>,
    spelling: Spelling,
}

impl<'a> SafePath<'a> {
    /// Checks an origin-form target (`:path`), split at its first `?`.
    ///
    /// # Errors
    /// The first [`PathError`] met.
    pub fn check(target: &'a [u8]) -> Result<Self, PathError> {
        if target.first() != Some(&b'/') {
            return Err(PathError::NotAbsolute);
        }
        let mut parts = target.splitn(2, |&byte| byte == b'?');
        let path = parts.next().unwrap_or_default();
        let query = parts.next();
        let spelling = check_segments(path)?;
        if query.is_some_and(|query| query.iter().any(u8::is_ascii_control)) {
            return Err(PathError::ControlCharacter);
        }
        Ok(Self { path, query, spelling })
    }

    /// Returns the path, from its first `/` up to the query.
    pub fn path(&self) -> &'a [u8] {
        self.path
    }

    /// Returns what follows the first `?`, or `None` if there is none.
    pub fn query(&self) -> Option<&'a [u8]> {
        self.query
    }

    /// Returns the parts of the path that upstreams read in different ways.
    pub fn spelling(&self) -> Spelling {
        self.spelling
    }
}

/// Writes the upstream's path into `joined`, replacing its content: removes `prefix` from `path`, and appends the rest to
/// the target's path as written. The query does not change.
///
/// The rest of a path under the prefix `/` is the whole path. A path that does not begin with the prefix (Envoy's route
/// metadata selected its route) is appended whole. If nothing is left, the path is `/`.
pub fn join(target_path: &[u8], prefix: &[u8], path: &SafePath<'_>, joined: &mut Vec<u8>) {
    let rest = match prefix {
        b"/" => path.path,
        _ => path.path.strip_prefix(prefix).unwrap_or(path.path),
    };
    joined.clear();
    joined.extend_from_slice(target_path);
    joined.extend_from_slice(rest);
    if joined.is_empty() {
        joined.push(b'/');
    }
}

/// The part of a path segment that has been read.
#[derive(Clone, Copy, PartialEq)]
enum Segment {
    Empty,
    OneDot,
    TwoDots,
    Name,
}

/// Checks a path whose first byte is `/`, and returns its spelling.
fn check_segments(path: &[u8]) -> Result<Spelling, PathError> {
    let mut spelling = Spelling::default();
    let mut segment = Segment::Empty;
    let bytes = Decode::new(path.get(1..).unwrap_or_default());
    for DecodedByte { value, escaped } in bytes {
        if !escaped && value == b'%' {
            return Err(PathError::MalformedEscape);
        }
        if !escaped && value.is_ascii_control() {
            return Err(PathError::ControlCharacter);
        }
        let is_slash = matches!(value, b'/' | b'\\');
        if is_slash || reading::ends_name(value) {
            match segment {
                Segment::OneDot | Segment::TwoDots => return Err(PathError::DotSegment),
                Segment::Empty => spelling.empty_segment = true,
                Segment::Name => {}
            }
            spelling.encoded_slash |= escaped && value == b'/';
            spelling.backslash |= value == b'\\';
            spelling.parameters |= !is_slash;
        }
        segment = match value {
            _ if is_slash => Segment::Empty,
            b'.' => match segment {
                Segment::Empty => Segment::OneDot,
                Segment::OneDot => Segment::TwoDots,
                Segment::TwoDots | Segment::Name => Segment::Name,
            },
            _ => Segment::Name,
        };
    }
    match segment {
        Segment::OneDot | Segment::TwoDots => Err(PathError::DotSegment),
        Segment::Empty | Segment::Name => Ok(spelling),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn joined(target_path: &str, prefix: &str, path: &str) -> String {
        let mut out = b"what an earlier request left".to_vec();
        join(target_path.as_bytes(), prefix.as_bytes(), &SafePath::check(path.as_bytes()).unwrap(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_rest_is_appended_to_the_targets_path_as_written() {
        assert_eq!(joined("/p", "/a", "/a"), "/p");
        assert_eq!(joined("/p", "/a", "/a/"), "/p/");
        assert_eq!(joined("/p", "/a", "/a/b?x=1"), "/p/b");
        assert_eq!(joined("/p", "/a", "/a//b%2Fc"), "/p//b%2Fc");
        assert_eq!(joined("", "/a", "/a"), "/");
        assert_eq!(joined("", "/a", "/a/"), "/");
        assert_eq!(joined("", "/", "/a"), "/a");
        assert_eq!(joined("/p", "/", "/a"), "/p/a");
        assert_eq!(joined("/p/", "/a/", "/a/b"), "/p/b");
        assert_eq!(joined("/p", "/named/by/metadata", "/b"), "/p/b");
    }

    #[test]
    fn the_query_begins_at_the_first_question_mark() {
        let path = SafePath::check(b"/a?b=..?c").unwrap();
        assert_eq!((path.path(), path.query()), (&b"/a"[..], Some(&b"b=..?c"[..])));
        assert_eq!(SafePath::check(b"/a?").unwrap().query(), Some(&b""[..]));
        assert_eq!(SafePath::check(b"/a").unwrap().query(), None);
    }

    #[test]
    fn dot_segments_are_refused_in_every_spelling() {
        for path in [
            "/..",
            "/.",
            "/../",
            "/./",
            "/a/..",
            "/a/../b",
            "/a/./b",
            "/%2e%2e",
            "/%2E.",
            "/.%2e/",
            "/%2e",
            "/a%2f..",
            "/a%2F%2e%2E%2fb",
            "/a%5c..%5cb",
            "/a\\..\\b",
            "/..\\",
            "/..;",
            "/..;x=1/b",
            "/..%3bx/b",
            "/.;/b",
            "/..%00/b",
            "/..%3fx",
            "/..#x",
            "/..%23x",
            "/..?x",
        ] {
            assert_eq!(SafePath::check(path.as_bytes()), Err(PathError::DotSegment), "{path}");
        }
    }

    #[test]
    fn what_only_looks_like_a_dot_segment_passes() {
        for path in [
            "/...",
            "/.well-known",
            "/a..b",
            "/..a",
            "/a..",
            "/a;..",
            "/%252e%252e",
            "/a%2Fb",
            "/a%5Cb",
            "/a\\b",
            "/a%00b",
            "/a%0d%0ab",
            "/\u{fc}",
            "//",
            "/?/../",
        ] {
            assert!(SafePath::check(path.as_bytes()).is_ok(), "{path}");
        }
    }

    #[test]
    fn what_two_parsers_would_read_in_two_ways_is_refused() {
        for path in ["/%", "/a%2", "/%zz", "/%u002e", "/%%", "/%+1", "/a%2/"] {
            assert_eq!(SafePath::check(path.as_bytes()), Err(PathError::MalformedEscape), "{path}");
        }
        for path in ["/a\0", "/a\r\nb", "/\t", "/\x7f", "/a?b\n"] {
            assert_eq!(SafePath::check(path.as_bytes()), Err(PathError::ControlCharacter), "{path:?}");
        }
        for path in ["", "*", "a/b", "https://h/p", "?a"] {
            assert_eq!(SafePath::check(path.as_bytes()), Err(PathError::NotAbsolute), "{path}");
        }
    }

    /// Decodes escapes once, as an upstream may.
    fn decoded_once(path: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = path;
        while let Some((&byte, tail)) = rest.split_first() {
            let escape = if byte == b'%' { tail.get(..2) } else { None };
            match escape.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
                Some(decoded) => {
                    out.push(decoded);
                    rest = &tail[2..];
                }
                None => {
                    out.push(byte);
                    rest = tail;
                }
            }
        }
        out
    }

    proptest! {
        /// Checks that no accepted path has a dot segment, neither as written nor decoded once.
        #[test]
        fn no_path_leaves_its_target(path in "/([./\\\\;?#a]|%2[eEfF]|%5[cC]|%3[bBfF]|%00|%25){0,12}") {
            if let Ok(safe) = SafePath::check(path.as_bytes()) {
                for seen in [safe.path().to_vec(), decoded_once(safe.path())] {
                    for segment in seen.split(|b| matches!(b, b'/' | b'\\')) {
                        let name = segment.split(|b| matches!(b, b';' | b'?' | b'#' | 0)).next().unwrap();
                        prop_assert!(name != b"." && name != b"..", "{path}");
                    }
                }
            }
        }

        #[test]
        fn no_bytes_panic(target in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = SafePath::check(&target);
        }
    }
}
