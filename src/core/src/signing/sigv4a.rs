//! SigV4A, the asymmetric form of Signature Version 4: one signature that holds in a set of regions.
//!
//! A P-256 key is derived from the secret access key once and serves on every day, for every region and service. The
//! signature is ECDSA with SHA-256; its nonce is made from the key and the message (RFC 6979), so that no source of random
//! numbers is needed.
//!
//! Sources: IAM User Guide, "Deriving a signing key for SigV4a"; NIST SP 800-108, 5.1 (KDF in counter mode); FIPS 186-5,
//! A.2.2 (candidates that are out of range are rejected).

use hmac::{Hmac, KeyInit, Mac};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};
use secrecy::zeroize::Zeroizing;
use sha2::Sha256;

use crate::credentials::Credentials;

pub(super) const ALGORITHM: &[u8] = b"AWS4-ECDSA-P256-SHA256";

/// The group's order less two.
const ORDER_MINUS_TWO: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x4f,
];

/// A derived key pair.
pub(super) struct AsymmetricKey(SigningKey);

impl AsymmetricKey {
    /// Derives the key of credentials. `None` where 254 candidates in a row are out of range, which no secret will see.
    pub(super) fn derive(credentials: &Credentials) -> Option<Self> {
        let secret = Zeroizing::new([b"AWS4A", credentials.secret_access_key().as_bytes()].concat());
        let hmac = Hmac::<Sha256>::new_from_slice(&secret).ok()?;
        (1..=254).find_map(|counter: u8| {
            let candidate = hmac
                .clone()
                .chain_update(1_u32.to_be_bytes())
                .chain_update(ALGORITHM)
                .chain_update([0])
                .chain_update(credentials.access_key_id())
                .chain_update([counter])
                .chain_update(256_u32.to_be_bytes())
                .finalize();
            let mut scalar: Zeroizing<[u8; 32]> = Zeroizing::new(candidate.into_bytes().into());
            if *scalar > ORDER_MINUS_TWO {
                return None;
            }
            add_one(&mut scalar);
            SigningKey::from_slice(scalar.as_slice()).ok().map(Self)
        })
    }

    /// Writes the signature of a string to sign, DER in hexadecimal. `None` where the message has no nonce, which happens
    /// to one in 2²⁵⁶.
    pub(super) fn sign(&self, string_to_sign: &[u8], signature: &mut Vec<u8>) -> Option<()> {
        let der: DerSignature = self.0.try_sign(string_to_sign).ok()?;
        signature.extend_from_slice(base16ct::lower::encode_string(der.as_bytes()).as_bytes());
        Some(())
    }

    #[cfg(test)]
    pub(super) fn verifying_key(&self) -> &p256::ecdsa::VerifyingKey {
        self.0.verifying_key()
    }
}

/// Adds one to a big-endian number below the group's order, which leaves room for the carry.
fn add_one(number: &mut [u8; 32]) {
    for byte in number.iter_mut().rev() {
        let (sum, carries) = byte.overflowing_add(1);
        *byte = sum;
        if !carries {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::credentials;

    #[test]
    fn the_key_is_the_one_that_the_sdk_derives() {
        for (id, secret) in [("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), ("A", "s"), ("ASIA_1", "ü")]
        {
            let key = AsymmetricKey::derive(&credentials(id, secret)).unwrap();
            let expected = aws_sigv4::sign::v4a::generate_signing_key(id, secret);
            assert_eq!(key.0.to_bytes().as_slice(), expected.as_ref());
            let mut signature = Vec::new();
            key.sign(b"message", &mut signature).unwrap();
            let expected = aws_sigv4::sign::v4a::calculate_signature(expected, b"message");
            assert_eq!(String::from_utf8(signature).unwrap(), expected);
        }
    }

    #[test]
    fn a_carry_runs_through_all_full_bytes() {
        let mut number = [0xff; 32];
        number[0] = 1;
        add_one(&mut number);
        assert_eq!((number[0], &number[1..]), (2, &[0; 31][..]));
    }
}
