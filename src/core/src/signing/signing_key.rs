//! Signing keys, derived once for a day, region and service, and cached with their credentials.

use std::cell::{OnceCell, RefCell, RefMut};
use std::fmt;
use std::time::SystemTime;

use aws_sigv4::sign::v4::generate_signing_key;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::canonical_request::CanonicalRequest;
use super::hex::{self, HexDigest};
use super::prefix_hash::PrefixHashCache;
use super::sigv4a::AsymmetricKey;
use super::timestamp::Timestamp;
use super::{Algorithm, Scope};
use crate::credentials::Credentials;

/// The most signing keys cached for one identity, which needs one for each region and service in use. A cache miss costs a
/// derivation (five HMACs).
const CAPACITY: usize = 64;

/// Credentials with the keys derived from them. They are dropped together, so a key never signs for other credentials than
/// its own.
pub struct SigningCredentials {
    credentials: Credentials,
    keys: RefCell<KeyCache>,
    asymmetric_key: OnceCell<Option<AsymmetricKey>>,
}

impl SigningCredentials {
    /// Returns the credentials.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Returns the key that signs for `scope` at `at`, of which `timestamp` is the text. `None` if SigV4A finds no key.
    pub(super) fn key(
        &self,
        algorithm: Algorithm<&str>,
        scope: Scope<&str>,
        at: SystemTime,
        timestamp: Timestamp,
    ) -> Option<Key<'_>> {
        let access_key_id = self.credentials.access_key_id();
        Some(match algorithm {
            Algorithm::SigV4 => {
                let derive = || SigningKey::derive(self.credentials.secret_access_key(), at, scope);
                let mut key = RefMut::map(self.keys.borrow_mut(), |keys| keys.get(timestamp.day(), scope, derive));
                key.prepare(access_key_id, timestamp);
                Key::Symmetric(key)
            }
            Algorithm::SigV4a { .. } => {
                let mut second_parts = SecondParts::default();
                second_parts.write(algorithm, access_key_id, scope, timestamp);
                Key::Asymmetric(self.asymmetric_key()?, second_parts)
            }
        })
    }

    /// Returns the key of SigV4A, which is valid for every day, region and service; `None` if there is none.
    pub(super) fn asymmetric_key(&self) -> Option<&AsymmetricKey> {
        self.asymmetric_key.get_or_init(|| AsymmetricKey::derive(&self.credentials)).as_ref()
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

/// A key for the requests of one scope and second.
pub(super) enum Key<'a> {
    Symmetric(RefMut<'a, ScopedKey>),
    Asymmetric(&'a AsymmetricKey, SecondParts),
}

impl Key<'_> {
    /// Returns the text that these requests share.
    pub(super) fn second_parts(&self) -> &SecondParts {
        match self {
            Self::Symmetric(key) => &key.second_parts,
            Self::Asymmetric(_, second_parts) => second_parts,
        }
    }

    /// Writes the signature of a request. `None` if SigV4A finds no nonce.
    pub(super) fn sign(&mut self, request: &CanonicalRequest, signature: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Symmetric(key) => {
                let hash = match request.date_and_token() {
                    Some(date_and_token) => key.prefix_hashes.hash(request.text(), date_and_token),
                    None => Sha256::digest(request.text()).into(),
                };
                signature.extend_from_slice(&finish(key.hmac_prefix.clone(), &hex::encode(&hash)));
                Some(())
            }
            Self::Asymmetric(key, second_parts) => {
                let hash = hex::encode(&Sha256::digest(request.text()).into());
                key.sign(&[&second_parts.string_to_sign_head[..], &hash].concat(), signature)
            }
        }
    }
}

/// The text shared by all requests that are signed in one second for one scope.
#[derive(Default)]
pub(super) struct SecondParts {
    timestamp: Option<Timestamp>,
    /// `20150830/us-east-1/iam/aws4_request`; SigV4A names no region.
    pub(super) credential_scope: Vec<u8>,
    /// The string to sign, up to the hash of the canonical request.
    pub(super) string_to_sign_head: Vec<u8>,
    /// `AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=`
    pub(super) authorization_head: Vec<u8>,
}

impl SecondParts {
    fn write(
        &mut self,
        algorithm: Algorithm<&str>,
        access_key_id: &str,
        Scope { region, service }: Scope<&str>,
        timestamp: Timestamp,
    ) {
        self.timestamp = Some(timestamp);
        let (region, slash) = match algorithm {
            Algorithm::SigV4 => (region, "/"),
            Algorithm::SigV4a { .. } => ("", ""),
        };
        let (day, algorithm) = (timestamp.day(), algorithm.name());
        let Self { credential_scope, string_to_sign_head, authorization_head, .. } = self;
        let parts = [&day[..], b"/", region.as_bytes(), slash.as_bytes(), service.as_bytes(), b"/aws4_request"];
        write_parts(&parts, credential_scope);
        write_parts(&[algorithm, b"\n", timestamp.as_bytes(), b"\n", credential_scope, b"\n"], string_to_sign_head);
        let id = access_key_id.as_bytes();
        write_parts(&[algorithm, b" Credential=", id, b"/", credential_scope, b", SignedHeaders="], authorization_head);
    }
}

/// A derived key, as the state of an HMAC that has absorbed it: a signature then costs the blocks of its message alone.
#[derive(Clone)]
pub(super) struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// Derives the key for the day of `at`, whose year must fit a timestamp.
    pub(super) fn derive(secret_access_key: &str, at: SystemTime, scope: Scope<&str>) -> Self {
        let key = generate_signing_key(secret_access_key, at, scope.region, scope.service);
        // HMAC pads its key with zeros to a block; a key of a whole block is never rejected.
        let mut block = [0; 64];
        for (to, from) in block.iter_mut().zip(key.as_ref()) {
            *to = *from;
        }
        Self(Hmac::new(&block.into()))
    }

    /// Returns the signature of a string to sign.
    pub(super) fn sign(&self, string_to_sign: &[u8]) -> HexDigest {
        finish(self.0.clone(), string_to_sign)
    }
}

fn finish(mut hmac: Hmac<Sha256>, rest: &[u8]) -> HexDigest {
    hmac.update(rest);
    hex::encode(&hmac.finalize().into_bytes().into())
}

/// The recently used signing keys of one secret.
#[derive(Default)]
struct KeyCache {
    /// A list, because most identities sign for a service or two.
    entries: Vec<ScopedKey>,
    uses: u64,
}

/// The key of a scope and day, with the text shared by the requests of the last second.
pub(super) struct ScopedKey {
    day: [u8; 8],
    scope: Scope,
    key: SigningKey,
    second_parts: SecondParts,
    /// The HMAC that has absorbed the shared part of the string to sign.
    hmac_prefix: Hmac<Sha256>,
    /// The canonical requests of this second. They share date and token.
    prefix_hashes: PrefixHashCache,
    last_use: u64,
}

impl KeyCache {
    /// Returns the key for a scope and day, derived by `derive` on a cache miss.
    fn get(&mut self, day: [u8; 8], scope: Scope<&str>, derive: impl FnOnce() -> SigningKey) -> &mut ScopedKey {
        self.uses += 1;
        let held = self.entries.iter().position(|entry| entry.scope.as_deref() == scope && entry.day == day);
        let at = held.unwrap_or_else(|| {
            if self.entries.len() == CAPACITY
                && let Some((oldest, _)) = self.entries.iter().enumerate().min_by_key(|(_, entry)| entry.last_use)
            {
                self.entries.swap_remove(oldest);
            }
            let key = derive();
            let hmac_prefix = key.0.clone();
            let scope = Scope { region: scope.region.to_owned(), service: scope.service.to_owned() };
            self.entries.push(ScopedKey {
                day,
                scope,
                key,
                second_parts: SecondParts::default(),
                hmac_prefix,
                prefix_hashes: PrefixHashCache::default(),
                last_use: 0,
            });
            self.entries.len() - 1
        });
        let entry = &mut self.entries[at];
        entry.last_use = self.uses;
        entry
    }
}

impl ScopedKey {
    /// Prepares for the requests of a second.
    fn prepare(&mut self, access_key_id: &str, timestamp: Timestamp) {
        if self.second_parts.timestamp != Some(timestamp) {
            self.second_parts.write(Algorithm::SigV4, access_key_id, self.scope.as_deref(), timestamp);
            self.hmac_prefix.clone_from(&self.key.0);
            self.hmac_prefix.update(&self.second_parts.string_to_sign_head);
            self.prefix_hashes.clear();
        }
    }

    /// Returns the key alone, to sign what is not a request.
    pub(super) fn signing_key(&self) -> &SigningKey {
        &self.key
    }
}

/// Replaces the content of `out` with parts, one after another.
pub(super) fn write_parts(parts: &[&[u8]], out: &mut Vec<u8>) {
    out.clear();
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::super::timestamp::Clock;
    use super::super::{UnsignedRequest, WireUri};
    use super::*;
    use crate::test_support;

    fn at() -> SystemTime {
        test_support::at(1_440_938_160)
    }

    fn credentials(secret: &str) -> SigningCredentials {
        test_support::credentials("AKIDEXAMPLE", secret).into()
    }

    const SCOPE: Scope<&str> = Scope { region: "us-east-1", service: "iam" };

    fn canonical_request() -> CanonicalRequest {
        let uri = WireUri::default();
        let request = UnsignedRequest::get(&uri);
        let mut canonical = CanonicalRequest::default();
        canonical.start(&request, []).sort();
        canonical.finish(&request, b"");
        canonical
    }

    fn sign(credentials: &SigningCredentials, scope: Scope<&str>, at: SystemTime) -> Vec<u8> {
        let timestamp = Clock::default().timestamp(at).unwrap();
        let mut signature = Vec::new();
        let mut key = credentials.key(Algorithm::SigV4, scope, at, timestamp).unwrap();
        key.sign(&canonical_request(), &mut signature).unwrap();
        signature
    }

    fn expected(secret: &str, scope: Scope<&str>, at: SystemTime) -> Vec<u8> {
        let timestamp = Clock::default().timestamp(at).unwrap();
        let time = std::str::from_utf8(timestamp.as_bytes()).unwrap();
        let Scope { region, service } = scope;
        let hash = hex::encode(&Sha256::digest(canonical_request().text()).into());
        let hash = std::str::from_utf8(&hash).unwrap();
        let day = &time[..8];
        let string_to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{day}/{region}/{service}/aws4_request\n{hash}");
        let key = generate_signing_key(secret, at, region, service);
        aws_sigv4::sign::v4::calculate_signature(key, string_to_sign.as_bytes()).into_bytes()
    }

    #[test]
    fn a_cached_key_signs_as_a_fresh_one_in_every_second() {
        let credentials = credentials("secret");
        for seconds in [0, 0, 1, 0, 1] {
            let at = at() + Duration::from_secs(seconds);
            assert_eq!(sign(&credentials, SCOPE, at), expected("secret", SCOPE, at));
        }
        assert_eq!(credentials.keys.borrow().entries.len(), 1);
    }

    #[test]
    fn every_scope_and_day_has_its_own_key() {
        let credentials = credentials("secret");
        let mut signatures = HashSet::new();
        for at in [at(), at() + Duration::from_secs(86_400)] {
            for (region, service) in [("r", "s"), ("rs", "t"), ("r", "t"), ("q", "s")] {
                let signature = sign(&credentials, Scope { region, service }, at);
                assert_eq!(signature, expected("secret", Scope { region, service }, at));
                signatures.insert(signature);
            }
        }
        assert_eq!(signatures.len(), 8);
        assert_eq!(credentials.keys.borrow().entries.len(), 8);
    }

    #[test]
    fn the_keys_are_bounded_and_what_is_used_stays() {
        let credentials = credentials("secret");
        for index in 0..3 * CAPACITY {
            sign(&credentials, SCOPE, at());
            sign(&credentials, Scope { region: "r", service: &index.to_string() }, at());
            assert!(credentials.keys.borrow().entries.len() <= CAPACITY);
        }
        assert!(credentials.keys.borrow().entries.iter().any(|entry| entry.scope.as_deref() == SCOPE));
    }

    #[test]
    fn what_requests_have_in_common_is_written_as_aws_does() {
        let timestamp = Clock::default().timestamp(at()).unwrap();
        let credentials = credentials("secret");
        let key = credentials.key(Algorithm::SigV4, SCOPE, at(), timestamp).unwrap();
        let head = b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=";
        assert_eq!(key.second_parts().authorization_head, head);
        drop(key);
        let asymmetric = Algorithm::SigV4a { region_set: "*" };
        let key = credentials.key(asymmetric, SCOPE, at(), timestamp).unwrap();
        assert_eq!(key.second_parts().credential_scope, b"20150830/iam/aws4_request");
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let credentials = credentials("hush");
        sign(&credentials, SCOPE, at());
        assert!(!format!("{credentials:?}").contains("hush"));
    }
}
