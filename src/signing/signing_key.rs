//! Signing keys, derived once for a credential, day, region and service.

use std::collections::{HashMap, hash_map};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::SystemTime;

use aws_sigv4::sign::v4::generate_signing_key;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use super::Scope;
use super::hex::{self, HexDigest};
use crate::credentials::Credentials;

/// How many keys are kept. A proxy needs one for each identity, region and service that it signs for at a time; what is
/// beyond costs a derivation (five HMACs), never more memory.
const CAPACITY: usize = 512;

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
        let mut hmac = self.0.clone();
        hmac.update(string_to_sign);
        hex::encode(&hmac.finalize().into_bytes().into())
    }
}

/// What a key is derived from, beside the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct KeyScope<'a> {
    /// `20150830`
    pub(super) day: [u8; 8],
    pub(super) scope: Scope<&'a str>,
}

impl KeyScope<'static> {
    /// Of a key that serves on every day, for every region and service.
    pub(super) const ANY: Self = Self { day: [0; 8], scope: Scope { region: "", service: "" } };
}

/// The keys of the requests seen lately.
pub(super) struct KeyCache<K> {
    /// By a hash of what the key was derived from. Two that fall on one hash take turns; each is checked in full before
    /// it is used, so a collision costs a derivation and never gives a wrong key.
    entries: HashMap<u64, Entry<K>>,
    uses: u64,
}

struct Entry<K> {
    access_key_id: String,
    secret_access_key: SecretString,
    day: [u8; 8],
    scope: Scope,
    key: K,
    last_use: u64,
}

impl<K> Entry<K> {
    fn is_of(&self, credentials: &Credentials, scope: KeyScope<'_>) -> bool {
        self.day == scope.day
            && self.access_key_id == credentials.access_key_id()
            && self.secret_access_key.expose_secret() == credentials.secret_access_key()
            && self.scope.as_deref() == scope.scope
    }
}

impl<K> KeyCache<K> {
    /// The key of `credentials` for `scope`; where it is not held, the one that `derive` gives.
    pub(super) fn key<E>(
        &mut self,
        credentials: &Credentials,
        scope: KeyScope<'_>,
        derive: impl FnOnce() -> Result<K, E>,
    ) -> Result<&K, E> {
        self.uses += 1;
        let uses = self.uses;
        let hash = {
            let mut hasher = DefaultHasher::new();
            (credentials.access_key_id(), scope).hash(&mut hasher);
            hasher.finish()
        };
        if self.entries.len() >= CAPACITY && !self.entries.contains_key(&hash) {
            self.evict(scope.day);
        }
        let new = || {
            Ok(Entry {
                access_key_id: credentials.access_key_id().to_owned(),
                secret_access_key: credentials.secret_access_key().into(),
                day: scope.day,
                scope: Scope { region: scope.scope.region.to_owned(), service: scope.scope.service.to_owned() },
                key: derive()?,
                last_use: uses,
            })
        };
        let entry = match self.entries.entry(hash) {
            hash_map::Entry::Vacant(vacant) => vacant.insert(new()?),
            hash_map::Entry::Occupied(occupied) => {
                let entry = occupied.into_mut();
                if !entry.is_of(credentials, scope) {
                    *entry = new()?;
                }
                entry
            }
        };
        entry.last_use = uses;
        Ok(&entry.key)
    }

    /// Makes room: keys of other days go first, then the half that was not used for longest.
    fn evict(&mut self, day: [u8; 8]) {
        self.entries.retain(|_, entry| entry.day == day);
        if self.entries.len() < CAPACITY {
            return;
        }
        let mut uses: Vec<u64> = self.entries.values().map(|entry| entry.last_use).collect();
        let (_, &mut median, _) = uses.select_nth_unstable(CAPACITY / 2);
        self.entries.retain(|_, entry| entry.last_use >= median);
    }
}

// By hand, for a derived one would ask for `K: Default`.
impl<K> Default for KeyCache<K> {
    fn default() -> Self {
        Self { entries: HashMap::new(), uses: 0 }
    }
}

impl<K> fmt::Debug for KeyCache<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache").field("len", &self.entries.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    type Cache = KeyCache<SigningKey>;

    const DAY: [u8; 8] = *b"20150830";

    fn key<'c>(
        cache: &'c mut Cache,
        credentials: &Credentials,
        at: SystemTime,
        day: [u8; 8],
        scope: Scope<&str>,
    ) -> &'c SigningKey {
        let derive = || Ok::<_, ()>(SigningKey::derive(credentials.secret_access_key(), at, scope));
        cache.key(credentials, KeyScope { day, scope }, derive).unwrap()
    }

    fn at() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_440_938_160)
    }

    fn credentials(secret: &str) -> Credentials {
        Credentials::new("AKIDEXAMPLE", secret.to_owned(), None, None).unwrap()
    }

    fn expected(secret: &str, scope: Scope<&str>) -> HexDigest {
        let key = generate_signing_key(secret, at(), scope.region, scope.service);
        aws_sigv4::sign::v4::calculate_signature(key, b"message").into_bytes().try_into().unwrap()
    }

    #[test]
    fn a_cached_key_signs_as_a_fresh_one() {
        let scope = Scope { region: "us-east-1", service: "iam" };
        let mut cache = Cache::default();
        for _ in 0..2 {
            let key = key(&mut cache, &credentials("secret"), at(), DAY, scope);
            assert_eq!(key.sign(b"message"), expected("secret", scope));
        }
        assert_eq!(cache.entries.len(), 1);
    }

    #[test]
    fn a_rotated_secret_under_the_same_id_gets_its_own_key() {
        let scope = Scope { region: "us-east-1", service: "iam" };
        let mut cache = Cache::default();
        for secret in ["old", "new", "old"] {
            let key = key(&mut cache, &credentials(secret), at(), DAY, scope);
            assert_eq!(key.sign(b"message"), expected(secret, scope));
        }
    }

    #[test]
    fn day_region_and_service_each_have_their_own_key() {
        let mut cache = Cache::default();
        let mut signatures = std::collections::HashSet::new();
        for (day, at) in [(DAY, at()), (*b"20150831", at() + Duration::from_secs(86_400))] {
            for (region, service) in [("r", "s"), ("rs", ""), ("r", "t"), ("q", "s")] {
                let key = key(&mut cache, &credentials("secret"), at, day, Scope { region, service });
                signatures.insert(key.sign(b"message"));
            }
        }
        assert_eq!(signatures.len(), 8);
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let mut cache = Cache::default();
        let credentials = credentials("secret");
        let hot = Scope { region: "us-east-1", service: "hot" };
        for index in 0..3 * CAPACITY {
            key(&mut cache, &credentials, at(), DAY, hot);
            key(&mut cache, &credentials, at(), DAY, Scope { region: "us-east-1", service: &index.to_string() });
            assert!(cache.entries.len() <= CAPACITY);
        }
        assert!(cache.entries.values().any(|entry| entry.scope.as_deref() == hot));
    }

    #[test]
    fn debug_output_shows_no_key() {
        let mut cache = Cache::default();
        key(&mut cache, &credentials("hush"), at(), DAY, Scope { region: "r", service: "s" });
        assert_eq!(format!("{cache:?}"), "KeyCache { len: 1, .. }");
    }
}
