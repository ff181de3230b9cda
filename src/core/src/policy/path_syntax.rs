//! Paths in a policy: the prefixes of routes and the paths of targets.

use crate::path::percent::escaped_byte;
use crate::path::{PathError, SafePath};

/// Checks a path, empty or absolute, that is sent as written.
///
/// # Errors
/// Names the defect and the fix, for the policy's author.
pub(super) fn check(path: &str) -> Result<(), String> {
    for (at, c) in path.char_indices() {
        match c {
            '%' if escaped_byte(path.as_bytes().get(at + 1..).unwrap_or_default()).is_none() => {
                return Err("a % must be followed by two hex digits; encode a literal percent sign as %25".to_owned());
            }
            '%' => {}
            '\\' => return Err("a backslash is not allowed in a path; use / or %5C".to_owned()),
            // RFC 3986, 3.3: the characters that a path may have unescaped.
            'a'..='z' | 'A'..='Z' | '0'..='9' | '/' => {}
            '-' | '.' | '_' | '~' | '!' | '$' | '&' | '\'' | '(' | ')' | '*' | '+' | ',' | ';' | '=' | ':' | '@' => {}
            _ => {
                let mut utf8 = [0; 4];
                let escaped: String = c.encode_utf8(&mut utf8).bytes().map(|b| format!("%{b:02X}")).collect();
                return Err(format!("{c:?} is not allowed in a path; use {escaped}"));
            }
        }
    }
    match SafePath::check(path.as_bytes()) {
        Err(PathError::DotSegment) => {
            Err("dot segments (. and ..) are rejected in every spelling; resolve them".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_are_seen_in_every_spelling() {
        for path in ["/..", "/a/../b", "/%2e%2E/b", "/a%2f..%2fb", "/a%5c.%5cb", "/.", "/..;x/b"] {
            assert!(check(path).unwrap_err().starts_with("dot segments"), "{path}");
        }
        assert_eq!(check("/...//.a/b..c/%252e%252e/x%2Fy"), Ok(()));
    }
}
