//! The one percent decoder.

/// A byte of a decoded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodedByte {
    /// The decoded byte.
    pub value: u8,
    /// `true` if it was written as an escape.
    pub escaped: bool,
}

/// An iterator that decodes a text once, byte by byte. A `%` that is not followed by two hex digits is literal, not an
/// escape.
#[derive(Debug, Clone)]
pub struct Decode<'a> {
    rest: &'a [u8],
}

impl<'a> Decode<'a> {
    /// Decodes `text` from its beginning.
    pub fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }
}

impl Iterator for Decode<'_> {
    type Item = DecodedByte;

    fn next(&mut self) -> Option<DecodedByte> {
        let (&byte, rest) = self.rest.split_first()?;
        if byte == b'%'
            && let Some(value) = escaped_byte(rest)
        {
            self.rest = rest.get(2..).unwrap_or_default();
            return Some(DecodedByte { value, escaped: true });
        }
        self.rest = rest;
        Some(DecodedByte { value: byte, escaped: false })
    }
}

/// Returns the byte of the two hex digits at the start of `digits`, or `None` if they are not two hex digits.
pub fn escaped_byte(digits: &[u8]) -> Option<u8> {
    match digits {
        [high, low, ..] => {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
        }
        _ => None,
    }
}

/// Decodes a text once.
pub fn decode(text: &[u8]) -> Vec<u8> {
    Decode::new(text).map(|byte| byte.value).collect()
}

/// Decodes a text once, without an allocation. Returns `None` if `room` is too small.
pub fn decode_into<'a>(text: &[u8], room: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut len = 0;
    for byte in Decode::new(text) {
        *room.get_mut(len)? = byte.value;
        len += 1;
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
    fn a_malformed_escape_stands_for_itself() {
        for text in ["%", "%2", "%zz", "%+1", "%u0041", "%%"] {
            assert_eq!(decode(text.as_bytes()), text.as_bytes());
        }
        assert_eq!(decode(b"%%41"), b"%A");
    }
}
