//! Signature Version 4 as AWS writes it down, step by step and with no thought of speed. It shares no code with the filter.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub const ACCESS_KEY: &str = "AKIDEXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub const REGION: &str = "us-east-1";
pub const TIME: &str = "20150830T123600Z";
/// The same in seconds since 1970.
pub const SECONDS: u64 = 1_440_938_160;

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

pub fn signing_key(service: &str) -> Vec<u8> {
    let key = hmac(format!("AWS4{SECRET}").as_bytes(), &TIME.as_bytes()[..8]);
    let key = hmac(&key, REGION.as_bytes());
    hmac(&hmac(&key, service.as_bytes()), b"aws4_request")
}

pub fn credential_scope(service: &str) -> String {
    format!("{}/{REGION}/{service}/aws4_request", &TIME[..8])
}

/// What AWS calls UriEncode.
pub fn encode(bytes: &[u8]) -> String {
    let kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    bytes.iter().map(|byte| if kept(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
