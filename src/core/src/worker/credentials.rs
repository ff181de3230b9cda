//! A worker's cache of the credentials, so that a request does not read the shared data.

use std::cell::{Ref, RefCell};
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crate::credentials::{CredentialStore, Identity, SharedData};
use crate::policy::Policy;
use crate::signing::SigningCredentials;

use super::callers::CallerIdentities;

/// Credentials by the index of their identity in the policy.
pub(crate) struct CredentialCache {
    /// The index of each identity's id.
    indexes: HashMap<String, usize>,
    entries: RefCell<Entries>,
}

struct Entries {
    generation: u64,
    by_index: Vec<Option<SigningCredentials>>,
}

impl CredentialCache {
    /// Makes a cache without credentials.
    pub(crate) fn new(identities: &[Identity]) -> Self {
        let indexes = identities.iter().map(|identity| identity.id().to_owned()).zip(0..).collect();
        let by_index = identities.iter().map(|_| None).collect();
        // No generation of the store has this number, so the first reload reads everything.
        Self { indexes, entries: RefCell::new(Entries { generation: u64::MAX, by_index }) }
    }

    /// Reads the changes in the shared data since the last reload. Returns whether there were any.
    pub(crate) fn reload(
        &self,
        store: &CredentialStore<impl SharedData>,
        policy: &Policy,
        callers: &CallerIdentities,
    ) -> bool {
        let generation = store.generation();
        let mut entries = self.entries.borrow_mut();
        if generation == entries.generation {
            return false;
        }
        let changes = store.changes(entries.generation, generation);
        callers.reload(store, changes.as_deref());
        match changes {
            Some(ids) => {
                for index in ids.iter().filter_map(|id| self.indexes.get(id)) {
                    entries.reload(store, policy, *index);
                }
            }
            None => {
                for index in 0..policy.identities().len() {
                    entries.reload(store, policy, index);
                }
            }
        }
        entries.generation = generation;
        true
    }

    /// Returns the credentials of the policy's identity with this index, if they are valid at `now`.
    pub(crate) fn valid(&self, identity: usize, now: SystemTime) -> Option<Ref<'_, SigningCredentials>> {
        Ref::filter_map(self.entries.borrow(), |entries| {
            let cached = entries.by_index.get(identity)?.as_ref();
            cached.filter(|cached| cached.credentials().hold_at(now))
        })
        .ok()
    }

    /// Returns the time left before the credentials of each identity expire: zero if there are none, `None` if they never
    /// do.
    pub(crate) fn remaining(&self, now: SystemTime) -> Vec<Option<Duration>> {
        let remaining = |cached: &SigningCredentials| cached.credentials().remaining(now);
        let entries = self.entries.borrow();
        entries.by_index.iter().map(|cached| cached.as_ref().map_or(Some(Duration::ZERO), remaining)).collect()
    }
}

impl Entries {
    fn reload(&mut self, store: &CredentialStore<impl SharedData>, policy: &Policy, index: usize) {
        let Some((cached, identity)) = self.by_index.get_mut(index).zip(policy.identities().get(index)) else { return };
        let stored = store.get(identity.id());
        // Unchanged credentials keep their derived keys.
        if cached.as_ref().map(SigningCredentials::credentials) != stored.as_ref() {
            *cached = stored.map(SigningCredentials::from);
        }
    }
}
