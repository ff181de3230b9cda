//! Hexadecimal digits of signatures and URIs.

/// The two digits of each byte. Each signature takes 128 of them, which by table cost a twentieth less instructions of a
/// request than by `base16ct`.
const PAIRS: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    pairs
};

/// A SHA-256 digest or an HMAC-SHA-256 tag in lower-case hexadecimal.
pub(super) type HexDigest = [u8; 64];

/// Returns a digest in lower-case digits.
pub(super) fn encode(digest: &[u8; 32]) -> HexDigest {
    let mut text = [0; 64];
    let (pairs, _) = text.as_chunks_mut();
    for (pair, byte) in pairs.iter_mut().zip(digest) {
        *pair = PAIRS[usize::from(*byte)];
    }
    text
}

/// Returns the percent escape of a byte, in the upper-case digits that AWS asks for.
pub(super) fn escape(byte: u8) -> [u8; 3] {
    let [high, low] = PAIRS[usize::from(byte)];
    [b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]
}

/// Returns the value of a digit in either case.
pub(super) fn digit(byte: u8) -> Option<u32> {
    char::from(byte).to_digit(16)
}
