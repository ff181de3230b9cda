//! The credentials held for identities, and the access keys that were revoked.
//!
//! Everything lives in the proxy's shared data. The map has no deletion and outlives a single policy, so nothing here grows
//! with time: leases and slots expire unless renewed, and forgotten credentials are overwritten with an empty value.

use std::time::SystemTime;

use secrecy::zeroize::Zeroizing;

use super::Credentials;
use super::changes::{self, bump_generation};
use super::shared_data::{ATTEMPTS, SetError, SharedData};

/// The most revoked access keys remembered for an identity; nobody revokes that many while an older one is still valid.
const REVOKED_MAX: usize = 16;

/// The store over one proxy's shared data.
#[derive(Debug, Clone, Copy)]
pub struct CredentialStore<D>(pub D);

impl<D: SharedData> CredentialStore<D> {
    /// Stores credentials for an identity and replaces earlier ones; a reader sees the old or the new, never a mixture.
    ///
    /// # Errors
    /// If the proxy refuses the value.
    pub fn put(&self, id: &str, credentials: &Credentials) -> Result<(), SetError> {
        self.0.set(&credentials_key(id), &credentials.to_document(), 0)?;
        self.changed(id)
    }

    /// Wipes the credentials of an identity, and remembers their access key for as long as the identity is required: even if
    /// pushed again, that key is not read until it is [reinstated](Self::reinstate).
    ///
    /// # Errors
    /// If the proxy refuses a value. The credentials are wiped even if their access key can't be remembered.
    pub fn revoke(&self, id: &str) -> Result<(), SetError> {
        for _ in 0..ATTEMPTS {
            let (document, cas) = self.0.get(&credentials_key(id)).unwrap_or_default();
            // Before wiping, so that a concurrent push of the same key has no effect.
            let noted = match access_key_of(document) {
                Some(key) => self.note_revoked(id, key),
                None => Ok(()),
            };
            // Another key that was pushed meanwhile is revoked too: the caller revokes whatever is held.
            match self.0.set(&credentials_key(id), b"", cas) {
                Err(SetError::Raced) => {}
                wiped => return wiped.and_then(|()| self.changed(id)).and(noted),
            }
        }
        Err(SetError::Raced)
    }

    fn note_revoked(&self, id: &str, access_key_id: String) -> Result<(), SetError> {
        self.0.update(&revoked_key(id), |revoked: &mut Vec<String>| {
            revoked.retain(|key| *key != access_key_id);
            revoked.push(access_key_id.clone());
            revoked.drain(..revoked.len().saturating_sub(REVOKED_MAX));
            true
        })
    }

    /// Wipes the credentials of an identity if they have this access key, as after a push that lost a race with a
    /// revocation.
    ///
    /// # Errors
    /// If the proxy refuses the value.
    pub fn discard(&self, id: &str, access_key_id: &str) -> Result<(), SetError> {
        for _ in 0..ATTEMPTS {
            let (document, cas) = self.0.get(&credentials_key(id)).unwrap_or_default();
            if access_key_of(document).is_none_or(|held| held != access_key_id) {
                return Ok(());
            }
            match self.0.set(&credentials_key(id), b"", cas) {
                Err(SetError::Raced) => {}
                wiped => return wiped.and_then(|()| self.changed(id)),
            }
        }
        Err(SetError::Raced)
    }

    /// Allows a revoked access key again.
    ///
    /// # Errors
    /// If the proxy refuses the value.
    pub fn reinstate(&self, id: &str, access_key_id: &str) -> Result<(), SetError> {
        self.0.update(&revoked_key(id), |revoked: &mut Vec<String>| {
            let before = revoked.len();
            revoked.retain(|key| key != access_key_id);
            revoked.len() < before
        })
    }

    /// Returns the ids of an identity's revoked access keys, latest last.
    ///
    /// # Errors
    /// If they can't be read, because another version of the filter wrote them or they are damaged: then any key may be
    /// revoked.
    pub fn revoked(&self, id: &str) -> Result<Vec<String>, SetError> {
        match self.0.get(&revoked_key(id)) {
            Some((list, _)) if !list.is_empty() => serde_json::from_slice(&list).map_err(|_| SetError::Unreadable),
            _ => Ok(Vec::new()),
        }
    }

    /// Returns the credentials of an identity, expired or not, but never ones that are or may be revoked.
    pub fn get(&self, id: &str) -> Option<Credentials> {
        let (document, _) = self.0.get(&credentials_key(id))?;
        let credentials = Credentials::from_document(&Zeroizing::new(document)).ok()?;
        match self.revoked(id) {
            Ok(revoked) => (!revoked.iter().any(|key| key == credentials.access_key_id())).then_some(credentials),
            Err(error) => {
                log::error!("nothing is signed for {id:?}, because its revocations can't be read: {error}");
                None
            }
        }
    }

    /// Returns whether anything is stored for an identity, even if it can't be used.
    pub fn is_stored(&self, id: &str) -> bool {
        self.0.get(&credentials_key(id)).is_some_and(|(document, _)| !document.is_empty())
    }

    /// Forgets an identity that no policy requires any more.
    ///
    /// # Errors
    /// If the proxy refuses the value.
    pub fn forget(&self, id: &str) -> Result<(), SetError> {
        self.erase(id)?;
        self.changed(id)
    }

    pub(super) fn erase(&self, id: &str) -> Result<(), SetError> {
        if self.0.get(&revoked_key(id)).is_some_and(|(list, _)| !list.is_empty()) {
            self.0.set(&revoked_key(id), b"", 0)?;
        }
        self.0.set(&credentials_key(id), b"", 0)
    }

    /// Records that the credentials of an identity changed.
    fn changed(&self, id: &str) -> Result<(), SetError> {
        bump_generation(&self.0, SystemTime::UNIX_EPOCH, Some(id))
    }

    /// Returns a number that changes with every change of the credentials and leases. It starts at the clock's
    /// milliseconds, so that it differs after a restart of the proxy.
    pub fn generation(&self) -> u64 {
        changes::generation(&self.0)
    }

    /// Returns the ids of the identities whose credentials changed after generation `seen` and up to `generation`. `None`
    /// if something else changed too, if `seen` is too old, or if another version of the filter made a change: then read
    /// everything again.
    pub fn changes(&self, seen: u64, generation: u64) -> Option<Vec<String>> {
        changes::changes(&self.0, seen, generation)
    }
}

/// Returns the id of the access key in a stored document.
fn access_key_of(document: Vec<u8>) -> Option<String> {
    let credentials = Credentials::from_document(&Zeroizing::new(document)).ok()?;
    Some(credentials.access_key_id().to_owned())
}

fn credentials_key(id: &str) -> String {
    format!("sigv4.credentials.{id}")
}

fn revoked_key(id: &str) -> String {
    format!("sigv4.revoked.{id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Identity;
    use crate::credentials::test_data::{at, credentials, role};
    use crate::test_support::Memory;

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
    fn a_revoked_key_is_not_read_again_for_as_long_as_its_identity_is_required() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.lease("policy", &[Identity::default_chain()], at(0), true).unwrap();
        store.revoke("default").unwrap();
        assert!(store.revoked("default").unwrap().is_empty());
        for key in ["AKIDONE", "AKIDTWO"] {
            store.put("default", &credentials(key)).unwrap();
            store.revoke("default").unwrap();
        }
        assert_eq!(store.revoked("default").unwrap(), ["AKIDONE", "AKIDTWO"]);
        // Like a concurrent push.
        store.put("default", &credentials("AKIDONE")).unwrap();
        assert!(store.get("default").is_none());
        store.reinstate("default", "AKIDONE").unwrap();
        assert_eq!(store.get("default").unwrap().access_key_id(), "AKIDONE");
        assert_eq!(store.revoked("default").unwrap(), ["AKIDTWO"]);

        store.lease("other", &[role("reader")], at(31), true).unwrap();
        assert!(store.revoked("default").unwrap().is_empty());
    }

    #[test]
    fn a_revocation_wipes_what_is_held_even_if_it_can_not_be_noted() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.put("default", &credentials("AKIDONE")).unwrap();
        (&memory).set("sigv4.revoked.default", b"{}", 0).unwrap();
        let generation = store.generation();
        assert!(store.get("default").is_none() && store.is_stored("default"));
        assert_eq!(store.revoked("default"), Err(SetError::Unreadable));
        assert_eq!(store.revoke("default"), Err(SetError::Unreadable));
        assert!(!store.is_stored("default") && store.generation() > generation);
        assert_eq!((&memory).get("sigv4.revoked.default").unwrap().0, b"{}");
    }

    #[test]
    fn what_is_remembered_of_revocations_is_bounded() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        for number in 0..100 {
            store.put("default", &credentials(&format!("AKID{number}"))).unwrap();
            store.revoke("default").unwrap();
        }
        let revoked = store.revoked("default").unwrap();
        assert_eq!((revoked.len(), revoked.last().map(String::as_str)), (REVOKED_MAX, Some("AKID99")));
    }
}
