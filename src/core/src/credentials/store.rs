//! What the workers of one proxy share: which identities the loaded policies want, the credentials held for them,
//! and who is to be told when they change.
//!
//! Everything lives in the proxy's shared data, a map of bytes in its memory that all virtual machines of one
//! `vm_id` see. The map has no deletion and outlives a single policy, so nothing here grows with time: wants and
//! watchers are leases that run out when nobody renews them, and forgotten credentials are overwritten by nothing.

use std::time::{Duration, SystemTime};

use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Credentials, Identity};

/// How long a want or a watcher lasts without renewal. A policy that was taken away stays wanted that long.
pub const LEASE: Duration = Duration::from_secs(30);

/// Renewed when less than this is left, so that a worker that misses a tick or two loses nothing.
const RENEWAL: Duration = Duration::from_secs(20);

/// A writer that loses this many races in a row gives up; with one try a tick and worker it can't happen by chance.
const ATTEMPTS: usize = 64;

/// So many revoked access keys of an identity are remembered; nobody revokes that many while an older one still holds.
const REVOKED_MAX: usize = 16;

const WANTED: &str = "sigv4.wanted";
const WATCHERS: &str = "sigv4.watchers";
const GENERATION: &str = "sigv4.generation";

/// The proxy's shared data.
pub trait SharedData {
    /// The value under a key and its compare-and-swap number; `None` where nothing was ever set.
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)>;

    /// Sets a value, with `cas` only where the number is still that one (0: any).
    ///
    /// # Errors
    /// [`SetError::Raced`] where another writer was faster.
    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), SetError>;

    /// Returns the value under a key, which is JSON; the default where there is none, or none of this type.
    fn read<T: DeserializeOwned + Default>(&self, key: &str) -> T {
        self.get(key).and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Updates a value with compare-and-swap, retrying on conflict. `change` gets the value and returns the new one, or
    /// `None` if there is nothing to write.
    ///
    /// A value that was never set has no number to compare, so the very first write of a key is not guarded. The
    /// proxy makes it before it starts its workers, when it tries a policy out on its main thread.
    ///
    /// # Errors
    /// Where the proxy does not take the value.
    fn update_bytes(&self, key: &str, change: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> Result<(), SetError> {
        for _ in 0..ATTEMPTS {
            let (bytes, cas) = self.get(key).unwrap_or_default();
            let Some(changed) = change(&bytes) else { return Ok(()) };
            match self.set(key, &changed, cas) {
                Err(SetError::Raced) => {}
                done => return done,
            }
        }
        Err(SetError::Raced)
    }

    /// [Updates](Self::update_bytes) a value that is JSON. `change` returns whether to write.
    ///
    /// # Errors
    /// Where the proxy does not take the value.
    fn update<T, F>(&self, key: &str, mut change: F) -> Result<(), SetError>
    where
        T: Serialize + DeserializeOwned + Default,
        F: FnMut(&mut T) -> bool,
    {
        self.update_bytes(key, &mut |bytes| {
            let mut value = serde_json::from_slice(bytes).unwrap_or_default();
            // Writing into a vector does not fail.
            change(&mut value).then(|| serde_json::to_vec(&value).unwrap_or_default())
        })
    }
}

/// Why shared data was not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// The value had changed since it was read.
    #[error("another worker changed the value first")]
    Raced,
    /// The proxy did not take it.
    #[error("the proxy refused the value")]
    Refused,
}

/// The store over one proxy's shared data.
#[derive(Debug, Clone, Copy)]
pub struct CredentialStore<D>(pub D);

/// The identities that one policy wants.
#[derive(Serialize, Deserialize)]
struct Want {
    policy: String,
    until: u64,
    identities: Vec<Identity>,
}

impl<D: SharedData> CredentialStore<D> {
    /// Says, until the lease ends, that `policy` wants `identities`. Credentials of identities that are no longer
    /// wanted by any policy are wiped on the way.
    ///
    /// # Errors
    /// Where the proxy does not take the value.
    pub fn want(&self, policy: &str, identities: &[Identity], now: SystemTime) -> Result<(), SetError> {
        let mut dropped = Vec::new();
        self.0.update(WANTED, |wants: &mut Vec<Want>| {
            let expired = wants.iter().any(|want| want.until <= seconds(now));
            let fresh = wants.iter().any(|want| want.policy == policy && want.until >= seconds(now + RENEWAL));
            if fresh && !expired {
                return false;
            }
            dropped.clear();
            wants.retain(|want| {
                let keep = want.until > seconds(now) && want.policy != policy;
                if !keep {
                    dropped.extend(want.identities.iter().cloned());
                }
                keep
            });
            let until = seconds(now + LEASE);
            wants.push(Want { policy: policy.to_owned(), until, identities: identities.to_vec() });
            dropped.retain(|identity| !wants.iter().any(|want| want.identities.contains(identity)));
            true
        })?;
        dropped.iter().try_for_each(|identity| self.forget(identity.id()))
    }

    /// All identities wanted at `now`, each once, in a steady order.
    pub fn wanted(&self, now: SystemTime) -> Vec<Identity> {
        let wants: Vec<Want> = self.0.read(WANTED);
        let live = wants.into_iter().filter(|want| want.until > seconds(now));
        let mut identities: Vec<Identity> = live.flat_map(|want| want.identities).collect();
        identities.sort_unstable();
        identities.dedup();
        identities
    }

    /// Holds credentials for an identity, in place of any before; a reader sees the old or the new, never a mixture.
    ///
    /// # Errors
    /// Where the proxy does not take the value.
    pub fn put(&self, id: &str, credentials: &Credentials) -> Result<(), SetError> {
        self.0.set(&credentials_key(id), &credentials.to_document(), 0)?;
        self.bump()
    }

    /// Takes away what is held for an identity, and remembers its access key for as long as the identity is wanted: it
    /// is not read again, whoever puts it back, until it is [reinstated](Self::reinstate).
    ///
    /// # Errors
    /// Where the proxy does not take the value.
    pub fn revoke(&self, id: &str) -> Result<(), SetError> {
        if let Some(credentials) = self.get(id) {
            self.0.update(&revoked_key(id), |revoked: &mut Vec<String>| {
                revoked.push(credentials.access_key_id().to_owned());
                revoked.drain(..revoked.len().saturating_sub(REVOKED_MAX));
                true
            })?;
        }
        self.wipe(id)
    }

    /// Lets an access key be used again that was revoked.
    ///
    /// # Errors
    /// Where the proxy does not take the value.
    pub fn reinstate(&self, id: &str, access_key_id: &str) -> Result<(), SetError> {
        self.0.update(&revoked_key(id), |revoked: &mut Vec<String>| {
            let before = revoked.len();
            revoked.retain(|key| key != access_key_id);
            revoked.len() < before
        })
    }

    /// The ids of the access keys that were taken away from an identity, latest last.
    pub fn revoked(&self, id: &str) -> Vec<String> {
        self.0.read(&revoked_key(id))
    }

    /// What is held for an identity, expired or not, but never what was revoked.
    pub fn get(&self, id: &str) -> Option<Credentials> {
        let (document, _) = self.0.get(&credentials_key(id))?;
        let credentials = Credentials::from_document(&Zeroizing::new(document)).ok()?;
        let is_revoked = self.revoked(id).iter().any(|key| key == credentials.access_key_id());
        (!is_revoked).then_some(credentials)
    }

    /// Nothing is known of an identity that nobody wants any more.
    fn forget(&self, id: &str) -> Result<(), SetError> {
        if !self.revoked(id).is_empty() {
            self.0.set(&revoked_key(id), b"", 0)?;
        }
        self.wipe(id)
    }

    fn wipe(&self, id: &str) -> Result<(), SetError> {
        self.0.set(&credentials_key(id), b"", 0)?;
        self.bump()
    }

    /// A number that changes with every change of any credentials.
    pub fn generation(&self) -> u64 {
        self.0.read(GENERATION)
    }

    /// Takes a watcher's place until the lease ends; the number is the lowest that is free.
    ///
    /// # Errors
    /// Where the proxy does not take the value.
    pub fn claim_watcher(&self, now: SystemTime) -> Result<usize, SetError> {
        let mut place = 0;
        self.0.update(WATCHERS, |watchers: &mut Vec<u64>| {
            let until = seconds(now + LEASE);
            match watchers.iter().position(|held| *held <= seconds(now)) {
                Some(free) => {
                    place = free;
                    watchers[free] = until;
                }
                None => {
                    place = watchers.len();
                    watchers.push(until);
                }
            }
            true
        })?;
        Ok(place)
    }

    /// Keeps a watcher's place for another lease. `false` where the lease had run out: somebody else may have the
    /// place by now, so another is to be claimed.
    ///
    /// # Errors
    /// Where the proxy does not take the value.
    pub fn renew_watcher(&self, place: usize, now: SystemTime) -> Result<bool, SetError> {
        let mut held = true;
        self.0.update(WATCHERS, |watchers: &mut Vec<u64>| match watchers.get_mut(place) {
            Some(until) if *until > seconds(now) => {
                let due = *until < seconds(now + RENEWAL);
                if due {
                    *until = seconds(now + LEASE);
                }
                due
            }
            _ => {
                held = false;
                false
            }
        })?;
        Ok(held)
    }

    /// The places of all live watchers.
    pub fn watchers(&self, now: SystemTime) -> Vec<usize> {
        let watchers: Vec<u64> = self.0.read(WATCHERS);
        (0..).zip(watchers).filter(|(_, until)| *until > seconds(now)).map(|(place, _)| place).collect()
    }

    fn bump(&self) -> Result<(), SetError> {
        self.0.update(GENERATION, |generation: &mut u64| {
            *generation += 1;
            true
        })
    }
}

fn credentials_key(id: &str) -> String {
    format!("sigv4.credentials.{id}")
}

fn revoked_key(id: &str) -> String {
    format!("sigv4.revoked.{id}")
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::credentials::{Role, memory::Memory};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn role(name: &str) -> Identity {
        let arn = format!("arn:aws:iam::123456789012:role/{name}");
        Identity::assumed(Role::new(arn, "s"))
    }

    fn credentials(key: &str) -> Credentials {
        Credentials::new(key, "secret".to_owned(), None, None).unwrap()
    }

    #[test]
    fn what_is_put_is_held_until_it_is_revoked() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        assert!(store.get("default").is_none());
        store.put("default", &credentials("AKIDONE")).unwrap();
        let first = store.generation();
        assert_eq!(store.get("default").unwrap().access_key_id(), "AKIDONE");
        store.put("default", &credentials("AKIDTWO")).unwrap();
        assert_eq!(store.get("default").unwrap().access_key_id(), "AKIDTWO");
        assert_ne!(store.generation(), first);
        store.revoke("default").unwrap();
        assert!(store.get("default").is_none());
    }

    #[test]
    fn a_revoked_key_is_not_read_again_for_as_long_as_its_identity_is_wanted() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.want("policy", &[Identity::default_chain()], at(0)).unwrap();
        store.revoke("default").unwrap();
        assert!(store.revoked("default").is_empty());
        for key in ["AKIDONE", "AKIDTWO"] {
            store.put("default", &credentials(key)).unwrap();
            store.revoke("default").unwrap();
        }
        assert_eq!(store.revoked("default"), ["AKIDONE", "AKIDTWO"]);
        // As a push does that was under way meanwhile.
        store.put("default", &credentials("AKIDONE")).unwrap();
        assert!(store.get("default").is_none());
        store.reinstate("default", "AKIDONE").unwrap();
        assert_eq!(store.get("default").unwrap().access_key_id(), "AKIDONE");
        assert_eq!(store.revoked("default"), ["AKIDTWO"]);

        store.want("other", &[role("reader")], at(31)).unwrap();
        assert!(store.revoked("default").is_empty());
    }

    #[test]
    fn what_is_remembered_of_revocations_is_bounded() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        for number in 0..100 {
            store.put("default", &credentials(&format!("AKID{number}"))).unwrap();
            store.revoke("default").unwrap();
        }
        let revoked = store.revoked("default");
        assert_eq!((revoked.len(), revoked.last().map(String::as_str)), (REVOKED_MAX, Some("AKID99")));
    }

    #[test]
    fn the_wants_of_all_policies_are_listed_once() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.want("a", &[Identity::default_chain(), role("reader")], at(0)).unwrap();
        store.want("b", &[Identity::default_chain(), role("writer")], at(0)).unwrap();
        store.want("b", &[Identity::default_chain(), role("writer")], at(1)).unwrap();
        let ids: Vec<_> = store.wanted(at(2)).iter().map(|i| i.id().split('-').next().unwrap().to_owned()).collect();
        assert_eq!(ids, ["default", "reader", "writer"]);
    }

    #[test]
    fn a_policy_that_is_gone_is_no_longer_wanted_and_its_credentials_are_wiped() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.want("old", &[role("reader"), Identity::default_chain()], at(0)).unwrap();
        store.put(role("reader").id(), &credentials("AKIDONE")).unwrap();
        store.put("default", &credentials("AKIDTWO")).unwrap();
        store.want("new", &[Identity::default_chain()], at(29)).unwrap();
        assert_eq!(store.wanted(at(29)).len(), 2);
        assert_eq!(store.wanted(at(31)), [Identity::default_chain()]);
        store.want("new", &[Identity::default_chain()], at(31)).unwrap();
        assert!(store.get(role("reader").id()).is_none());
        assert!(store.get("default").is_some());
    }

    #[test]
    fn a_want_that_is_renewed_in_time_does_not_end() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        for second in 0..100 {
            store.want("a", &[Identity::default_chain()], at(second)).unwrap();
            assert_eq!(store.wanted(at(second)).len(), 1);
        }
    }

    #[test]
    fn places_of_watchers_are_used_again() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        assert_eq!(store.claim_watcher(at(0)), Ok(0));
        assert_eq!(store.claim_watcher(at(0)), Ok(1));
        assert_eq!(store.renew_watcher(1, at(20)), Ok(true));
        assert_eq!(store.watchers(at(31)), [1]);
        assert_eq!(store.renew_watcher(0, at(31)), Ok(false));
        assert_eq!(store.claim_watcher(at(31)), Ok(0));
        assert_eq!(store.watchers(at(32)), [0, 1]);
    }

    /// A writer that loses its first race.
    struct Contended<'a>(&'a Memory, RefCell<bool>);

    impl SharedData for Contended<'_> {
        fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
            (&self.0).get(key)
        }

        fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), SetError> {
            if self.1.replace(false) {
                CredentialStore(self.0).want("other", &[role("other")], at(0)).unwrap();
            }
            (&self.0).set(key, value, cas)
        }
    }

    #[test]
    fn a_lost_race_loses_no_want() {
        let memory = Memory::default();
        CredentialStore(&memory).want("first", &[Identity::default_chain()], at(0)).unwrap();
        let store = CredentialStore(Contended(&memory, RefCell::new(true)));
        store.want("mine", &[role("mine")], at(0)).unwrap();
        assert_eq!(store.wanted(at(0)).len(), 3);
    }
}
