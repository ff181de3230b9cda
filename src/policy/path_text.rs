//! Paths as a policy writes them: the prefixes of routes and the paths of targets.

use crate::path::{PathError, SafePath};

/// Checks a path, empty or absolute, that goes on the wire as written.
///
/// # Errors
/// What is wrong with it and the cure, for the policy's author.
pub(super) fn check(path: &str) -> Result<(), String> {
    for (at, c) in path.char_indices() {
        match c {
            '%' => {
                let digits = path.get(at + 1..at + 3).unwrap_or_default();
                if digits.len() != 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(
                        "a % must be followed by two hexadecimal digits; write a percent sign as %25".to_owned()
                    );
                }
            }
            '\\' => return Err("a backslash has no place in a path; write / or %5C".to_owned()),
            // RFC 3986, 3.3: what may stand in a path as it is.
            'a'..='z' | 'A'..='Z' | '0'..='9' | '/' => {}
            '-' | '.' | '_' | '~' | '!' | '$' | '&' | '\'' | '(' | ')' | '*' | '+' | ',' | ';' | '=' | ':' | '@' => {}
            _ => {
                let mut utf8 = [0; 4];
                let escaped: String = c.encode_utf8(&mut utf8).bytes().map(|b| format!("%{b:02X}")).collect();
                return Err(format!("{c:?} can't stand in a path as it is; write {escaped}"));
            }
        }
    }
    match SafePath::check(path.as_bytes()) {
        Err(PathError::DotSegment) => {
            Err("dot segments (. and ..) are refused in every spelling; resolve them".to_owned())
        }
        _ => Ok(()),
    }
}

/// The bytes that a text with percent escapes stands for; a malformed escape stands for itself.
pub(super) fn decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = vec![0; text.len()];
    let len = decode_into(text, &mut decoded).map_or(0, <[u8]>::len);
    decoded.truncate(len);
    decoded
}

/// [`decode`] without an allocation; `None` where `room` is too small.
pub(super) fn decode_into<'a>(text: &[u8], room: &'a mut [u8]) -> Option<&'a [u8]> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let (mut at, mut len) = (0, 0);
    while let Some(&byte) = text.get(at) {
        let escape = match (byte, digit(text.get(at + 1)), digit(text.get(at + 2))) {
            (b'%', Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        *room.get_mut(len)? = escape.unwrap_or(byte);
        len += 1;
        at += if escape.is_some() { 3 } else { 1 };
    }
    room.get(..len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once() {
        assert_eq!(decode(b"/%61%2Fb%2525%"), b"/a/b%25%");
        assert_eq!(decode_into(b"%61%62", &mut [0; 2]), Some(&b"ab"[..]));
        assert_eq!(decode_into(b"%61%62", &mut [0; 1]), None);
    }

    #[test]
    fn dot_segments_are_seen_in_every_spelling() {
        for path in ["/..", "/a/../b", "/%2e%2E/b", "/a%2f..%2fb", "/a%5c.%5cb", "/.", "/..;x/b"] {
            assert!(check(path).unwrap_err().starts_with("dot segments"), "{path}");
        }
        assert_eq!(check("/...//.a/b..c/%252e%252e/x%2Fy"), Ok(()));
    }
}
