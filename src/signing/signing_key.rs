//! Signing keys, derived once for a day, region and service, and kept with the credentials that they come from.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::time::SystemTime;

use aws_sigv4::sign::v4::generate_signing_key;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::Scope;
use super::hex::{self, HexDigest};
use super::sigv4a::AsymmetricKey;
use crate::credentials::Credentials;

/// How many signing keys are kept for one identity. It needs one for each region and service that it signs for at a time;
/// what is beyond costs a derivation (five HMACs), never more memory.
const CAPACITY: usize = 64;

/// Credentials with the keys that were derived from them. The keys end with the credentials, so a rotated secret can't
/// sign under an old key, nor the other way about.
pub struct SigningCredentials {
    credentials: Credentials,
    keys: RefCell<KeyCache>,
    asymmetric_key: OnceCell<Option<AsymmetricKey>>,
}

impl SigningCredentials {
    /// The credentials.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The signing key for `scope` on the day of `at`, of which `credential_scope` is the text.
    pub(super) fn signing_key(&self, credential_scope: &[u8], at: SystemTime, scope: Scope<&str>) -> SigningKey {
        self.keys.borrow_mut().key(credential_scope, || self.derive(at, scope)).key.clone()
    }

    /// The signature of the string to sign that is `head` and then `tail`. As all requests of a second and a scope have one
    /// head, the HMAC of it is kept.
    pub(super) fn sign(
        &self,
        credential_scope: &[u8],
        at: SystemTime,
        scope: Scope<&str>,
        head: &[u8],
        tail: &[u8],
    ) -> HexDigest {
        self.keys.borrow_mut().key(credential_scope, || self.derive(at, scope)).sign(head, tail)
    }

    /// The key of SigV4A, which serves on every day, for every region and service; `None` where there is none.
    pub(super) fn asymmetric_key(&self) -> Option<&AsymmetricKey> {
        self.asymmetric_key.get_or_init(|| AsymmetricKey::derive(&self.credentials)).as_ref()
    }

    fn derive(&self, at: SystemTime, scope: Scope<&str>) -> SigningKey {
        SigningKey::derive(self.credentials.secret_access_key(), at, scope)
    }
}

impl From<Credentials> for SigningCredentials {
    fn from(credentials: Credentials) -> Self {
        Self { credentials, keys: RefCell::default(), asymmetric_key: OnceCell::new() }
    }
}

impl fmt::Debug for SigningCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningCredentials").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

/// A derived key, as the state of an HMAC that has taken it in: a signature costs the blocks of its message alone.
#[derive(Clone)]
pub(super) struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// Derives the key for the day of `at`, which must lie in a year that a timestamp can hold.
    pub(super) fn derive(secret_access_key: &str, at: SystemTime, scope: Scope<&str>) -> Self {
        let key = generate_signing_key(secret_access_key, at, scope.region, scope.service);
        // HMAC pads its key with zeros to a block; a key that is a block long already can't be refused.
        let mut block = [0; 64];
        for (to, from) in block.iter_mut().zip(key.as_ref()) {
            *to = *from;
        }
        Self(Hmac::new(&block.into()))
    }

    /// The signature of a string to sign.
    pub(super) fn sign(&self, string_to_sign: &[u8]) -> HexDigest {
        Self::finish(self.0.clone(), string_to_sign)
    }

    fn finish(mut hmac: Hmac<Sha256>, rest: &[u8]) -> HexDigest {
        hmac.update(rest);
        hex::encode(&hmac.finalize().into_bytes().into())
    }
}

/// The signing keys of one secret that were used lately, by their credential scope.
#[derive(Default)]
struct KeyCache {
    /// Few: most identities sign for a service or two.
    entries: Vec<ScopedKey>,
    uses: u64,
}

struct ScopedKey {
    credential_scope: Vec<u8>,
    key: SigningKey,
    head: Vec<u8>,
    /// The HMAC that has taken in `head`.
    after_head: Hmac<Sha256>,
    last_use: u64,
}

impl KeyCache {
    /// The key for a credential scope; where it is not held, the one that `derive` gives.
    fn key(&mut self, credential_scope: &[u8], derive: impl FnOnce() -> SigningKey) -> &mut ScopedKey {
        self.uses += 1;
        let held = self.entries.iter().position(|entry| entry.credential_scope == credential_scope);
        let at = held.unwrap_or_else(|| {
            if self.entries.len() == CAPACITY
                && let Some((oldest, _)) = self.entries.iter().enumerate().min_by_key(|(_, entry)| entry.last_use)
            {
                self.entries.swap_remove(oldest);
            }
            let key = derive();
            let after_head = key.0.clone();
            let credential_scope = credential_scope.to_vec();
            self.entries.push(ScopedKey { credential_scope, key, head: Vec::new(), after_head, last_use: 0 });
            self.entries.len() - 1
        });
        let entry = &mut self.entries[at];
        entry.last_use = self.uses;
        entry
    }
}

impl ScopedKey {
    fn sign(&mut self, head: &[u8], tail: &[u8]) -> HexDigest {
        if self.head != head {
            self.head.clear();
            self.head.extend_from_slice(head);
            self.after_head.clone_from(&self.key.0);
            self.after_head.update(head);
        }
        SigningKey::finish(self.after_head.clone(), tail)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_440_938_160)
    }

    fn credentials(secret: &str) -> SigningCredentials {
        Credentials::new("AKIDEXAMPLE", secret.to_owned(), None, None).unwrap().into()
    }

    fn expected(secret: &str, scope: Scope<&str>) -> HexDigest {
        let key = generate_signing_key(secret, at(), scope.region, scope.service);
        aws_sigv4::sign::v4::calculate_signature(key, b"message").into_bytes().try_into().unwrap()
    }

    #[test]
    fn a_cached_key_signs_as_a_fresh_one_wherever_the_head_ends() {
        let scope = Scope { region: "us-east-1", service: "iam" };
        let credentials = credentials("secret");
        for (head, tail) in [("mess", "age"), ("mess", "age"), ("", "message"), ("message", "")] {
            let signature = credentials.sign(b"of today", at(), scope, head.as_bytes(), tail.as_bytes());
            assert_eq!(signature, expected("secret", scope));
        }
        assert_eq!(credentials.signing_key(b"of today", at(), scope).sign(b"message"), expected("secret", scope));
        assert_eq!(credentials.keys.borrow().entries.len(), 1);
    }

    #[test]
    fn every_credential_scope_has_its_own_key() {
        let credentials = credentials("secret");
        let mut signatures = HashSet::new();
        for (day, at) in [("20150830", at()), ("20150831", at() + Duration::from_secs(86_400))] {
            for (region, service) in [("r", "s"), ("rs", "t"), ("r", "t"), ("q", "s")] {
                let text = format!("{day}/{region}/{service}/aws4_request");
                signatures.insert(credentials.sign(text.as_bytes(), at, Scope { region, service }, b"", b"message"));
            }
        }
        assert_eq!(signatures.len(), 8);
    }

    #[test]
    fn the_keys_are_bounded_and_what_is_used_stays() {
        let credentials = credentials("secret");
        let scope = Scope { region: "r", service: "s" };
        for index in 0..3 * CAPACITY {
            credentials.signing_key(b"hot", at(), scope);
            credentials.signing_key(index.to_string().as_bytes(), at(), scope);
            assert!(credentials.keys.borrow().entries.len() <= CAPACITY);
        }
        assert!(credentials.keys.borrow().entries.iter().any(|entry| entry.credential_scope == b"hot"));
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let credentials = credentials("hush");
        credentials.signing_key(b"scope", at(), Scope { region: "r", service: "s" });
        assert!(!format!("{credentials:?}").contains("hush"));
    }
}
