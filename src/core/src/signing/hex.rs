//! Hexadecimal digits by table.

const LOWER: &[u8; 16] = b"0123456789abcdef";
const UPPER: &[u8; 16] = b"0123456789ABCDEF";

/// The two digits of each byte.
const PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [LOWER[byte >> 4], LOWER[byte & 15]];
        byte += 1;
    }
    pairs
};

/// A SHA-256 digest or an HMAC-SHA-256 tag in lower-case hexadecimal.
pub(super) type HexDigest = [u8; 64];

pub(super) fn encode(digest: &[u8; 32]) -> HexDigest {
    let mut text = [0; 64];
    let (pairs, _) = text.as_chunks_mut();
    for (pair, byte) in pairs.iter_mut().zip(digest) {
        *pair = PAIRS[usize::from(*byte)];
    }
    text
}

/// Returns bytes as lower-case digits.
pub fn lower(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    write(bytes, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// Writes bytes as lower-case digits.
pub(super) fn write(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(bytes.iter().flat_map(|byte| PAIRS[usize::from(*byte)]));
}

/// The percent escape of a byte, in the upper-case digits that AWS asks for.
pub(super) fn escape(byte: u8) -> [u8; 3] {
    [b'%', UPPER[usize::from(byte >> 4)], UPPER[usize::from(byte & 15)]]
}

/// The value of a digit in either case.
pub(super) fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
